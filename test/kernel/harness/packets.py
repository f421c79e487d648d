"""Probes of agent.py that look at packets or make them by hand."""
import socket
import struct
import threading
import time

ETH_P_ALL = 3


def internet_sum(data):
    """The Internet checksum (RFC 1071)."""
    data += b'\0' * (len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff


class Segment:
    """A TCP segment in an Ethernet frame; None-like (`ok` False) for anything else. No IPv6 extension headers."""

    def __init__(self, frame):
        self.frame, self.ok = frame, False
        kind = struct.unpack('!H', frame[12:14])[0] if len(frame) > 54 else 0
        if kind == 0x0800 and frame[23] == socket.IPPROTO_TCP:
            self.tcp = 14 + (frame[14] & 15) * 4
            self.end = 14 + struct.unpack('!H', frame[16:18])[0]
            self.source, self.target = (socket.inet_ntop(socket.AF_INET, frame[at:at + 4]) for at in (26, 30))
            self.addresses = frame[26:34]
        elif kind == 0x86dd and frame[20] == socket.IPPROTO_TCP:
            self.tcp = 54
            self.end = 54 + struct.unpack('!H', frame[18:20])[0]
            self.source, self.target = (socket.inet_ntop(socket.AF_INET6, frame[at:at + 16]) for at in (22, 38))
            self.addresses = frame[22:54]
        else:
            return
        self.ok = True
        self.ports = struct.unpack('!HH', frame[self.tcp:self.tcp + 4])
        self.flags = frame[self.tcp + 13]

    def out_of_window(self, offset):
        """The same segment with another sequence number; the checksum is made whole (a capture's is not)."""
        segment = bytearray(self.frame[self.tcp:self.end])
        sequence = (struct.unpack('!I', segment[4:8])[0] + offset) & 0xffffffff
        segment[4:8] = struct.pack('!I', sequence)
        segment[16:18] = b'\0\0'
        if len(self.addresses) == 8:
            pseudo = self.addresses + struct.pack('!BBH', 0, socket.IPPROTO_TCP, len(segment))
        else:
            pseudo = self.addresses + struct.pack('!IHBB', len(segment), 0, 0, socket.IPPROTO_TCP)
        segment[16:18] = struct.pack('!H', internet_sum(pseudo + bytes(segment)))
        return self.frame[:self.tcp] + bytes(segment)


class Tap:
    """Counts the TCP segments on an interface until it is stopped; keeps the last that it sent from a port."""

    def __init__(self, interface, port):
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.raw.bind((interface, ETH_P_ALL))
        self.port = port
        self.last = None
        self.seen = {}
        self.lock = threading.Lock()
        self.stopping = False
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        self.raw.settimeout(0.1)
        while not self.stopping:
            try:
                frame, place = self.raw.recvfrom(65600)
            except OSError:
                continue
            segment = Segment(frame)
            if not segment.ok:
                continue
            with self.lock:
                way = 'out' if place[2] == socket.PACKET_OUTGOING else 'in'
                key = '%s %s%s' % (way, segment.source if way == 'in' else segment.target,
                                   ' RST' if segment.flags & 4 else '')
                self.seen[key] = self.seen.get(key, 0) + 1
                if way == 'out' and segment.ports[0] == self.port and segment.end > segment.tcp + 32:
                    self.last = segment

    def stop(self):
        self.stopping = True
        self.thread.join()
        self.raw.close()
        return self.seen


taps = {}


def tap_start(command):
    taps[command['handle']] = Tap(command['interface'], command['port'])


def tap_stop(command):
    return taps.pop(command['handle']).stop()


def tap_inject(command):
    """Sends the last data segment of the tap's port once more, with a sequence number far out of the window."""
    tap = taps[command['handle']]
    end = time.monotonic() + 30
    while tap.last is None and time.monotonic() < end:
        time.sleep(0.01)  # it is in the socket, but not read yet
    last = tap.last
    if last is None:
        raise ValueError('the tap has seen no data segment from port %d' % tap.port)
    tap.raw.send(last.out_of_window(command['offset']))


def exchange(connect, read_lines, command):
    """A connection that sends `up` bytes and is answered by about `down` bytes, whole or not at all."""
    begun = time.monotonic()
    with connect(dict(command, protocol='TCP')) as client:
        first = read_lines(client, 1)
        lines = -(-command['down'] // len(first))
        client.sendall(b'x' * command['up'] + b'\n' * lines)
        rest = read_lines(client, lines)
    return {'result': 'answered', 'received': len(rest), 'ms': round((time.monotonic() - begun) * 1000, 2)}
