// Two pages of Chromium in a call. Arguments: the folder of `playwright-core`, the socket of the API, and the room.
//
// Standard output is lines of JSON, four a second: each end with its states, the packets that it received by kind, and its figures.

import http from "node:http";
import { launch, pause } from "./browser.js";

const [packages, api, room] = process.argv.slice(2);

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

/** Runs in a page: the state of the call. */
async function observe() {
  const report = [...(await peer.getStats()).values()];
  const find = (type, kind) => report.filter((each) => each.type === type && each.kind === kind);
  const sum = (rows, field) => rows.reduce((total, row) => total + (row[field] ?? 0), 0);
  const [audio, video] = ["audio", "video"].map((kind) => find("inbound-rtp", kind));
  const [transport] = find("transport");
  const pair = report.find((each) => each.id === transport?.selectedCandidatePairId);
  return {
    states: [peer.connectionState, peer.iceConnectionState, transport?.dtlsState],
    path: [transport?.selectedCandidatePairChanges, transport?.localCertificateId, transport?.remoteCertificateId],
    received: [audio, video].map((rows) => sum(rows, "packetsReceived")),
    kbps: Math.round((pair?.availableOutgoingBitrate ?? 0) / 1000),
    // Opus has 48 samples per millisecond.
    concealed_ms: Math.round(sum(audio, "concealedSamples") / 48),
    frozen_ms: Math.round(sum(video, "totalFreezesDuration") * 1000),
    freezes: sum(video, "freezeCount"),
  };
}

const context = await (await launch(packages)).newContext();
await context.exposeFunction("openSession", openSession);
// A page may use the camera if it comes over TLS or from this host.
await context.route("http://localhost/", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
const first = await context.newPage();
const second = await context.newPage();
for (const page of [first, second]) await page.goto("http://localhost/");
await first.evaluate(call);
while ((await first.evaluate(observe)).received.some((packets) => packets < PACKETS)) await pause(50);
await second.evaluate(call);
for (;;) {
  await pause(250);
  console.log(JSON.stringify({ ends: [await first.evaluate(observe), await second.evaluate(observe)] }));
}
