"""Two ends of an SRTP session on libsrtp (pylibsrtp).

    srtp_ends.py ADDRESS GATEWAY ADDRESS GATEWAY
    srtp_ends.py [--rollover slow|hold] SUITE ADDRESS GATEWAY KEY ITS-KEY ADDRESS GATEWAY KEY ITS-KEY

In the first form each end has a key that the other end knows and the gateway does not. In the second one SRTP ends at the
gateway: each end has a KEY and the gateway's key for it, ITS-KEY, both in Base64, and SSRC, sequence numbers and timestamps
are the gateway's. With --rollover the sequence numbers of the first end and those by which it hears the second one soon begin
again at 0. `slow`: near these roll-overs each end sends a packet every 100 ms. `hold`: just before the first roll-over both ends
stop to send until SIGUSR1, after which the next number of the first end is 0, as if the packets before it had been lost.

Each end sends a packet every 20 ms from its ADDRESS to its GATEWAY, decrypts what comes there, and checks that it is what
the other end encrypted. A line of JSON after each turn lists the packets so far per end, those that SRTP accepted since the line
before (each as SSRC and sequence number), the time until which the end has read its socket, and how many packets it is until a
roll-over, once no end skips any more.
"""

import base64
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

from pylibsrtp import Error, Policy, Session

PACE_S = 0.02
SLOW_PACE_S = 0.1
PAYLOAD_TYPE = 111
HEADER_BYTES = 12
# Packets before a roll-over to which each end skips, and the most at once: more is another stream (RFC 3550, appendix A.1).
ROLLOVER_IN = (60, 90)
SKIPPED_MAX = 1000
# Both roll-overs are near within this many packets.
NEAR = 100
# Packets before the first roll-over at which the ends hold.
HELD_IN = 3
# Packets that each end decrypts before.
HEARD_FIRST = 50
# Key and salt of AES_CM_128_HMAC_SHA1_80 (RFC 3711, 8.2).
KEY_BYTES = 30
PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class End:
    def __init__(self, number, here, gateway, suite="AES_CM_128_HMAC_SHA1_80", key=None):
        self.ssrc = 0x0EC0_0000 + number
        self.key = key or os.urandom(KEY_BYTES)
        self.profile = PROFILES[suite]
        self.encrypts = self.session(self.key, Policy.SSRC_ANY_OUTBOUND)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address(here))
        self.socket.setblocking(False)
        self.gateway = address(gateway)
        self.sent = 0
        self.counts = {"decrypted": 0, "refused": 0, "other": 0}
        self.accepted = []
        # From the numbers of the other end to those that come here.
        self.offset = None

    def session(self, key, direction):
        return Session(Policy(key=key, ssrc_type=direction, srtp_profile=self.profile))

    def hears(self, other, key=None):
        """With the gateway's `key`, or with that of the other end."""
        self.decrypts = self.session(key or other.key, Policy.SSRC_ANY_INBOUND)
        self.other = other
        self.is_rewritten = key is not None

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
            sequence, ssrc = struct.unpack_from("!2xH4xI", packet)
            self.accepted.append([ssrc, sequence])
            self.counts["decrypted" if self.is_from_other(packet) else "other"] += 1
            self.offset = (sequence - int(packet.rsplit(b" ", 1)[-1])) & 0xFFFF

    def state(self):
        accepted, self.accepted = self.accepted, []
        return {**self.counts, "accepted": accepted}

    def is_from_other(self, packet):
        if self.is_rewritten:
            number = int(packet.rsplit(b" ", 1)[-1])
            return packet[HEADER_BYTES:] == self.other.packet(number)[HEADER_BYTES:]
        (number,) = struct.unpack_from("!I", packet, 4)
        return packet == self.other.packet(number // 960)


def rollovers_in(ends):
    """How many packets it is until the numbers that the first end sends, and those that it hears, are 0 again; less than 0 afterwards."""
    heard = ends[1].sent + (ends[0].offset or 0)
    return [((0x8000 - number) & 0xFFFF) - 0x8000 for number in (ends[0].sent, heard)]


def skip(ends):
    """Returns true once both numbers are near their roll-over."""
    ahead = [(packets - wanted) & 0xFFFF for packets, wanted in zip(rollovers_in(ends), ROLLOVER_IN)]
    is_last = max(ahead) <= SKIPPED_MAX
    for end, packets in zip(ends, ahead):
        if is_last or packets > SKIPPED_MAX:
            end.sent += min(packets, SKIPPED_MAX)
    return is_last


def main():
    go_on = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: go_on.set())
    rollover = None
    if sys.argv[1] == "--rollover":
        rollover = sys.argv[2]
        del sys.argv[1:3]
    if len(sys.argv) == 5:
        here, gateway, there, its_gateway = sys.argv[1:]
        ends = [End(0, here, gateway), End(1, there, its_gateway)]
        ends[0].hears(ends[1])
        ends[1].hears(ends[0])
    else:
        suite, *words = sys.argv[1:]
        (here, gateway, *keys), (there, its_gateway, *its_keys) = words[:4], words[4:]
        (key, answered), (its_key, its_answered) = map(base64.b64decode, keys), map(base64.b64decode, its_keys)
        ends = [End(0, here, gateway, suite, key), End(1, there, its_gateway, suite, its_key)]
        ends[0].hears(ends[1], answered)
        ends[1].hears(ends[0], its_answered)
    skips = rollover is not None
    while True:
        if skips and all(end.counts["decrypted"] >= HEARD_FIRST for end in ends):
            skips = not skip(ends)
        is_held = rollover == "hold" and not skips and 0 < rollovers_in(ends)[0] <= HELD_IN
        if is_held and go_on.is_set():
            ends[0].sent += rollovers_in(ends)[0]
            is_held = False
        for end in [] if is_held else ends:
            end.send()
        is_slow = rollover == "slow" and not skips and max(map(abs, rollovers_in(ends))) <= NEAR
        time.sleep(SLOW_PACE_S if is_slow else PACE_S)
        at_ms = 1000 * time.time()
        for end in ends:
            end.receive()
        states = zip(ends, [None] * 2 if skips else rollovers_in(ends))
        print(json.dumps([{**end.state(), "at_ms": at_ms, "rollover_in": packets} for end, packets in states]), flush=True)


main()
