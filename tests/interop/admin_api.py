"""Opens sessions by the admin API, for scripts with ends of calls."""

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


def add_call(parser):
    """Adds the arguments of ends in calls."""
    parser.add_argument("--audio", dest="kinds", action="store_const", const=["audio"], default=["audio", "video"], help="no video")
    parser.add_argument("--rooms", type=int, help="one end in each of the rooms ROOM-1 to ROOM-ROOMS, in place of two ends in ROOM")
    parser.add_argument("--video-rooms", type=int, default=0, help="so many of the rooms have video with --audio, too")
    parser.add_argument("api", help="the socket of the API")
    parser.add_argument("room")


def ends(options):
    """The room of each end, and the kinds of media there."""
    if options.rooms is None:
        return [(options.room, options.kinds)] * 2
    kinds = lambda number: ["audio", "video"] if number < options.video_rooms else options.kinds
    return [(f"{options.room}-{number + 1}", kinds(number)) for number in range(options.rooms)]
