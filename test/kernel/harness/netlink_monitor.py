"""Counts the requests that programs send to the kernel by netlink, by command, as the kernel's own monitor (nlmon) shows them.

Prints "ready" and, on SIGTERM, one JSON object such as {"ipvs DEL_DEST": 3, "route DELADDR": 1}. Only requests that change
something are counted. Needs an interface of type nlmon, named on the command line.
"""
import json
import signal
import socket
import struct
import sys

NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC = 0, 12, 16
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
ETH_P_ALL = 3
# linux/rtnetlink.h, linux/ip_vs.h, linux/netfilter/ipset/ip_set.h, linux/netfilter/nfnetlink_conntrack.h
ROUTE = {16: 'NEWLINK', 17: 'DELLINK', 20: 'NEWADDR', 21: 'DELADDR'}
IPVS = {1: 'NEW_SERVICE', 2: 'SET_SERVICE', 3: 'DEL_SERVICE', 5: 'NEW_DEST', 6: 'SET_DEST', 7: 'DEL_DEST',
        9: 'NEW_DAEMON', 10: 'DEL_DAEMON', 12: 'SET_CONFIG', 16: 'ZERO', 17: 'FLUSH'}
IPSET = {2: 'CREATE', 3: 'DESTROY', 4: 'FLUSH', 5: 'RENAME', 6: 'SWAP', 9: 'ADD', 10: 'DEL'}
CONNTRACK = {0: 'NEW', 2: 'DELETE'}
# linux/netfilter/nf_tables.h; of the daemon's own tables, whose name is in every message: iptables-nft writes there as well.
NFTABLES = {0: 'NEWTABLE', 2: 'DELTABLE', 3: 'NEWCHAIN', 5: 'DELCHAIN', 6: 'NEWRULE', 8: 'DELRULE', 9: 'NEWSET',
            11: 'DELSET', 12: 'NEWSETELEM', 14: 'DELSETELEM'}
OWN_TABLE = b'kube-proxy-ipvs\0'
GENL_ID_CTRL = 16

counts = {}


def name(protocol, kind, flags, payload):
    # DUMP and the flags of a new object share bits; only requests to get something are dumps.
    if protocol == NETLINK_ROUTE and kind in ROUTE:
        return 'route ' + ROUTE[kind]
    if protocol == NETLINK_NETFILTER and kind >> 8 == 6 and kind & 255 in IPSET:
        return 'ipset ' + IPSET[kind & 255]
    if protocol == NETLINK_NETFILTER and kind >> 8 == 1 and kind & 255 in CONNTRACK:
        return 'conntrack ' + CONNTRACK[kind & 255]
    if protocol == NETLINK_NETFILTER and kind >> 8 == 10 and kind & 255 in NFTABLES and OWN_TABLE in payload:
        return 'nftables ' + NFTABLES[kind & 255]
    # The only generic netlink family that is spoken to here, besides the controller.
    if protocol == NETLINK_GENERIC and kind != GENL_ID_CTRL and payload and payload[0] in IPVS:
        return 'ipvs ' + IPVS[payload[0]]
    return None


def note(protocol, data):
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags = struct.unpack_from('=IHH', data, offset)
        if length < 16:
            return
        if flags & NLM_F_REQUEST:
            what = name(protocol, kind, flags, data[offset + 16:offset + length])
            if what:
                counts[what] = counts.get(what, 0) + 1
        offset += (length + 3) & ~3


def main():
    monitor = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    monitor.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    monitor.bind((sys.argv[1], ETH_P_ALL))
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    print('ready', flush=True)
    monitor.settimeout(0.2)
    while True:
        try:
            data, address = monitor.recvfrom(1 << 20)
        except TimeoutError:
            if stopping:
                break
            continue
        note(address[1], data)
    print(json.dumps(counts), flush=True)


main()
