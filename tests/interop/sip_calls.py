"""Two phones of baresip that call by SIP with SDES keys (RFC 4568) and G.711, until SIGTERM. This program is their SIP server (RFC 3261), and
opens a session for each by the API.

Standard output is two lines of JSON. The first is printed once both calls are answered: the version of baresip. The last one is printed after both
calls: by phone the packets that it received and lost by its reports, and how many its SRTP refused.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import wave

from admin_api import UnixConnection

PARSER = argparse.ArgumentParser(description=__doc__)
PARSER.add_argument("api", help="the socket of the API")
PARSER.add_argument("room")
OPTIONS = PARSER.parse_args()
MODULES = "/usr/lib/baresip/modules"
RATE = 8_000
# Longer than a test.
SECONDS = 300
# The longest wait for a message of a phone, and for its end.
WAIT_S = 20


def tone(path):
    """Writes what a phone says."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        second = [struct.pack("<h", int(8_000 * math.sin(2 * math.pi * 440 * number / RATE))) for number in range(RATE)]
        file.writeframes(b"".join(second) * SECONDS)


def free_port():
    """A port that was free a moment ago, for a program that cannot report the one that it chooses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Message:
    """A request or response."""

    def __init__(self, data):
        head, _, self.body = data.decode().partition("\r\n\r\n")
        self.first, *self.lines = head.split("\r\n")

    def all(self, name):
        return [line for line in self.lines if line.lower().startswith(f"{name.lower()}:")]

    def value(self, name):
        return self.all(name)[0].partition(":")[2].strip()


class Phone:
    """A running baresip, and its call."""

    def __init__(self, number, folder, server):
        self.server = server
        self.user = f"phone{number}"
        self.tag = f"server{number}"
        home = os.path.join(folder, f"phone-{number}")
        os.mkdir(home)
        sound = os.path.join(home, "tone.wav")
        tone(sound)
        settings = {
            "sip_listen": f"127.0.0.1:{free_port()}",
            "net_interface": "127.0.0.1",
            "rtcp_mux": "yes",
            "audio_source": f"aufile,{sound}",
            "audio_player": "aubridge,none",
            "module_path": MODULES,
        }
        modules = ["g711", "aufile", "aubridge", "srtp"]
        applications = ["account", "menu", "rtcpsummary"]
        with open(os.path.join(home, "config"), "w") as file:
            file.writelines(f"{key} {value}\n" for key, value in settings.items())
            file.writelines(f"module {name}.so\n" for name in modules)
            file.writelines(f"module_app {name}.so\n" for name in applications)
        with open(os.path.join(home, "accounts"), "w") as file:
            file.write(f"<sip:{self.user}@127.0.0.1>;regint=0;mediaenc=srtp-mand;audio_codecs=pcmu;ptime=20\n")
        host, port = server.getsockname()
        dial = f"/dial sip:{OPTIONS.room}@{host}:{port}"
        self.log = open(os.path.join(home, "log"), "w+")
        command = ["baresip", "-4", "-f", home, "-e", dial]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)

    def call(self):
        """Answers its call."""
        is_ours = lambda message: message.first.startswith("INVITE ") and f"sip:{self.user}@" in message.value("From")
        self.invite, self.address = self.receive(is_ours)
        self.accept(open_session(self.invite.body))

    def receive(self, is_wanted):
        """The next message that is wanted, and its sender."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            try:
                data, sender = self.server.recvfrom(65_535)
            except TimeoutError:
                continue
            message = Message(data)
            if is_wanted(message):
                return message, sender
        sys.exit(f"no message of baresip; its log: {self.text()}")

    def accept(self, sdp):
        host, port = self.server.getsockname()
        lines = [
            "SIP/2.0 200 OK",
            *self.invite.all("Via"),
            *self.invite.all("From"),
            f"To: {self.invite.value('To')};tag={self.tag}",
            *self.invite.all("Call-ID"),
            *self.invite.all("CSeq"),
            f"Contact: <sip:{OPTIONS.room}@{host}:{port}>",
            "Content-Type: application/sdp",
            f"Content-Length: {len(sdp)}",
        ]
        self.send(lines, sdp)

    def send(self, lines, body=""):
        self.server.sendto("\r\n".join([*lines, "", body]).encode(), self.address)

    def hang_up(self):
        """Ends the call and then the program."""
        host, port = self.server.getsockname()
        target = re.search("<(.*?)>", self.invite.value("Contact"))[1]
        lines = [
            f"BYE {target} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{self.tag}",
            "Max-Forwards: 70",
            f"From: {self.invite.value('To')};tag={self.tag}",
            f"To: {self.invite.value('From')}",
            *self.invite.all("Call-ID"),
            "CSeq: 1 BYE",
            "Content-Length: 0",
        ]
        self.send(lines)
        self.receive(lambda message: message.first.startswith("SIP/2.0 200") and message.value("CSeq") == "1 BYE")
        self.process.terminate()
        self.process.wait(WAIT_S)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def report(self):
        """By its line `EX=BareSip;…`, which has the packets that it received (PR) and those that it and its peer lost (PL)."""
        text = self.text()
        found = re.search(r"EX=BareSip;.*PR=(\d+);.*PL=(-?\d+),", text)
        if not found:
            sys.exit(f"no report of baresip; its log: {text}")
        return {"received": int(found[1]), "lost": int(found[2]), "refused": text.count("failed to decrypt")}


def open_session(sdp):
    """Opens a session for an offer in SDP. Returns the answer in SDP."""
    port = re.search(r"m=audio (\d+) RTP/SAVP ", sdp)[1]
    body = {
        "scenario": "call",
        "room": OPTIONS.room,
        # A phone of this host sends from this address to a gateway there.
        "ingress": {"udp": {"identity": "declared", "address": f"127.0.0.1:{port}"}},
        "media": [{"kind": "audio", "payload_types": [{"payload_type": 0, "codec": "pcmu", "clock_rate": RATE}]}],
        "srtp": {"crypto": re.findall("a=crypto:([^\r\n]*)", sdp)},
    }
    connection = UnixConnection(OPTIONS.api)
    connection.request("POST", "/v1/sessions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 201:
        sys.exit(f"{response.status}: {text}; the offer: {sdp}")
    answer = json.loads(text)
    host, port = answer["udp"]["addresses"][0].rsplit(":", 1)
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {host}",
        "s=-",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=audio {port} RTP/SAVP 0",
        f"a=rtpmap:0 PCMU/{RATE}",
        f"a=crypto:{answer['srtp']['crypto'][0]}",
        "a=rtcp-mux",
    ]
    return "".join(f"{line}\r\n" for line in lines)


def version():
    shown = subprocess.run(["baresip", "-h"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return re.search(r"baresip v?(\d\S*)", shown.stdout)[1]


def main():
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(0.1)
    folder = tempfile.mkdtemp()
    phones = []
    try:
        for number in range(2):
            phones.append(Phone(number, folder, server))
            phones[-1].call()
        print(json.dumps({"clients": [f"baresip {version()}"]}), flush=True)
        while not ended:
            time.sleep(0.05)
        for phone in phones:
            phone.hang_up()
        print(json.dumps({"ends": [phone.report() for phone in phones]}), flush=True)
    finally:
        for phone in phones:
            phone.process.kill()
        shutil.rmtree(folder)


main()
