"""An RTP-over-QUIC client on aioquic: valid and invalid behaviour, with a JSON report of the results.

    roq_client.py ADDRESS PORT CERTIFICATE_SHA256 FLOW_TO_GATEWAY FLOW_FROM_GATEWAY
"""

import asyncio
import json
import ssl
import struct
import sys
from contextlib import asynccontextmanager

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
)
from cryptography.hazmat.primitives import hashes

TIMEOUT = 30
PACKETS = 50
SSRC = 0x0EC0FFEE


def rtp(number, size=40):
    payload = f"packet {number} ".encode().ljust(size, b".")
    return struct.pack("!BBHII", 0x80, 111, number, number * 960, SSRC) + payload


def framed(packet):
    return encode_uint_var(len(packet)) + packet


class Client(QuicConnectionProtocol):
    """Keeps received packets and wakes waiting tasks."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.alpn = None
        self.packets = []
        self.stopped = {}
        self.closed = None
        self.streams = {}
        self.changed = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.alpn = event.alpn_protocol
        elif isinstance(event, DatagramFrameReceived):
            buffer = Buffer(data=event.data)
            flow = buffer.pull_uint_var()
            self.came("datagram", flow, event.data[buffer.tell():])
        elif isinstance(event, StreamDataReceived):
            held = self.streams.setdefault(event.stream_id, bytearray())
            held += event.data
            if event.end_stream:
                self.unpack(bytes(self.streams.pop(event.stream_id)))
        elif isinstance(event, StopSendingReceived):
            self.stopped[event.stream_id] = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.closed = (event.error_code, event.reason_phrase)
        self.changed.set()

    def unpack(self, data):
        buffer = Buffer(data=data)
        flow = buffer.pull_uint_var()
        while not buffer.eof():
            self.came("stream", flow, buffer.pull_bytes(buffer.pull_uint_var()))

    def came(self, carrier, flow, packet):
        if 192 <= packet[1] <= 223:
            return
        sequence, timestamp, ssrc = struct.unpack("!HII", packet[2:12])
        number = int(packet[12:].split()[1])
        size = len(packet) - 12
        self.packets.append((carrier, flow, number, sequence, timestamp, ssrc, size))

    async def until(self, what, holds):
        async def wait():
            while not holds():
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(wait(), TIMEOUT)
        except asyncio.TimeoutError:
            sys.exit(f"no {what} in time; {len(self.packets)} packets, closed: {self.closed}")

    def datagram(self, data):
        self._quic.send_datagram_frame(data)
        self.transmit()

    def stream(self, data, end=False):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self.more(stream, data, end)
        return stream

    def more(self, stream, data, end=False):
        self._quic.send_stream_data(stream, data, end)
        self.transmit()

    def certificate(self):
        return self._quic.tls._peer_certificate.fingerprint(hashes.SHA256()).hex()

    async def hears_itself(self, flow, number):
        """True once a packet returns on this connection."""
        self.datagram(flow + rtp(number))
        await self.until(f"packet {number}", lambda: any(p[2] == number for p in self.packets))
        return True

    async def stop_code(self, stream):
        await self.until("STOP_SENDING", lambda: stream in self.stopped)
        return self.stopped[stream]

    async def close_code(self):
        await self.until("end of the connection", lambda: self.closed is not None)
        return self.closed[0]


class Gateway:
    def __init__(self, address, port, certificate, flow_to, flow_from):
        self.address, self.port, self.sha256 = address, int(port), certificate
        self.flow_to, self.flow_from = encode_uint_var(int(flow_to)), int(flow_from)

    @asynccontextmanager
    async def connected(self, alpn="roq-14"):
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[alpn],
            max_datagram_frame_size=65536,
            # Identified by its fingerprint, not by an issuer.
            verify_mode=ssl.CERT_NONE,
        )
        made = connect(
            self.address, self.port, configuration=configuration, create_protocol=Client
        )
        async with made as client:
            if client.certificate() != self.sha256:
                sys.exit(f"the certificate is {client.certificate()}, not {self.sha256}")
            yield client


def summed(gateway, packets):
    return {
        "carriers": sorted({p[0] for p in packets}),
        "numbers": [p[2] for p in packets],
        "sequences": [p[3] for p in packets],
        "timestamps": [p[4] for p in packets],
        "ssrcs": sorted({p[5] for p in packets}),
        "sizes": sorted({p[6] for p in packets}),
        "flow": all(p[1] == gateway.flow_from for p in packets),
    }


async def media(gateway, report):
    async with gateway.connected() as client:
        report["alpn"] = client.alpn
        for number in range(PACKETS):
            client.datagram(gateway.flow_to + rtp(number))
            await client.until(f"packet {number}", lambda: len(client.packets) > number)
        report["datagrams"] = summed(gateway, client.packets)

        # One stream with many packets, written in pieces of 37 bytes.
        del client.packets[:]
        whole = gateway.flow_to + b"".join(framed(rtp(n)) for n in range(PACKETS, 2 * PACKETS))
        stream = client.stream(b"")
        for at in range(0, len(whole), 37):
            client.more(stream, whole[at:at + 37])
        client.more(stream, b"", True)
        await client.until("packets of the stream", lambda: len(client.packets) >= PACKETS)
        report["stream"] = summed(gateway, client.packets)

        # A packet above the size of a DATAGRAM returns in a stream.
        del client.packets[:]
        client.stream(gateway.flow_to + framed(rtp(100, size=1600)), True)
        await client.until("the large packet", lambda: client.packets)
        report["large"] = summed(gateway, client.packets)

        unknown = encode_uint_var(1234567890123456789)
        client.datagram(unknown + rtp(101))
        report["unknown_flow_datagram"] = {"kept": await client.hears_itself(gateway.flow_to, 102)}

        stream = client.stream(unknown + framed(rtp(103)))
        code = await client.stop_code(stream)
        kept = await client.hears_itself(gateway.flow_to, 104)
        report["unknown_flow_stream"] = {"stop": code, "kept": kept}

        stream = client.stream(gateway.flow_to + framed(b"\x16 not media"))
        code = await client.stop_code(stream)
        kept = await client.hears_itself(gateway.flow_to, 105)
        report["not_rtp_in_stream"] = {"stop": code, "kept": kept}

        stream = client.stream(gateway.flow_to + encode_uint_var(100_000))
        code = await client.stop_code(stream)
        kept = await client.hears_itself(gateway.flow_to, 106)
        report["too_long_in_stream"] = {"stop": code, "kept": kept}
        report["strangers_heard"] = [p[2] for p in client.packets if p[2] in (101, 103)]


async def closes(gateway, report, name, wrong, number):
    """A connection that carries media, then violates the draft."""
    async with gateway.connected() as client:
        await client.hears_itself(gateway.flow_to, number)
        wrong(client)
        report[name] = await client.close_code()


async def moves(gateway, report):
    """Packets go to the connection of the last valid packet."""
    async with gateway.connected() as first, gateway.connected() as second:
        await first.hears_itself(gateway.flow_to, 120)
        await second.hears_itself(gateway.flow_to, 121)
        report["moved"] = [[p[2] for p in client.packets] for client in (first, second)]


async def protocol_errors(gateway, report):
    """A connection without a flow, and one with another ALPN."""
    async with gateway.connected() as client:
        report["flowless"] = await client.close_code()
    try:
        async with gateway.connected(alpn="h3-29"):
            report["wrong_alpn"] = "taken"
    except ConnectionError:
        report["wrong_alpn"] = "refused"


async def main():
    gateway, report = Gateway(*sys.argv[1:]), {}
    await media(gateway, report)
    bidirectional = lambda client: client._quic.send_stream_data(  # noqa: E731
        client._quic.get_next_available_stream_id(), gateway.flow_to + framed(rtp(1))
    ) or client.transmit()
    wrongs = {
        "bidirectional": bidirectional,
        "datagram_without_flow": lambda client: client.datagram(b"\xff\x01"),
        "datagram_without_packet": lambda client: client.datagram(gateway.flow_to),
        "datagram_not_rtp": lambda client: client.datagram(gateway.flow_to + b"\x16 not media"),
        "stream_ends_in_packet": lambda client: client.stream(
            gateway.flow_to + encode_uint_var(500) + rtp(1), True
        ),
    }
    report["closed"] = {}
    for number, (name, wrong) in enumerate(wrongs.items()):
        await closes(gateway, report["closed"], name, wrong, 110 + number)
    await moves(gateway, report)
    await protocol_errors(gateway, report)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
