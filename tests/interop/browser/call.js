// Two pages in a call. Arguments: the folder of `playwright-core`, the browsers of both pages (`chromium` or `firefox`), the socket of the
// API, and the room.
//
// Standard output is lines of JSON, four a second: each end with its states, the packets that it received by kind, the frames that it
// decoded, and its figures.

import http from "node:http";
import { launch, newPage, observe, pause } from "./browser.js";

const [packages, first, second, api, room] = process.argv.slice(2);

/** Packets that the first page receives before the second one joins. It hears itself while it is alone. */
const PACKETS = 100;

/** Sends an offer to the gateway. Returns the SDP of its answer. */
function openSession(offer) {
  const body = JSON.stringify({ scenario: "call", room, webrtc: { offer } });
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

/** Runs in a page: calls with camera and microphone, and plays what comes back. */
async function call() {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  globalThis.peer = new RTCPeerConnection();
  const player = document.createElement("video");
  player.autoplay = true;
  document.body.append(player);
  peer.ontrack = ({ streams }) => (player.srcObject = streams[0]);
  const connected = new Promise((done) => {
    peer.onconnectionstatechange = () => peer.connectionState === "connected" && done();
  });
  for (const track of media.getTracks()) peer.addTrack(track, media);
  await peer.setLocalDescription();
  const sdp = await openSession(peer.localDescription.sdp);
  await peer.setRemoteDescription({ type: "answer", sdp });
  await connected;
}

const browser = await launch(packages, first);
const other = second === first ? browser : await launch(packages, second);
const pages = [await newPage(browser), await newPage(other)];
for (const page of pages) await page.exposeFunction("openSession", openSession);
await pages[0].evaluate(call);
const isHeard = ({ received: [audio, video] }) => audio >= PACKETS && video >= PACKETS;
while (!isHeard(await pages[0].evaluate(observe))) await pause(50);
await pages[1].evaluate(call);
for (;;) {
  await pause(250);
  console.log(JSON.stringify({ ends: [await pages[0].evaluate(observe), await pages[1].evaluate(observe)] }));
}
