// Pages in a call, or one that publishes a stream. Arguments: the folder of `playwright-core`, `--simulcast` if the first page sends its
// pictures in two sizes, `--publish` for a stream of small pictures, or `--recorded`; the browser of each page (`chromium` or `firefox`), the
// socket of the API, and the room.
//
// Standard output is lines of JSON, four a second: each end with its states, the packets that it received by kind, the frames that it
// decoded, and its figures; with `--recorded` also the packets of RTP that SRTP of all pages accepted since the line before.

import http from "node:http";
import { launch, launchRecorded, newPage, observe, pause } from "./browser.js";

const [packages, ...words] = process.argv.slice(2);
const [api, room] = words.splice(-2);
const option = words[0].startsWith("--") ? words.shift() : "";
const others = words.length - 1;
const scenario = option === "--publish" ? "live" : "call";
/** The pictures of the first page, and their layers. */
const [pictures, layers] = {
  "": [true, []],
  "--recorded": [true, []],
  "--simulcast": [true, [{ rid: "small", scaleResolutionDownBy: 2 }, { rid: "large" }]],
  "--publish": [{ width: 320, height: 240, frameRate: 10 }, [{ maxBitrate: 100_000 }]],
}[option];

/** Packets that the first page receives before the others join. It hears itself while it is alone. */
const PACKETS = 100;

/** Sends an offer to the gateway. Returns the SDP of its answer. */
function openSession(offer, participant) {
  const body = JSON.stringify({ scenario, room, labels: { participant }, webrtc: { offer } });
  const options = { socketPath: api, path: "/v1/sessions", method: "POST", headers: { "content-type": "application/json" } };
  return new Promise((resolve, reject) => {
    const request = http.request(options, async (response) => {
      const text = (await response.toArray()).join("");
      if (response.statusCode === 201) resolve(JSON.parse(text).webrtc.answer);
      else reject(new Error(`${response.statusCode}: ${text}`));
    });
    request.on("error", reject).end(body);
  });
}

/** Runs in a page: calls `others` ends with camera and microphone, and plays one of them. `sendEncodings`: the layers of its pictures. */
async function call({ participant, others, pictures, sendEncodings }) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: pictures });
  globalThis.peer = new RTCPeerConnection();
  const player = document.createElement("video");
  player.autoplay = true;
  document.body.append(player);
  globalThis.names = new Map();
  peer.ontrack = ({ track, streams }) => {
    player.srcObject = streams[0];
    names.set(track, streams[0].id);
  };
  const connected = new Promise((done) => {
    peer.onconnectionstatechange = () => peer.connectionState === "connected" && done();
  });
  for (const track of media.getTracks()) {
    const encodings = track.kind === "video" ? sendEncodings : [];
    const direction = others > 0 ? "sendrecv" : "sendonly";
    peer.addTransceiver(track, { direction, streams: [media], sendEncodings: encodings });
  }
  for (let other = 1; other < others; other++) {
    for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "recvonly" });
  }
  await peer.setLocalDescription();
  const sdp = await openSession(peer.localDescription.sdp, participant);
  await peer.setRemoteDescription({ type: "answer", sdp });
  await connected;
}

const browsers = new Map();
let accepted;
if (option === "--recorded") {
  const recorded = await launchRecorded(packages);
  browsers.set("chromium", recorded.browser);
  accepted = recorded.accepted;
}
for (const name of words) {
  if (!browsers.has(name)) browsers.set(name, await launch(packages, name));
}
const pages = await Promise.all(words.map((name) => newPage(browsers.get(name))));
for (const page of pages) await page.exposeFunction("openSession", openSession);
const [first, ...later] = pages;
await first.evaluate(call, { participant: "page 0", others, pictures, sendEncodings: layers });
const isHeard = ({ received: [audio, video] }) => audio >= PACKETS && video >= PACKETS;
while (later.length > 0 && !isHeard(await first.evaluate(observe))) await pause(50);
for (const [index, page] of later.entries()) {
  await page.evaluate(call, { participant: `page ${index + 1}`, others, pictures: true, sendEncodings: [] });
}
for (;;) {
  await pause(250);
  const ends = await Promise.all(pages.map((page) => page.evaluate(observe, others)));
  console.log(JSON.stringify({ ends, accepted: accepted?.() }));
}
