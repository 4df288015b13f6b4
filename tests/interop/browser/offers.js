// Two pages of Chromium in a call. The first one restarts ICE, adds a track, which the second one then asks for, and removes it, each by an offer
// to `PUT /v1/sessions/ID`. Arguments: the folder of `playwright-core`, the socket of the API, and the room.
//
// Standard output is lines of JSON, four a second, as of call.js, with the `step` that was taken last. `added` is the number of frames
// that the second page decoded of the track, and `credentials` that of the user fragments that the gateway answered the first page with.

import { ask, launch, newPage, observe, pause, versions } from "./browser.js";

const [packages, api, room] = process.argv.slice(2);

/** Packets of each kind, and frames, at each page between two steps. */
const ENOUGH = 50;

/** Runs in a page: calls with camera and microphone. `offer` sends the state of the peer to the gateway. */
async function call(participant) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  globalThis.peer = new RTCPeerConnection();
  globalThis.fragments = new Set();
  globalThis.offer = async () => {
    await peer.setLocalDescription();
    globalThis.session = await sendOffer(globalThis.session?.id, peer.localDescription.sdp, participant);
    fragments.add(session.answer.match(/a=ice-ufrag:(.*)/)[1]);
    await peer.setRemoteDescription({ type: "answer", sdp: session.answer });
  };
  peer.ontrack = ({ track }) => {
    const player = document.createElement("video");
    [player.autoplay, player.muted] = [true, true];
    player.srcObject = new MediaStream([track]);
    document.body.append(player);
  };
  for (const track of media.getTracks()) peer.addTrack(track, media);
  await offer();
}

/** Runs in a page: sends moving pictures beside those of the camera. */
async function addTrack() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [320, 240];
  const context = canvas.getContext("2d");
  let hue = 0;
  setInterval(() => {
    context.fillStyle = `hsl(${(hue += 7)} 100% 50%)`;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }, 100);
  globalThis.sender = peer.addTrack(canvas.captureStream(10).getVideoTracks()[0]);
  await offer();
}

/** Runs in a page: asks for one more stream of pictures. */
async function askForTrack() {
  globalThis.asked = peer.addTransceiver("video", { direction: "recvonly" });
  await offer();
}

/** Runs in a page: the frames decoded of the stream that it asked for. */
async function frames() {
  const rows = [...(await asked.receiver.getStats()).values()];
  return rows.find(({ type }) => type === "inbound-rtp")?.framesDecoded ?? 0;
}

const browser = await launch(packages, "chromium");
const pages = [await newPage(browser), await newPage(browser)];
let step = "";
let added = 0;
for (const [index, page] of pages.entries()) {
  await page.exposeFunction("sendOffer", async (id, offer, participant) => {
    const webrtc = { offer };
    const [method, path] = id ? ["PUT", `/v1/sessions/${id}`] : ["POST", "/v1/sessions"];
    const body = id ? { webrtc } : { scenario: "call", room, labels: { participant }, webrtc };
    const opened = await ask(api, method, path, body);
    return { id: id ?? opened.id, answer: opened.webrtc.answer };
  });
  await page.evaluate(call, `page ${index}`);
}

/** Prints a line. */
async function show() {
  const ends = await Promise.all(pages.map((page) => page.evaluate(observe)));
  const credentials = await pages[0].evaluate(() => fragments.size);
  console.log(JSON.stringify({ clients: versions([["chromium", browser]]), step, ends, added, credentials }));
  return ends;
}

/** Prints lines until each page has received more. */
async function hear() {
  const before = await show();
  const isHeard = ({ received }, end) => received.every((count, kind) => count >= before[end].received[kind] + ENOUGH);
  do await pause(250);
  while (!(await show()).every(isHeard));
}

async function take(name, how, page) {
  await page.evaluate(how);
  step = name;
  await hear();
}

await hear();
step = "calm";
await hear();
await take("restarted", async () => {
  peer.restartIce();
  await offer();
}, pages[0]);
await take("added", addTrack, pages[0]);
await pages[1].evaluate(askForTrack);
while ((added = await pages[1].evaluate(frames)) < 20) await pause(50);
await take("removed", async () => {
  peer.removeTrack(sender);
  await offer();
}, pages[0]);
step = "ended";
for (;;) {
  await show();
  await pause(250);
}
