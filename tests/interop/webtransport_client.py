"""A WebTransport client on aioquic: valid and invalid behaviour, with a JSON report of the results.

    webtransport_client.py ADDRESS PORT PATH CERTIFICATE_SHA256 FLOW_TO_GATEWAY FLOW_FROM_GATEWAY

SIGUSR2 tells it that the node has died.
"""

import asyncio
import json
import signal
import ssl
import sys
import time
from contextlib import asynccontextmanager

from aioquic.asyncio.client import connect
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StreamReset

import roq_client
from roq_client import PACKETS, rtp, summed

PACE = 0.02


class Client(roq_client.Client):
    """HTTP/3 on the connection; packets in DATAGRAMs of one session."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.http = None
        self.statuses = {}
        self.resets = {}
        self.times = []

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.alpn = event.alpn_protocol
            self.http = H3Connection(self._quic, enable_webtransport=True)
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.closed = (event.error_code, event.reason_phrase)
        for event in self.http.handle_event(event) if self.http else []:
            if isinstance(event, HeadersReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            elif isinstance(event, DatagramReceived):
                buffer = Buffer(data=event.data)
                flow = buffer.pull_uint_var()
                self.times.append(time.monotonic())
                self.came(event.stream_id, flow, event.data[buffer.tell():])
        self.changed.set()

    def request(self, path, method=b"CONNECT"):
        stream = self._quic.get_next_available_stream_id()
        fields = {":method": method, ":scheme": b"https", ":authority": b"localhost", ":path": path}
        if method == b"CONNECT":
            fields[":protocol"] = b"webtransport"
        self.http.send_headers(stream, [(name.encode(), value) for name, value in fields.items()])
        self.transmit()
        return stream

    async def status(self, stream):
        await self.until("status", lambda: stream in self.statuses)
        return self.statuses[stream]

    def packet(self, stream, data):
        self.http.send_datagram(stream, data)
        self.transmit()

    async def hears(self, stream, flow, number):
        """True once a packet returns in this session."""
        self.packet(stream, flow + rtp(number))
        await self.until(f"packet {number}", lambda: any(p[2] == number for p in self.packets))
        return True


class Gateway:
    def __init__(self, address, port, path, certificate, flow_to, flow_from):
        self.address, self.port, self.path = address, int(port), path.encode()
        self.sha256 = certificate
        self.flow_to, self.flow_from = encode_uint_var(int(flow_to)), int(flow_from)

    @asynccontextmanager
    async def connected(self):
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=["h3"],
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

    @asynccontextmanager
    async def session(self):
        async with self.connected() as client:
            stream = client.request(self.path)
            status = await client.status(stream)
            if status != 200:
                sys.exit(f"the gateway answered {status}")
            yield client, stream


async def media(gateway, report):
    async with gateway.session() as (client, stream):
        report["alpn"] = client.alpn
        for number in range(PACKETS):
            client.packet(stream, gateway.flow_to + rtp(number))
            await client.until(f"packet {number}", lambda: len(client.packets) > number)
        report["datagrams"] = summed(gateway, client.packets)

        unknown = encode_uint_var(1234567890123456789)
        client.packet(stream, unknown + rtp(101))
        client.packet(stream + 4, gateway.flow_to + rtp(102))
        report["strange_datagrams"] = {"kept": await client.hears(stream, gateway.flow_to, 103)}
        report["strangers_heard"] = [p[2] for p in client.packets if p[2] in (101, 102)]

        second = client.request(gateway.path)
        await client.until("reset of the second session", lambda: second in client.resets)
        kept = await client.hears(stream, gateway.flow_to, 104)
        report["second_session"] = {"reset": client.resets[second], "kept": kept}


async def refusals(gateway, report):
    """Statuses of requests on one connection, and then a session on it."""
    async with gateway.connected() as client:
        # A DATAGRAM before its session.
        client.packet(0, gateway.flow_to + rtp(105))
        requests = {
            "path": client.request(b"/other"),
            "token": client.request(b"/roq?token=1234567890123456789"),
        }
        statuses = {name: await client.status(stream) for name, stream in requests.items()}
        statuses["method"] = await client.status(client.request(b"/roq", method=b"GET"))
        stream = client.request(gateway.path)
        statuses["right"] = await client.status(stream)
        report["statuses"] = statuses
        report["after_refusals"] = await client.hears(stream, gateway.flow_to, 106)
        report["early_heard"] = [p[2] for p in client.packets if p[2] == 105]


async def moves(gateway, report):
    """Packets go to the session of the last valid packet."""
    async with gateway.session() as (first, one), gateway.session() as (second, other):
        await first.hears(one, gateway.flow_to, 120)
        await second.hears(other, gateway.flow_to, 121)
        report["moved"] = [[p[2] for p in client.packets] for client in (first, second)]


async def closes(gateway, report, name, wrong, number):
    """A session that carries media, and then violates a protocol."""
    async with gateway.session() as (client, stream):
        await client.hears(stream, gateway.flow_to, number)
        wrong(client, stream)
        report[name] = await client.close_code()


def frame_on_request(data):
    def act(client, _):
        client._quic.send_stream_data(client._quic.get_next_available_stream_id(), data, False)
        client.transmit()

    return act


def frame_on_control(data):
    def act(client, _):
        client._quic.send_stream_data(client.http._local_control_stream_id, data, False)
        client.transmit()

    return act


WRONGS = {
    "datagram_without_quarter_id": lambda client, _: client.datagram(b"\xff"),
    "datagram_without_flow": lambda client, stream: client.packet(stream, b"\xff\x01"),
    "datagram_not_rtp": lambda client, stream: client.packet(stream, FLOW + b"\x16 no media"),
    "data_before_headers": frame_on_request(b"\x00\x01."),
    "oversized_headers": frame_on_request(b"\x01" + encode_uint_var(100_000)),
    "dynamic_table": frame_on_request(b"\x01\x03\x00\x00\x80"),
    "second_settings": frame_on_control(b"\x04\x00"),
    "control_stream_ends": lambda client, _: client._quic.send_stream_data(
        client.http._local_control_stream_id, b"", True
    ) or client.transmit(),
}


async def death(gateway, report):
    """Packets every 20 ms through the death of the node. Prints the count of packets before it, and their longest gap."""
    died = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, died.set)
    async with gateway.session() as (client, stream):

        def longest_gap_ms():
            gaps = [after - before for before, after in zip(client.times, client.times[1:])]
            return round(max(gaps, default=0) * 1000)

        number = 200
        while not died.is_set():
            client.packet(stream, gateway.flow_to + rtp(number))
            number += 1
            await asyncio.sleep(PACE)
            if number == 200 + PACKETS:
                sending = {"sending": len(client.packets), "longest_gap_ms": longest_gap_ms()}
                print(json.dumps(sending), flush=True)
        before = len(client.packets)
        while len(client.packets) < before + PACKETS:
            client.packet(stream, gateway.flow_to + rtp(number))
            number += 1
            await asyncio.sleep(PACE)
        report["death"] = {
            "longest_gap_ms": longest_gap_ms(),
            "ssrcs": len({p[5] for p in client.packets}),
            "sent": number - 200,
            "received": len(client.packets),
            "closed": client.closed,
        }


async def main():
    global FLOW
    gateway, report = Gateway(*sys.argv[1:]), {}
    FLOW = gateway.flow_to
    await media(gateway, report)
    await refusals(gateway, report)
    await moves(gateway, report)
    report["closed"] = {}
    for number, (name, wrong) in enumerate(WRONGS.items()):
        await closes(gateway, report["closed"], name, wrong, 110 + number)
    async with gateway.connected() as client:
        report["sessionless"] = await client.close_code()
    await death(gateway, report)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
