"""Opens sessions by the admin API."""

import http.client
import json
import socket
import sys


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def open_session(path, room, sdp):
    """Sends an offer to the API at a socket. Returns the SDP of the answer, or ends the process."""
    connection = UnixConnection(path)
    offer = {"scenario": "call", "room": room, "webrtc": {"offer": sdp}}
    connection.request("POST", "/v1/sessions", json.dumps(offer), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read().decode()
    if response.status != 201:
        sys.exit(f"{response.status}: {body}")
    return json.loads(body)["webrtc"]["answer"]
