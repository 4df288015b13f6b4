"""Ends of a WebRTC library in calls.

Standard output is lines of JSON, four a second: the version of the library, each end with its states, the packets that it received by kind and
those that it lost, the codecs of its answer and, by aiortc, its candidate pair; by aiortc also the SSRCs of video, and the packets of RTP that
SRTP accepted since the line before, each as SSRC and sequence number.
"""

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import re
import time

from admin_api import add_call, ends, open_session

PARSER = argparse.ArgumentParser(description=__doc__)
PARSER.add_argument("module", choices=["aiortc", "webrtc"], help="webrtc: libwebrtc")
PARSER.add_argument("--codecs", type=lambda names: names.split(","), help="of aiortc: the codecs that it offers, in place of all")
add_call(PARSER)
OPTIONS = PARSER.parse_args()
MODULE = OPTIONS.module
# The package of libwebrtc is another one than its module.
CLIENT = f"aiortc {importlib.metadata.version('aiortc')}" if MODULE == "aiortc" else f"wrtc {importlib.metadata.version('wrtc')}"
LIBRARY = importlib.import_module(MODULE)
ACCEPTED = []
# The SSRCs of video that it received.
VIDEO = set()

if MODULE == "aiortc":
    from aiortc import codecs, rtcdtlstransport

    VP8 = next(codec.payloadType for codec in codecs.CODECS["video"] if codec.mimeType == "video/VP8")

    class RecordedSession(rtcdtlstransport.Session):
        """libsrtp, with a record of what it accepts."""

        def unprotect(self, data):
            packet = super().unprotect(data)
            ssrc = int.from_bytes(packet[8:12], "big")
            ACCEPTED.append([ssrc, int.from_bytes(packet[2:4], "big")])
            if packet[1] & 0x7F == VP8:
                VIDEO.add(ssrc)
            return packet

    rtcdtlstransport.Session = RecordedSession


def new_peer(kinds):
    if MODULE == "aiortc":
        # Its default is a STUN server of the internet.
        peer = LIBRARY.RTCPeerConnection(LIBRARY.RTCConfiguration(iceServers=[]))
        tracks = {"audio": LIBRARY.mediastreams.AudioStreamTrack, "video": LIBRARY.mediastreams.VideoStreamTrack}
        for kind in kinds:
            peer.addTrack(tracks[kind]())
        if OPTIONS.codecs:
            prefer(peer.getTransceivers(), OPTIONS.codecs)
        peer.on("track", lambda track: asyncio.ensure_future(consume(track)))
        return peer
    peer = LIBRARY.RTCPeerConnection()
    for kind in kinds:
        track = LIBRARY.MediaStreamTrackGenerator(LIBRARY.MediaStreamTrackGeneratorInit(kind=kind))
        peer.addTrack(track)
        asyncio.ensure_future(generate(kind, track.writable.getWriter()))
    return peer


def prefer(transceivers, names):
    for transceiver in transceivers:
        codecs = LIBRARY.RTCRtpSender.getCapabilities(transceiver.kind).codecs
        wanted = [f"{transceiver.kind}/{name}" for name in [*names, "rtx"]]
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType in wanted])


async def consume(track):
    while True:
        await track.recv()


async def generate(kind, writer):
    number = 0
    while True:
        await asyncio.sleep(0.01 if kind == "audio" else 0.04)
        await writer.write(audio(number) if kind == "audio" else picture(number))
        number += 1


def audio(number):
    init = LIBRARY.AudioDataInit(
        format="s16",
        sample_rate=48_000,
        number_of_frames=480,
        number_of_channels=1,
        timestamp=number * 10_000,
        data=bytes(2 * 480),
    )
    return LIBRARY.AudioData(init)


def picture(number):
    data = bytes([number % 256]) * (320 * 240 * 3 // 2)
    init = LIBRARY.VideoFrameBufferInit(format="I420", coded_width=320, coded_height=240, timestamp=number * 40_000)
    return LIBRARY.VideoFrame(data, init)


async def connect(peer, room):
    await peer.setLocalDescription(await peer.createOffer())
    answer = open_session(OPTIONS.api, room, peer.localDescription.sdp)
    kind = getattr(LIBRARY, "RTCSessionDescriptionInit", None) or LIBRARY.RTCSessionDescription
    await peer.setRemoteDescription(kind(type="answer", sdp=answer))


def word(value):
    return getattr(value, "value", value)


def path(peer):
    """The addresses of the candidate pair in use, and the gateway's user fragment."""
    connection = peer.getReceivers()[0].transport.transport._connection
    pairs = [[*pair.local_addr, *pair.remote_addr] for pair in connection._nominated.values()]
    return [pairs, connection.remote_username]


async def report(peer, kinds):
    stats = await peer.getStats()
    inbound = [each for each in stats.values() if word(each.type) == "inbound-rtp"]
    lost = lambda each: getattr(each, "packetsLost", None) or getattr(each, "packets_lost", None) or 0
    packets = lambda each: getattr(each, "packetsReceived", None) or getattr(each, "packets_received", None) or 0
    end = {
        "states": [word(peer.connectionState), word(peer.iceConnectionState)],
        "received": [sum(packets(each) for each in inbound if word(each.kind) == kind) for kind in kinds],
        "lost": sum(map(lost, inbound)),
        "codecs": sorted(set(re.findall(r"a=rtpmap:\d+ ([^/]+)", peer.remoteDescription.sdp))),
        "audio": [each.ssrc for each in inbound if word(each.kind) == "audio"],
        "video": sorted(VIDEO),
        "at_ms": 1000 * time.time(),
    }
    return {**end, "path": path(peer)} if MODULE == "aiortc" else end


async def main():
    if MODULE == "webrtc":
        LIBRARY.allow_loopback()
    peers = []
    for room, kinds in ends(OPTIONS):
        peers.append((new_peer(kinds), kinds))
        await connect(peers[-1][0], room)
    while True:
        await asyncio.sleep(0.25)
        reports = [await report(peer, kinds) for peer, kinds in peers]
        print(json.dumps({"clients": [CLIENT], "ends": reports, "accepted": ACCEPTED}), flush=True)
        ACCEPTED.clear()


asyncio.run(main())
