"""webrtcbin elements of GStreamer, with a certificate of their own. Arguments: a PEM file with certificate and key, and

- `call`, the socket of the API, and a room: two ends of a call;
- `publish`, a URL of WHIP, and a token: an end that sends, until SIGTERM.

Standard output is lines of JSON, four a second: each end with its states, and the packets that it received by kind. The last line of
`publish` has the statuses of the answers to its requests.
"""

import hashlib
import http.client
import json
import re
import signal
import ssl
import sys
from urllib.parse import urlsplit

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

from admin_api import open_session

PEM_FILE, MODE, TARGET, KEY = sys.argv[1:5]
with open(PEM_FILE) as file:
    PEM = file.read()
KINDS = ["audio", "video"]
# After the first key frame the encoder sends one only on request.
SOURCES = """
    audiotestsrc is-live=true wave=pink-noise samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1
    ! opusenc ! rtpopuspay pt=97 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer.
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1
    ! vp8enc deadline=1 cpu-used=8 target-bitrate=300000 keyframe-max-dist=100000 ! rtpvp8pay pt=98
    ! application/x-rtp,media=video,encoding-name=VP8,payload=98 ! peer."""


class End:
    """One end of a call."""

    direction = GstWebRTC.WebRTCRTPTransceiverDirection.SENDRECV

    def __init__(self):
        self.received = dict.fromkeys(KINDS, 0)
        self.pipeline = Gst.parse_launch(f"webrtcbin name=peer bundle-policy=max-bundle {SOURCES}")
        self.peer = self.pipeline.get_by_name("peer")
        for index in range(len(KINDS)):
            self.peer.emit("get-transceiver", index).set_property("direction", self.direction)
        self.peer.connect("deep-element-added", certify)
        self.peer.connect("pad-added", self.on_pad)
        self.peer.connect("on-negotiation-needed", self.negotiate)
        self.peer.connect("on-ice-candidate", self.on_candidate)
        # The element loses its agent without this reference. libnice skips loopback.
        self.agent = self.peer.get_property("ice-agent")
        self.agent.emit("add-local-ip-address", "127.0.0.1")
        self.pipeline.set_state(Gst.State.PLAYING)

    def join(self, offer):
        """Returns the SDP of the answer to an offer."""
        return open_session(TARGET, KEY, offer)

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

    def state(self):
        names = ["connection-state", "ice-connection-state"]
        states = [self.peer.get_property(name).value_nick for name in names]
        return {"states": states, "received": [self.received[kind] for kind in KINDS]}


def certify(_bin, _parent, element):
    """Replaces the certificate that GStreamer made, whose key is for RSA."""
    if element.__gtype__.name == "GstDtlsSrtpDec":
        element.set_property("pem", PEM)


def with_fingerprint(offer):
    """An offer with the fingerprint of the certificate. That of GStreamer 1.22 is the digest of certificate and key."""
    certificate = ssl.PEM_cert_to_DER_cert(PEM[: PEM.index("-----BEGIN PRIVATE KEY")])
    digest = hashlib.sha256(certificate).digest().hex(":").upper()
    return re.sub("(?<=a=fingerprint:sha-256 )[0-9A-F:]+", digest, offer)


class Publisher(End):
    """An end that sends by WHIP (RFC 9725) with trickle ICE (RFC 8840)."""

    direction = GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY

    def __init__(self):
        self.statuses = []
        super().__init__()

    def request(self, method, url, headers={}, body=None):
        connection = http.client.HTTPConnection(urlsplit(TARGET).netloc)
        connection.request(method, url, body, {"Authorization": f"Bearer {KEY}", **headers})
        response = connection.getresponse()
        self.statuses.append([method, response.status])
        return response, response.read().decode()

    def join(self, offer):
        response, answer = self.request("POST", TARGET, {"Content-Type": "application/sdp"}, offer)
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


def show(ends):
    print(json.dumps({"ends": [end.state() for end in ends]}), flush=True)
    return True


Gst.init(None)
LOOP = GLib.MainLoop()
if MODE == "call":
    ends = [End(), End()]
else:
    ends = [Publisher()]
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, ends[0].end)
GLib.timeout_add(250, show, ends)
LOOP.run()
