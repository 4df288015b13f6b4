"""An end of aiortc that sends by WHIP (RFC 9725), until SIGTERM.

Standard output is lines of JSON, four a second: the version of aiortc, and the end with its states. The last line has the statuses of the answers
to its requests.
"""

import argparse
import asyncio
import http.client
import importlib.metadata
import json
import signal
from urllib.parse import urlsplit

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

PARSER = argparse.ArgumentParser(description=__doc__)
PARSER.add_argument("url")
PARSER.add_argument("token")
OPTIONS = PARSER.parse_args()
CLIENT = f"aiortc {importlib.metadata.version('aiortc')}"
STATUSES = []


def request(method, path, headers={}, body=None):
    connection = http.client.HTTPConnection(urlsplit(OPTIONS.url).netloc)
    connection.request(method, path, body, {"Authorization": f"Bearer {OPTIONS.token}", **headers})
    response = connection.getresponse()
    STATUSES.append([method, response.status])
    return response, response.read().decode()


async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    # Its default is a STUN server of the internet.
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for track in [AudioStreamTrack(), VideoStreamTrack()]:
        peer.addTransceiver(track, direction="sendonly")
    # It gathers its candidates here.
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Content-Type": "application/sdp"}
    response, answer = request("POST", urlsplit(OPTIONS.url).path, headers, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    while not ended.is_set():
        states = [peer.connectionState, peer.iceConnectionState]
        print(json.dumps({"clients": [CLIENT], "ends": [{"states": states}]}), flush=True)
        await asyncio.sleep(0.25)
    request("DELETE", response.headers["Location"])
    print(json.dumps({"clients": [CLIENT], "statuses": STATUSES}), flush=True)
    await peer.close()


asyncio.run(main())
