// A page of Chromium that views a room by WHEP (draft-ietf-wish-whep-03) with trickle ICE (RFC 8840), until SIGTERM. Arguments: the folder
// of `playwright-core`, the URL, and a token.
//
// Standard output is lines of JSON, four a second, as of call.js. The last line has the statuses of the answers to its requests.

import { launch, newPage, observe, pause, versions } from "./browser.js";

const [packages, url, token] = process.argv.slice(2);

/** Runs in a page: views, and plays what comes. */
async function view([url, token]) {
  globalThis.statuses = [];
  globalThis.request = async (method, to, headers = {}, body = undefined) => {
    const response = await fetch(to, { method, headers: { authorization: `Bearer ${token}`, ...headers }, body });
    statuses.push([method, response.status]);
    return response;
  };
  globalThis.peer = new RTCPeerConnection();
  for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "recvonly" });
  const player = document.createElement("video");
  player.autoplay = true;
  player.muted = true;
  document.body.append(player);
  const stream = (player.srcObject = new MediaStream());
  peer.ontrack = ({ track }) => stream.addTrack(track);
  const candidates = [];
  peer.onicecandidate = ({ candidate }) => candidate && candidates.push(candidate);
  const gathered = new Promise((done) => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  const offer = await peer.createOffer();
  const [response] = await Promise.all([
    request("POST", url, { "content-type": "application/sdp" }, offer.sdp),
    peer.setLocalDescription(offer),
  ]);
  await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  globalThis.session = new URL(response.headers.get("location"), url).href;
  await gathered;
  const headers = { "content-type": "application/trickle-ice-sdpfrag", "if-match": response.headers.get("etag") };
  const credentials = offer.sdp.match(/a=ice-(ufrag|pwd):.*/g).slice(0, 2);
  for (const { candidate, sdpMid } of candidates) {
    const lines = [...credentials, "m=audio 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${sdpMid}`, `a=${candidate}`];
    await request("PATCH", session, headers, lines.map((line) => `${line.trim()}\r\n`).join(""));
  }
}

const browser = await launch(packages, "chromium", { handleSIGTERM: false });
const page = await newPage(browser);
// A gateway on 127.0.0.1, by the page of an origin elsewhere.
await page.context().grantPermissions(["local-network-access"]);
let ends = false;
process.on("SIGTERM", () => (ends = true));
await page.evaluate(view, [url, token]);
while (!ends) {
  await pause(250);
  const clients = versions([["chromium", browser]]);
  console.log(JSON.stringify({ clients, ends: [await page.evaluate(observe)] }));
}
const statuses = await page.evaluate(async () => {
  await request("DELETE", session);
  return statuses;
});
console.log(JSON.stringify({ statuses }));
await browser.close();
