#!/usr/bin/env python3
"""A webhook of an Evenkeel gateway for Janus: opens sessions in its AudioBridge, as participants by plain RTP.

A room of the gateway is a room of AudioBridge, and a session a participant. Runs on the host of Janus. README.md says how.
"""

import argparse
import hashlib
import hmac
import http.client
import ipaddress
import json
import queue
import secrets
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Seconds. The gateway waits 1.8 s for a session; a repeated request gets the answer of the first.
JANUS_ANSWERS_WITHIN = 1.5
# Janus answers a long poll after 30 s at the latest.
POLL_ENDS_WITHIN = 40
RECONNECT_AFTER = 0.5

REQUEST_MAX = 1 << 20  # bytes; the gateway names at most 256 sessions in a request

# Sampling rate of a room: the clock rate of Opus (RFC 7587, section 4.1).
SAMPLING_RATE = 48_000
# Payload types of the other codecs of AudioBridge (RFC 3551, section 6).
STATIC_PAYLOAD_TYPES = {"pcmu": 0, "pcma": 8}

# Error codes of AudioBridge.
NO_SUCH_ROOM, ROOM_EXISTS, NOT_JOINED = 485, 486, 487


class JanusError(Exception):
    """Janus does not answer, or refuses a request."""


class Refused(Exception):
    """A request of the gateway that is not fulfilled, with the status of the answer."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Janus:
    """A session of Janus' HTTP API. One thread polls for its events and waits for nothing else; others send requests."""

    def __init__(self, url, api_secret):
        self.url = url.rstrip("/")
        self.api_secret = api_secret
        # Without the proxies that the environment names.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.session = None
        self.waiting = {}  # queues of one event, by transaction

    def connect(self):
        """Creates a session. Returns the version of Janus."""
        version = self.fetch("/info")["version_string"]
        self.session = self.call("", janus="create")["data"]["id"]
        return version

    def attach(self):
        """A new handle of AudioBridge."""
        attached = self.call(f"/{self.session}", janus="attach", plugin="janus.plugin.audiobridge")
        return attached["data"]["id"]

    def detach(self, handle):
        """Ends a handle, whose participant leaves its room."""
        self.call(f"/{self.session}/{handle}", janus="detach")

    def ask(self, handle, unless=None, **body):
        """Sends a request to AudioBridge and returns the answer, or nothing if it is an error with the code `unless`.

        The answer comes at once or, after an `ack`, as an event of the same transaction.
        """
        transaction = secrets.token_hex(8)
        self.waiting[transaction] = events = queue.SimpleQueue()
        try:
            path = f"/{self.session}/{handle}"
            answer = self.call(path, janus="message", transaction=transaction, body=body)
            if answer["janus"] == "ack":
                answer = events.get(timeout=JANUS_ANSWERS_WITHIN)
        except queue.Empty:
            raise JanusError(f"no event answers `{body['request']}`") from None
        finally:
            del self.waiting[transaction]
        data = answer["plugindata"]["data"]
        if "error_code" not in data:
            return data
        if data["error_code"] == unless:
            return None
        raise JanusError(f"AudioBridge: {data['error']} ({data['error_code']})")

    def poll(self):
        """Waits for events and passes them on. A poll keeps the session alive, as a keepalive does."""
        query = {"maxev": 100} | ({"apisecret": self.api_secret} if self.api_secret else {})
        path = f"/{self.session}?{urllib.parse.urlencode(query)}"
        events = self.fetch(path, within=POLL_ENDS_WITHIN)
        for event in events if isinstance(events, list) else [events]:
            waiting = self.waiting.get(event.get("transaction"))
            if waiting:
                waiting.put(event)

    def call(self, path, **body):
        secret = {"apisecret": self.api_secret} if self.api_secret else {}
        body = {"transaction": secrets.token_hex(8)} | secret | body
        answer = self.fetch(path, json.dumps(body).encode())
        if answer["janus"] == "error":
            error = answer["error"]
            raise JanusError(f"`{body['janus']}`: {error['reason']} ({error['code']})")
        return answer

    def fetch(self, path, body=None, within=JANUS_ANSWERS_WITHIN):
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with self.opener.open(request, timeout=within) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise JanusError(f"HTTP status {error.code}") from error
        except urllib.error.URLError as error:
            raise JanusError(f"{error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise JanusError(f"{error}") from error


@dataclass
class Participant:
    session: str
    room: int
    handle: int
    id: int
    answer: dict
    lease_ends: float  # by time.monotonic()


class Webhook:
    """Sessions of the gateway, by nonce, as participants of AudioBridge."""

    def __init__(self, janus, admin_key):
        self.janus = janus
        self.admin_key = admin_key
        self.problem = "not connected yet"
        self.rooms = None  # the handle for requests about rooms
        self.participants = {}
        # One request at a time: a repeated `open` waits for the first, and a room is not destroyed while a session joins it.
        self.lock = threading.Lock()

    def follow_janus(self):
        """Connects to Janus, and again once it is gone."""
        while True:
            try:
                version = self.janus.connect()
                self.rooms = self.janus.attach()
                self.problem = None
                log(f"connected to Janus {version} at {self.janus.url}")
                while True:
                    self.janus.poll()
            except JanusError as error:
                if self.problem != str(error):
                    self.problem = str(error)
                    log(f"no connection to Janus at {self.janus.url}: {error}")
            # Janus ends participants of an earlier session within 60 s. The gateway opens its sessions again, because the
            # next refresh finds them unknown.
            with self.lock:
                self.participants.clear()
            time.sleep(RECONNECT_AFTER)

    def end_leases(self):
        """Ends sessions that the gateway forgot, such as those of a gateway that died."""
        while True:
            time.sleep(1)
            with self.lock:
                now = time.monotonic()
                ended = [nonce for nonce, participant in self.participants.items() if participant.lease_ends < now]
                for nonce in ended:
                    self.leave(nonce, "not refreshed")

    def handle(self, body):
        verbs = {"open": self.open, "refresh": self.refresh, "close": self.close}
        verb = verbs.get(body["verb"])
        if verb is None:
            raise Refused(400, f"`verb`: found `{body['verb']}`, expected one of {', '.join(verbs)}")
        if self.problem:
            raise Refused(503, f"Janus at {self.janus.url}: {self.problem}")
        try:
            with self.lock:
                return verb(body)
        except JanusError as error:
            raise Refused(503, f"Janus at {self.janus.url}: {error}") from error

    def open(self, body):
        nonce = body["nonce"]
        if nonce not in self.participants:
            self.participants[nonce] = self.join(body)
        participant = self.participants[nonce]
        participant.lease_ends = time.monotonic() + body["lease_s"]
        return participant.answer

    def refresh(self, body):
        lease_ends = time.monotonic() + body["lease_s"]
        asked = [session["nonce"] for session in body["sessions"]]
        known = {nonce: self.participants[nonce] for nonce in asked if nonce in self.participants}
        # AudioBridge removes a participant whose packets are refused for long, such as while the gateway was down.
        present = {room: self.present(room) for room in {participant.room for participant in known.values()}}
        for nonce, participant in known.items():
            if participant.id in present[participant.room]:
                participant.lease_ends = lease_ends
            else:
                self.leave(nonce, "removed by AudioBridge")
        return {"unknown": [nonce for nonce in asked if nonce not in self.participants]}

    def close(self, body):
        if body["nonce"] in self.participants:
            self.leave(body["nonce"], "closed")
        return {}

    def join(self, body):
        session, room = body["session"], room_id(body["room"])
        if body["srtp"]:
            raise Refused(422, "AudioBridge needs plain RTP; found SRTP that does not end at the gateway")
        codec, payload_type = codec_of(body["media"])
        host, _, port = body["gateway"]["address"].rpartition(":")
        if not is_ipv4(host):
            raise Refused(422, f"AudioBridge sends plain RTP by IPv4; found the gateway's address `{host}`")
        key = {"admin_key": self.admin_key} if self.admin_key else {}
        settings = {"sampling_rate": SAMPLING_RATE, "allow_rtp_participants": True, "is_private": True} | key
        if self.ask_about(room, "create", unless=ROOM_EXISTS, description=body["room"], **settings):
            log(f"created room {body['room']} ({room})")
        handle = self.janus.attach()
        try:
            rtp = {"ip": host, "port": int(port), "payload_type": payload_type}
            joined = self.janus.ask(handle, request="join", room=room, display=session, codec=codec, rtp=rtp)
            if "rtp" not in joined:
                raise Refused(503, "AudioBridge has no free port; widen `rtp_port_range`")
        except (JanusError, Refused):
            self.janus.detach(handle)
            self.destroy_if_empty(room)
            raise
        answer = {"address": f"{joined['rtp']['ip']}:{joined['rtp']['port']}"}
        log(f"session {session} joined room {body['room']} with {codec} at {answer['address']}")
        return Participant(session, room, handle, joined["id"], answer, 0.0)

    def leave(self, nonce, why):
        participant = self.participants.pop(nonce)
        log(f"session {participant.session} left: {why}")
        try:
            self.janus.ask(participant.handle, unless=NOT_JOINED, request="leave")
            self.janus.detach(participant.handle)
            self.destroy_if_empty(participant.room)
        except JanusError as error:
            log(f"Janus at {self.janus.url}: {error}")

    def destroy_if_empty(self, room):
        """Others than this process may have participants there: the webhook before its restart, or clients of Janus."""
        if not self.present(room) and self.ask_about(room, "destroy", unless=NO_SUCH_ROOM):
            log(f"destroyed room {room}")

    def present(self, room):
        listed = self.ask_about(room, "listparticipants", unless=NO_SUCH_ROOM) or {"participants": []}
        return {participant["id"] for participant in listed["participants"]}

    def ask_about(self, room, request, unless, **body):
        return self.janus.ask(self.rooms, unless=unless, request=request, room=room, **body)


def room_id(name):
    """The same number for the same name, so that a restarted webhook finds the room. Janus' default is numbers."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def codec_of(media):
    """The first codec of the offer that AudioBridge mixes, with its payload type."""
    if [stream["kind"] for stream in media] != ["audio"]:
        found = " and ".join(stream["kind"] for stream in media) or "no media"
        raise Refused(422, f"AudioBridge takes one audio stream; found {found}")
    payload_types = media[0]["payload_types"]
    for payload in payload_types:
        codec, payload_type = payload["codec"].lower(), payload["payload_type"]
        if codec == "opus" or STATIC_PAYLOAD_TYPES.get(codec) == payload_type:
            return codec, payload_type
    found = ", ".join(f"{payload['codec']} ({payload['payload_type']})" for payload in payload_types)
    raise Refused(422, f"AudioBridge takes opus, pcmu (0) or pcma (8); found {found or 'no payload type'}")


def is_ipv4(host):
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # the gateway sends at most 32 requests at once


class Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_POST(self):
        try:
            status, answer = 200, self.answered()
        except Refused as refused:
            status, answer = refused.status, {"error": str(refused)}
            log(f"answered {status}: {refused}")
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def answered(self):
        token, given = self.server.token, self.headers.get("Authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refused(401, "expected the bearer token of --token-file")
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= REQUEST_MAX:
                raise Refused(413, f"found a body of {length} bytes, expected at most {REQUEST_MAX}")
            return self.server.webhook.handle(json.loads(self.rfile.read(length)))
        except KeyError as missing:
            raise Refused(400, f"`{missing.args[0]}` is missing") from missing
        except (AttributeError, TypeError, ValueError) as error:
            raise Refused(400, f"expected a request of the gateway: {error}") from error

    def log_message(self, *_):
        """Requests are logged by their effects."""


def log(text):
    print(text, flush=True)


def secret(path):
    return path.read_text().strip() if path else None


def address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"found `{text}`, expected an address and port such as `127.0.0.1:8090`")
    return host, int(port)


def arguments():
    parser = argparse.ArgumentParser(description="Open sessions of an Evenkeel gateway in the AudioBridge of Janus.")
    option = parser.add_argument
    option("--listen", type=address, default="127.0.0.1:8090", metavar="ADDRESS:PORT",
           help="where requests come (default: %(default)s)")
    option("--janus", default="http://127.0.0.1:8088/janus", metavar="URL", help="HTTP API of Janus (default: %(default)s)")
    option("--token-file", type=Path, metavar="FILE", help="bearer token of requests: `token_file` of the gateway's [[node]]")
    option("--api-secret-file", type=Path, metavar="FILE", help="`api_secret` of janus.jcfg")
    option("--admin-key-file", type=Path, metavar="FILE", help="`admin_key` of janus.plugin.audiobridge.jcfg")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        files = options.token_file, options.api_secret_file, options.admin_key_file
        token, api_secret, admin_key = map(secret, files)
        server = Server(options.listen, Handler)
    except OSError as error:
        sys.exit(f"cannot start: {error}")
    server.token = token
    server.webhook = Webhook(Janus(options.janus, api_secret), admin_key)
    for task in server.webhook.follow_janus, server.webhook.end_leases:
        threading.Thread(target=task, daemon=True).start()
    log(f"listening at http://{options.listen[0]}:{server.server_port}/sessions")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
