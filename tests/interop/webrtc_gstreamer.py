"""webrtcbin elements of GStreamer, with a certificate of a file or with the one that GStreamer makes.

Standard output is lines of JSON, four a second: the version of GStreamer, each end with its states, the packets that it received by kind, their
SSRCs and those that it lost, and the packets of RTP that SRTP accepted since the line before, each as SSRC and sequence number. The last line of
`publish` has the statuses of the answers to its requests.
"""

import argparse
import hashlib
import http.client
import json
import pathlib
import re
import signal
import ssl
import time
from collections import deque
from urllib.parse import urlsplit

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

from admin_api import add_call, ends, open_session

PARSER = argparse.ArgumentParser(description=__doc__)
PARSER.add_argument("certificate", help="a PEM file with certificate and key, or - for the certificate that GStreamer makes")
PARSER.add_argument("addresses", type=lambda text: text.split(","), help="the local address, or one for each end in turn, with commas")
MODES = PARSER.add_subparsers(dest="mode", required=True)
add_call(MODES.add_parser("call", help="ends of calls"))
PUBLISH = MODES.add_parser("publish", help="an end that sends by WHIP, until SIGTERM")
PUBLISH.add_argument("url")
PUBLISH.add_argument("token")
PUBLISH.set_defaults(kinds=["audio", "video"])
OPTIONS = PARSER.parse_args()
PEM = None if OPTIONS.certificate == "-" else pathlib.Path(OPTIONS.certificate).read_text()
OPUS, VP8 = 97, 98
ACCEPTED = deque()
# After the first key frame the encoder sends one only on request.
SOURCES = {
    "audio": """
    audiotestsrc is-live=true wave=pink-noise samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1
    ! opusenc ! rtpopuspay pt=97 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer.""",
    "video": """
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1
    ! vp8enc deadline=1 cpu-used=8 target-bitrate=300000 keyframe-max-dist=100000 ! rtpvp8pay pt=98
    ! application/x-rtp,media=video,encoding-name=VP8,payload=98 ! peer.""",
}


class End:
    """One end of a call."""

    direction = GstWebRTC.WebRTCRTPTransceiverDirection.SENDRECV

    def __init__(self, address, room, kinds):
        self.room, self.kinds = room, kinds
        self.received = dict.fromkeys(kinds, 0)
        # By SSRC: the first sequence number and the highest one, extended, and the number of packets.
        self.sources = {}
        self.audio, self.video = set(), set()
        sources = "".join(SOURCES[kind] for kind in kinds)
        self.pipeline = Gst.parse_launch(f"webrtcbin name=peer bundle-policy=max-bundle {sources}")
        self.peer = self.pipeline.get_by_name("peer")
        for index in range(len(kinds)):
            self.peer.emit("get-transceiver", index).set_property("direction", self.direction)
        self.peer.connect("deep-element-added", self.on_element)
        self.peer.connect("pad-added", self.on_pad)
        self.peer.connect("on-negotiation-needed", self.negotiate)
        self.peer.connect("on-ice-candidate", self.on_candidate)
        # The element loses its agent without this reference. libnice skips loopback.
        self.agent = self.peer.get_property("ice-agent")
        self.agent.emit("add-local-ip-address", address)
        self.pipeline.set_state(Gst.State.PLAYING)

    def join(self, offer):
        """Returns the SDP of the answer to an offer."""
        return open_session(OPTIONS.api, self.room, offer)

    def on_candidate(self, _peer, index, candidate):
        pass

    def negotiate(self, peer):
        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer))

    def on_offer(self, promise):
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        self.peer.emit("set-local-description", offer, None)
        # The thread that runs this gathers candidates next.
        answer = self.join(with_fingerprint(offer.sdp.as_text()))
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.peer.emit("set-remote-description", answer, None)

    def on_pad(self, _peer, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        pad.add_probe(Gst.PadProbeType.BUFFER, self.count, kind)
        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("async", False)
        self.pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    def count(self, _pad, _info, kind):
        self.received[kind] += 1
        return Gst.PadProbeReturn.OK

    def on_element(self, _bin, _parent, element):
        kind = element.__gtype__.name
        if kind == "GstDtlsSrtpDec" and PEM is not None:
            # GStreamer made a certificate with a key for RSA.
            element.set_property("pem", PEM)
        elif kind == "GstSrtpDec":
            element.get_static_pad("rtp_src").add_probe(Gst.PadProbeType.BUFFER, self.accept)

    def accept(self, _pad, info):
        header = info.get_buffer().extract_dup(0, 12)
        ssrc, sequence = int.from_bytes(header[8:], "big"), int.from_bytes(header[2:4], "big")
        # By threads of GStreamer.
        ACCEPTED.append([ssrc, sequence])
        source = self.sources.setdefault(ssrc, [sequence, sequence, 0])
        source[1] += max((sequence - source[1] + 0x8000) % 0x10000 - 0x8000, 0)
        source[2] += 1
        if header[1] & 0x7F == OPUS:
            self.audio.add(ssrc)
        elif header[1] & 0x7F == VP8:
            self.video.add(ssrc)
        return Gst.PadProbeReturn.OK

    def state(self):
        names = ["connection-state", "ice-connection-state"]
        return {
            "states": [self.peer.get_property(name).value_nick for name in names],
            "received": [self.received[kind] for kind in self.kinds],
            "lost": sum(highest - first + 1 - packets for first, highest, packets in list(self.sources.values())),
            "audio": list(self.audio),
            "video": list(self.video),
            "at_ms": 1000 * time.time(),
        }


def with_fingerprint(offer):
    """An offer with the fingerprint of the certificate. That of GStreamer 1.22 is the digest of certificate and key."""
    if PEM is None:
        return offer
    certificate = ssl.PEM_cert_to_DER_cert(PEM[: PEM.index("-----BEGIN PRIVATE KEY")])
    digest = hashlib.sha256(certificate).digest().hex(":").upper()
    return re.sub("(?<=a=fingerprint:sha-256 )[0-9A-F:]+", digest, offer)


class Publisher(End):
    """An end that sends by WHIP (RFC 9725) with trickle ICE (RFC 8840)."""

    direction = GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY

    def __init__(self, address):
        self.statuses = []
        super().__init__(address, None, OPTIONS.kinds)

    def request(self, method, url, headers={}, body=None):
        connection = http.client.HTTPConnection(urlsplit(OPTIONS.url).netloc)
        connection.request(method, url, body, {"Authorization": f"Bearer {OPTIONS.token}", **headers})
        response = connection.getresponse()
        self.statuses.append([method, response.status])
        return response, response.read().decode()

    def join(self, offer):
        response, answer = self.request("POST", OPTIONS.url, {"Content-Type": "application/sdp"}, offer)
        self.location, self.etag = response.headers["Location"], response.headers["ETag"]
        self.sections = offer.split("m=")
        return answer

    def on_candidate(self, _peer, index, candidate):
        credentials = re.findall("a=ice-(?:ufrag|pwd):.*", self.sections[1])
        mid = re.search("a=mid:.*", self.sections[index + 1])[0]
        lines = [*credentials, "m=audio 9 UDP/TLS/RTP/SAVPF 0", mid, f"a={candidate}"]
        fragment = "".join(f"{line.strip()}\r\n" for line in lines)
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": self.etag}
        self.request("PATCH", self.location, headers, fragment)

    def end(self):
        self.request("DELETE", self.location)
        print(json.dumps({"statuses": self.statuses}), flush=True)
        LOOP.quit()


def show(peers):
    accepted = [ACCEPTED.popleft() for _ in range(len(ACCEPTED))]
    print(json.dumps({"clients": [Gst.version_string()], "ends": [peer.state() for peer in peers], "accepted": accepted}), flush=True)
    return True


Gst.init(None)
LOOP = GLib.MainLoop()
if OPTIONS.mode == "call":
    peers = [End(OPTIONS.addresses[index % len(OPTIONS.addresses)], room, kinds) for index, (room, kinds) in enumerate(ends(OPTIONS))]
else:
    peers = [Publisher(OPTIONS.addresses[0])]
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, peers[0].end)
GLib.timeout_add(250, show, peers)
LOOP.run()
