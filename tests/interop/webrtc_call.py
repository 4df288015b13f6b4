"""Two ends of a WebRTC library in a call. Arguments: the module of the library (aiortc, or webrtc for libwebrtc), the socket of the API, and
the room.

Standard output is lines of JSON, four a second: each end with its states, and the packets that it received by kind.
"""

import asyncio
import importlib
import json
import sys

from admin_api import open_session

MODULE, API, ROOM = sys.argv[1:4]
LIBRARY = importlib.import_module(MODULE)
KINDS = ["audio", "video"]


def new_peer():
    if MODULE == "aiortc":
        # Its default is a STUN server of the internet.
        peer = LIBRARY.RTCPeerConnection(LIBRARY.RTCConfiguration(iceServers=[]))
        peer.addTrack(LIBRARY.mediastreams.AudioStreamTrack())
        peer.addTrack(LIBRARY.mediastreams.VideoStreamTrack())
        peer.on("track", lambda track: asyncio.ensure_future(consume(track)))
        return peer
    peer = LIBRARY.RTCPeerConnection()
    for kind in KINDS:
        track = LIBRARY.MediaStreamTrackGenerator(LIBRARY.MediaStreamTrackGeneratorInit(kind=kind))
        peer.addTrack(track)
        asyncio.ensure_future(generate(kind, track.writable.getWriter()))
    return peer


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


async def connect(peer):
    await peer.setLocalDescription(await peer.createOffer())
    answer = open_session(API, ROOM, peer.localDescription.sdp)
    kind = getattr(LIBRARY, "RTCSessionDescriptionInit", None) or LIBRARY.RTCSessionDescription
    await peer.setRemoteDescription(kind(type="answer", sdp=answer))


def word(value):
    return getattr(value, "value", value)


async def received(peer):
    report = await peer.getStats()
    inbound = [each for each in report.values() if word(each.type) == "inbound-rtp"]
    packets = lambda each: getattr(each, "packetsReceived", None) or getattr(each, "packets_received", None) or 0
    return [sum(packets(each) for each in inbound if word(each.kind) == kind) for kind in KINDS]


async def main():
    if MODULE == "webrtc":
        LIBRARY.allow_loopback()
    peers = [new_peer(), new_peer()]
    for peer in peers:
        await connect(peer)
    while True:
        await asyncio.sleep(0.25)
        states = [[word(peer.connectionState), word(peer.iceConnectionState)] for peer in peers]
        counts = [await received(peer) for peer in peers]
        ends = [{"states": state, "received": count} for state, count in zip(states, counts)]
        print(json.dumps({"ends": ends}), flush=True)


asyncio.run(main())
