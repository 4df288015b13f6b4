"""Offers of a WebRTC library, and its judgement of the answers. The argument is the module of the library: aiortc, or webrtc for libwebrtc.

Standard output is the offers, standard input the answers: JSON, one a line. The last line is a report: mid and direction of each transceiver
after the answer to each offer.
"""

import asyncio
import importlib
import inspect
import json
import sys

LIBRARY = importlib.import_module(sys.argv[1])
REPORT = []


def new_peer():
    if sys.argv[1] == "aiortc":
        # Its default is a STUN server of the internet.
        return LIBRARY.RTCPeerConnection(LIBRARY.RTCConfiguration(iceServers=[]))
    return LIBRARY.RTCPeerConnection()


def description(sdp):
    kind = getattr(LIBRARY, "RTCSessionDescriptionInit", None) or LIBRARY.RTCSessionDescription
    return kind(type="answer", sdp=sdp)


def word(direction):
    return getattr(direction, "value", direction)


async def negotiate(peer):
    await peer.setLocalDescription(await peer.createOffer())
    print(json.dumps({"sdp": peer.localDescription.sdp}), flush=True)
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await peer.setRemoteDescription(description(json.loads(line)["sdp"]))
    REPORT.append([[each.mid, word(each.currentDirection)] for each in peer.getTransceivers()])


async def main():
    peer = new_peer()
    peer.addTransceiver("audio").direction = "sendrecv"
    peer.addTransceiver("video").direction = "sendonly"
    # The gateway rejects its m-line.
    peer.createDataChannel("chat")
    await negotiate(peer)
    peer.addTransceiver("video").direction = "recvonly"
    await negotiate(peer)
    print(json.dumps({"report": REPORT}), flush=True)
    closing = peer.close()
    if inspect.isawaitable(closing):
        await closing


asyncio.run(main())
