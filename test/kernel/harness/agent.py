"""Servers and clients in many network namespaces, in one process (spawning is the slow part of the test kernel).

setns(2) for a network namespace is per thread and a socket stays in the namespace that it was made in, so each command
runs in a thread that has entered the namespace it names. Commands are JSON lines on standard input,
{"id": 1, "do": "request", "ns": "pod-a", ...}; answers are JSON lines {"id": 1, "value": ...} or {"id": 1, "error": "..."},
in the order in which they finish. agent.ts is the other side and documents the fields.
"""
import ctypes
import errno
import json
import os
import queue
import selectors
import socket
import struct
import sys
import threading
import time

import packets

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
IP_PKTINFO = 8
IPPROTO = {'TCP': socket.IPPROTO_TCP, 'UDP': socket.IPPROTO_UDP, 'SCTP': socket.IPPROTO_SCTP}
RESULTS = {
    errno.ECONNREFUSED: 'refused',
    errno.ECONNRESET: 'reset',
    errno.EPIPE: 'reset',
    errno.EHOSTUNREACH: 'unreachable',
    errno.ENETUNREACH: 'unreachable',
    errno.ETIMEDOUT: 'timeout',
}
write_lock = threading.Lock()


def enter(namespace):
    """Moves this thread into a namespace of `ip netns`; '' is the one that the process started in."""
    path = '/run/netns/' + namespace if namespace else '/proc/%d/ns/net' % os.getpid()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, 'setns %s: %s' % (path, os.strerror(number)))
    finally:
        os.close(descriptor)


def make_socket(protocol, address):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == 'UDP' else socket.SOCK_STREAM
    made = socket.socket(family, kind, IPPROTO[protocol])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


# ---- servers: one selector loop for all of them

class Servers:
    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.listeners = {}
        self.connections = {}
        self.lock = threading.Lock()
        self.pipe = os.pipe()
        self.selector.register(self.pipe[0], selectors.EVENT_READ, lambda: os.read(self.pipe[0], 100))
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self):
        while True:
            for key, _ in self.selector.select():
                try:
                    key.data()
                except (OSError, ValueError, KeyError) as error:
                    log('server: %r' % error)

    def start(self, command):
        """Listens; the same (namespace, protocol, address, port) again only changes the name that it answers with."""
        address, protocol = command['address'], command['protocol']
        place = (command['ns'], protocol, address, command['port'])
        with self.lock:
            if place in self.listeners:
                self.listeners[place][1]['by'] = command['by']
                return None
            listener = make_socket(protocol, address)
            listener.bind((address, command['port']))
            listener.setblocking(False)
            state = {'by': command['by'], 'count': 0}
            if protocol == 'UDP':
                if listener.family == socket.AF_INET:
                    listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                else:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                ready = lambda: self.datagram(listener, state)
            else:
                listener.listen(512)
                ready = lambda: self.accept(listener, state, place)
            self.listeners[place] = (listener, state)
            self.selector.register(listener, selectors.EVENT_READ, ready)
            os.write(self.pipe[1], b'x')
        return None

    def stop(self, command):
        """Closes the listener and, unless keepConnections, resets nothing but closes its connections too."""
        place = (command['ns'], command['protocol'], command['address'], command['port'])
        with self.lock:
            listener, state = self.listeners.pop(place)
            self.selector.unregister(listener)
            listener.close()
            if not command.get('keepConnections'):
                for connection in [c for c, p in self.connections.items() if p == place]:
                    self.drop(connection)
        return state['count']

    def drop(self, connection):
        if self.connections.pop(connection, None) is not None:
            self.selector.unregister(connection)
            connection.close()

    def accept(self, listener, state, place):
        while True:
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                return
            state['count'] += 1
            connection.setblocking(False)
            banner = answer(state, peer, connection.getsockname())
            self.connections[connection] = place
            self.selector.register(connection, selectors.EVENT_READ, lambda c=connection, b=banner: self.read(c, b))
            self.send(connection, banner)

    def read(self, connection, banner):
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if data == b'':
            return self.drop(connection)
        self.send(connection, banner * data.count(b'\n'))

    def send(self, connection, data):
        try:
            connection.settimeout(10)  # what does not fit into the socket's buffer waits for the client
            connection.sendall(data)
            connection.setblocking(False)
        except OSError:
            self.drop(connection)

    def datagram(self, listener, state):
        while True:
            try:
                data, ancillary, _, peer = listener.recvmsg(65536, 256)
            except BlockingIOError:
                return
            state['count'] += 1
            local, reply = '', []
            for level, kind, value in ancillary:
                # in_pktinfo {ifindex, spec_dst, addr}, in6_pktinfo {addr, ifindex}: answer from the address asked
                if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                    local = socket.inet_ntop(socket.AF_INET, value[8:12])
                    reply = [(level, kind, struct.pack('I4s4s', 0, value[8:12], b'\0' * 4))]
                elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                    local = socket.inet_ntop(socket.AF_INET6, value[:16])
                    reply = [(level, kind, value[:16] + struct.pack('I', 0))]
            try:
                listener.sendmsg([answer(state, peer, (local, 0), data)], reply, 0, peer)
            except OSError as error:
                log('udp answer to %s: %s' % (peer[0], error))


def answer(state, peer, local, token=b''):
    fields = {'by': state['by'], 'seen': peer[0], 'seenPort': peer[1], 'to': local[0]}
    if token:
        fields['token'] = token.decode('latin-1').strip()
    return json.dumps(fields).encode() + b'\n'


# ---- clients

def failure(error):
    number = error.errno
    if isinstance(error, TimeoutError) and number is None:
        return {'result': 'timeout'}
    return {'result': RESULTS.get(number, 'error'), 'errno': errno.errorcode.get(number, str(error))}


def route_source(command):
    """The source that a UDP socket would have. A socket of SCTP that is not bound offers every address of the machine,
    on the node all VIPs too; from some 70 Services on, its INIT is longer than IPv6 packets may be on the way."""
    with make_socket('UDP', command['address']) as probe:
        probe.connect((command['address'], command['port']))
        return probe.getsockname()[0]


def connect(command):
    client = make_socket(command['protocol'], command['address'])
    try:
        if command.get('sourcePort') or command.get('sourceAddress'):
            wildcard = '::' if ':' in command['address'] else '0.0.0.0'
            client.bind((command.get('sourceAddress') or wildcard, command.get('sourcePort', 0)))
        elif command['protocol'] == 'SCTP':
            client.bind((route_source(command), 0))
        client.settimeout(command.get('timeout', 1000) / 1000)
        client.connect((command['address'], command['port']))
    except BaseException:
        client.close()
        raise
    return client


def read_line(client):
    data = b''
    while not data.endswith(b'\n'):
        more = client.recv(65536)
        if more == b'':
            raise ConnectionResetError(errno.ECONNRESET, 'closed by the server')
        data += more
    return json.loads(data)


def answered(client, reply):
    local = client.getsockname()
    reply.update(result='answered', local=local[0], localPort=local[1])
    return reply


def request(command):
    """One request on a socket of its own."""
    begun = time.monotonic()
    try:
        with connect(command) as client:
            if command['protocol'] == 'UDP':
                client.send(b'?' * command.get('size', 1))
            reply = read_line(client)
            outcome = answered(client, dict(reply, token=len(reply.get('token', ''))))
            if command.get('reset'):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    except OSError as error:
        outcome = failure(error)
    outcome['ms'] = round((time.monotonic() - begun) * 1000, 2)
    return outcome


def exchange(command):
    """Much data in both directions of one connection: see packets.exchange."""
    def read_lines(client, lines):
        data = b''
        while data.count(b'\n') < lines:
            more = client.recv(65536)
            if more == b'':
                raise ConnectionResetError(errno.ECONNRESET, 'closed by the server')
            data += more
        return data
    try:
        return packets.exchange(connect, read_lines, command)
    except OSError as error:
        return failure(error)


def count(table, key):
    table[key] = table.get(key, 0) + 1


def many(command):
    """`count` requests one after the other: who answered how often, which sources were seen, what failed how often."""
    total = {'answered': 0, 'by': {}, 'seen': {}, 'failed': {}}
    begun = time.monotonic()
    for _ in range(command['count']):
        outcome = request(command)
        if outcome['result'] == 'answered':
            total['answered'] += 1
            count(total['by'], outcome['by'])
            count(total['seen'], outcome['seen'])
        else:
            count(total['failed'], outcome['result'])
    total['ms'] = round((time.monotonic() - begun) * 1000, 2)
    return total


held = {}


def open_connection(command):
    """A connection (or connected UDP socket) that stays open under the handle until `close`."""
    begun = time.monotonic()
    try:
        client = connect(command)
        if command['protocol'] == 'UDP':
            client.send(b'?')
        outcome = answered(client, read_line(client))
        if command.get('reset'):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        held[command['handle']] = client
    except OSError as error:
        outcome = failure(error)
    outcome['ms'] = round((time.monotonic() - begun) * 1000, 2)
    return outcome


def ask(command):
    """One more question on an open connection."""
    client = held[command['handle']]
    begun = time.monotonic()
    try:
        client.settimeout(command.get('timeout', 1000) / 1000)
        client.send(b'?\n')
        outcome = answered(client, read_line(client))
    except OSError as error:
        outcome = failure(error)
    outcome['ms'] = round((time.monotonic() - begun) * 1000, 2)
    return outcome


def close(command):
    held.pop(command['handle']).close()


# ---- continuous load

class Load:
    """New connections at a rate, and long-lived ones that each ask at an interval, until it is stopped."""

    def __init__(self, command):
        self.command = command
        self.stopping = threading.Event()
        self.total = {'sent': 0, 'answered': 0, 'failed': {}, 'by': {}, 'held': 0, 'asked': 0, 'lost': {}, 'first': []}
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.short, args=(n,)) for n in range(command.get('workers', 4))]
        if command.get('connections'):
            self.threads.append(threading.Thread(target=self.long))
        for thread in self.threads:
            thread.start()

    def note(self, table, outcome):
        count(self.total[table], outcome['result'])
        if len(self.total['first']) < 10:
            self.total['first'].append(dict(outcome, at=round(time.time(), 3)))

    def short(self, number):
        enter(self.command['ns'])
        pause = self.command.get('workers', 4) / max(self.command.get('rate', 0), 1e-9)
        due = time.monotonic() + pause * number / self.command.get('workers', 4)
        while self.command.get('rate') and not self.stopping.wait(max(0, due - time.monotonic())):
            outcome = request(self.command)
            with self.lock:
                self.total['sent'] += 1
                if outcome['result'] == 'answered':
                    self.total['answered'] += 1
                    count(self.total['by'], outcome['by'])
                else:
                    self.note('failed', outcome)
            due = max(due + pause, time.monotonic() - 1)

    def long(self):
        enter(self.command['ns'])
        clients = []
        for _ in range(self.command['connections']):
            try:
                client = connect(self.command)
                if self.command['protocol'] == 'UDP':
                    client.send(b'?')
                read_line(client)
                clients.append(client)
            except OSError as error:
                with self.lock:
                    self.note('lost', failure(error))
        self.total['held'] = len(clients)
        while clients and not self.stopping.wait(self.command.get('interval', 500) / 1000):
            for client in list(clients):
                with self.lock:
                    self.total['asked'] += 1
                try:
                    client.send(b'?\n')
                    read_line(client)
                except OSError as error:
                    clients.remove(client)
                    client.close()
                    with self.lock:
                        self.note('lost', failure(error))
        for client in clients:
            client.close()

    def counts(self):
        with self.lock:
            return json.loads(json.dumps(self.total))

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.counts()


loads = {}


def load_start(command):
    loads[command['handle']] = Load(command)


# ---- other probes

def http(command):
    """GET without a library: status, lower-case headers, body."""
    try:
        with connect(dict(command, protocol='TCP')) as client:
            host = '[%s]' % command['address'] if ':' in command['address'] else command['address']
            client.sendall(('GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' % (command['path'], host)).encode())
            data = b''
            while True:
                more = client.recv(65536)
                if more == b'':
                    break
                data += more
    except OSError as error:
        return failure(error)
    head, _, body = data.partition(b'\r\n\r\n')
    lines = head.decode('latin-1').split('\r\n')
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(':') for line in lines[1:])}
    if headers.get('transfer-encoding') == 'chunked':
        rest, body = body, b''
        while rest:
            size, _, rest = rest.partition(b'\r\n')
            body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    return {'result': 'answered', 'status': int(lines[0].split(' ')[1]), 'headers': headers, 'body': body.decode()}


def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


def ping(command):
    """One ICMP echo."""
    is6 = ':' in command['address']
    begun = time.monotonic()
    try:
        with socket.socket(socket.AF_INET6 if is6 else socket.AF_INET, socket.SOCK_RAW,
                           socket.IPPROTO_ICMPV6 if is6 else socket.IPPROTO_ICMP) as raw:
            mark = struct.pack('!HH', threading.get_ident() & 0xffff, int(begun * 1000) & 0xffff) + b'echo'
            start = struct.pack('!BBH', 128 if is6 else 8, 0, 0)
            raw.connect((command['address'], 0))
            raw.send(start[:2] + struct.pack('!H', 0 if is6 else checksum(start + mark)) + mark)
            while True:
                left = begun + command.get('timeout', 1000) / 1000 - time.monotonic()
                if left <= 0:
                    return {'result': 'timeout'}
                raw.settimeout(left)
                packet = raw.recv(2048)
                packet = packet if is6 else packet[(packet[0] & 15) * 4:]
                if packet[0] == (129 if is6 else 0) and packet[4:12] == mark:
                    return {'result': 'answered', 'ms': round((time.monotonic() - begun) * 1000, 2)}
    except OSError as error:
        return failure(error)


def arp(command):
    """Who has this IPv4 address? The hardware address that answers on the interface, or none."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw:
        raw.bind((command['interface'], 0x0806))
        mine = raw.getsockname()[4]
        target = socket.inet_aton(command['address'])
        source = socket.inet_aton(command.get('sourceAddress', '0.0.0.0'))
        raw.send(b'\xff' * 6 + mine + b'\x08\x06' + struct.pack('!HHBBH', 1, 0x0800, 6, 4, 1)
                 + mine + source + b'\0' * 6 + target)
        end = time.monotonic() + command.get('timeout', 500) / 1000
        while time.monotonic() < end:
            raw.settimeout(max(0.001, end - time.monotonic()))
            try:
                frame = raw.recv(2048)
            except TimeoutError:
                break
            if frame[20:22] == b'\0\2' and frame[28:32] == target:
                return {'result': 'answered', 'mac': frame[22:28].hex(':')}
    return {'result': 'timeout'}


def write(command):
    """Writes files (sysctls of the namespace): [[path, text], ...]."""
    for path, text in command['files']:
        with open(path, 'w') as file:
            file.write(text)


def read(command):
    with open(command['path']) as file:
        return file.read()


# ---- the command loop

servers = Servers()
COMMANDS = {
    'serve': servers.start, 'unserve': servers.stop, 'request': request, 'many': many, 'open': open_connection,
    'ask': ask, 'close': close, 'http': http, 'ping': ping, 'arp': arp, 'write': write, 'read': read,
    'load': load_start, 'loadCounts': lambda c: loads[c['handle']].counts(),
    'exchange': exchange, 'tap': packets.tap_start, 'tapStop': packets.tap_stop, 'tapInject': packets.tap_inject,
    'loadStop': lambda c: loads.pop(c['handle']).stop(),
}
waiting = queue.SimpleQueue()


def log(text):
    sys.stderr.write('agent: %s\n' % text)
    sys.stderr.flush()


def emit(message):
    with write_lock:
        sys.stdout.write(json.dumps(message) + '\n')
        sys.stdout.flush()


def worker():
    current = None
    while True:
        command = waiting.get()
        try:
            if command['ns'] != current:
                enter(command['ns'])
                current = command['ns']
            emit({'id': command['id'], 'value': COMMANDS[command['do']](command)})
        except Exception as error:  # whatever it is, the other side must hear of it
            emit({'id': command['id'], 'error': '%s: %s: %s' % (command.get('do'), type(error).__name__, error)})


def main():
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 16):
        threading.Thread(target=worker, daemon=True).start()
    emit({'id': 0, 'value': 'ready'})
    for line in sys.stdin:
        waiting.put(json.loads(line))
    os._exit(0)


main()
