#!/usr/bin/env python3
"""Sends one frame from eth0, whatever the rest of the system thinks of it.

  frame.py KIND MAC SOURCE      KIND is ip, arp, ip6, na, ns or ra; SOURCE is what it claims to be:
                                the source address of ip and ip6, the sender of arp, the target of na,
                                the source of ns and ra. An advertisement's own source is the address of eth0.
"""
import socket
import struct
import sys

kind, mac, claim = sys.argv[1:4]
own_v6 = sys.argv[4] if len(sys.argv) > 4 else claim
source = bytes.fromhex(mac.replace(':', ''))


def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def v6(src, dst, protocol, payload, hops=255):
    src, dst = (socket.inet_pton(socket.AF_INET6, a) for a in (src, dst))
    pseudo = src + dst + struct.pack('!II', len(payload), protocol)
    at = 2 if protocol == 58 else 6
    payload = payload[:at] + struct.pack('!H', checksum(pseudo + payload)) + payload[at + 2:]
    return b'\x33\x33\x00\x00\x00\x01' + source + b'\x86\xdd' + struct.pack(
        '!IHBB', 6 << 28, len(payload), protocol, hops) + src + dst + payload


address = socket.AF_INET if kind in ('ip', 'arp') else socket.AF_INET6
claimed = socket.inet_pton(address, claim)
if kind == 'arp':
    frame = b'\xff' * 6 + source + struct.pack(
        '!HHHBBH', 0x806, 1, 0x800, 6, 4, 2) + source + claimed + b'\xff' * 6 + claimed
elif kind == 'ip':
    header = struct.pack('!BBHHHBBH', 0x45, 0, 28, 1, 0, 9, 17, 0) + claimed + bytes([192, 168, 77, 1])
    header = header[:10] + struct.pack('!H', checksum(header)) + header[12:]
    frame = b'\xff' * 6 + source + b'\x08\x00' + header + struct.pack('!HHHH', 9, 9, 8, 0)
elif kind == 'ip6':
    frame = v6(claim, 'ff02::1', 17, struct.pack('!HHHH', 9, 9, 8, 0))
elif kind == 'na':
    frame = v6(own_v6, 'ff02::1', 58, struct.pack('!BBHI', 136, 0, 0, 0x20000000) + claimed + b'\x02\x01' + source)
elif kind == 'ns':
    frame = v6(claim, 'ff02::1', 58, struct.pack('!BBHI', 135, 0, 0, 0) + socket.inet_pton(
        socket.AF_INET6, 'fd00:77::1') + b'\x01\x01' + source)
elif kind == 'ra':
    frame = v6(claim, 'ff02::1', 58, struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0))
else:
    sys.exit(__doc__)
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(('eth0', 0))
out.send(frame.ljust(60, b'\0'))
