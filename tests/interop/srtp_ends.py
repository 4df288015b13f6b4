"""Two ends of an SRTP session on libsrtp (pylibsrtp), each with keys that the other end knows and the gateway does not.

    srtp_ends.py ADDRESS GATEWAY ADDRESS GATEWAY

Each end sends a packet every 20 ms from its ADDRESS to its GATEWAY, decrypts what comes there, and checks that it is what
the other end encrypted. A line of JSON every 20 ms lists the packets so far per end.
"""

import json
import os
import socket
import struct
import sys
import time

from pylibsrtp import Error, Policy, Session

PACE_S = 0.02
PAYLOAD_TYPE = 111
# Key and salt of AES_CM_128_HMAC_SHA1_80 (RFC 3711, 8.2).
KEY_BYTES = 30


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class End:
    def __init__(self, number, here, gateway):
        self.ssrc = 0x0EC0_0000 + number
        self.key = os.urandom(KEY_BYTES)
        self.encrypts = Session(Policy(key=self.key, ssrc_type=Policy.SSRC_ANY_OUTBOUND))
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address(here))
        self.socket.setblocking(False)
        self.gateway = address(gateway)
        self.sent = 0
        self.counts = {"decrypted": 0, "refused": 0, "other": 0}

    def hears(self, other):
        self.decrypts = Session(Policy(key=other.key, ssrc_type=Policy.SSRC_ANY_INBOUND))
        self.other = other

    def packet(self, number):
        header = struct.pack("!BBHII", 0x80, PAYLOAD_TYPE, number & 0xFFFF, number * 960, self.ssrc)
        return header + b"from %x: %d" % (self.ssrc, number)

    def send(self):
        self.socket.sendto(self.encrypts.protect(self.packet(self.sent)), self.gateway)
        self.sent += 1

    def receive(self):
        while True:
            try:
                data = self.socket.recv(2048)
            except BlockingIOError:
                return
            try:
                packet = self.decrypts.unprotect(data)
            except Error:
                self.counts["refused"] += 1
                continue
            (number,) = struct.unpack_from("!I", packet, 4)
            is_right = packet == self.other.packet(number // 960)
            self.counts["decrypted" if is_right else "other"] += 1


def main():
    here, gateway, there, its_gateway = sys.argv[1:]
    ends = [End(0, here, gateway), End(1, there, its_gateway)]
    ends[0].hears(ends[1])
    ends[1].hears(ends[0])
    while True:
        for end in ends:
            end.send()
        time.sleep(PACE_S)
        for end in ends:
            end.receive()
        print(json.dumps([end.counts for end in ends]), flush=True)


main()
