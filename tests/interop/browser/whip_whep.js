// A page of Chromium with the library `whip-whep`, as it is, until SIGTERM. Arguments: the folder of the packages, `publish` or `view`, the URL, and
// a token. SIGUSR2 has the library restart ICE.
//
// Standard output is lines of JSON, four a second, as of call.js, with the statuses of the answers to the requests of the library.

import { readFileSync } from "node:fs";
import { launch, newPage, observe, pause, versions } from "./browser.js";

const [packages, direction, url, token] = process.argv.slice(2);
const library = `${packages}/node_modules/whip-whep`;

/** Runs in a page: notes statuses of answers, and publishes camera and microphone or views. */
async function open([direction, url, token]) {
  globalThis.statuses = [];
  const send = globalThis.fetch;
  globalThis.fetch = async (to, options) => {
    const response = await send(to, options);
    statuses.push([options?.method ?? "GET", response.status]);
    return response;
  };
  globalThis.peer = new RTCPeerConnection();
  const player = document.createElement("video");
  [player.autoplay, player.muted] = [true, true];
  document.body.append(player);
  const stream = (player.srcObject = new MediaStream());
  peer.ontrack = ({ track }) => stream.addTrack(track);
  if (direction === "publish") {
    const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    for (const track of media.getTracks()) peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
    const { WHIPClient } = await import("/whip.js");
    globalThis.client = new WHIPClient();
    await client.publish(peer, url, token);
  } else {
    for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "recvonly" });
    const { WHEPClient } = await import("/whep.js");
    globalThis.client = new WHEPClient();
    await client.view(peer, url, token);
  }
}

const browser = await launch(packages, "chromium", { handleSIGTERM: false });
const clients = versions([["chromium", browser]]);
clients.push(`whip-whep ${JSON.parse(readFileSync(`${library}/package.json`)).version}`);
const page = await newPage(browser);
for (const file of ["whip.js", "whep.js"]) {
  await page.route(`http://localhost/${file}`, (route) => route.fulfill({ path: `${library}/${file}`, contentType: "text/javascript" }));
}
// A gateway on 127.0.0.1, by the page of an origin elsewhere.
await page.context().grantPermissions(["local-network-access", "camera", "microphone"]);
let ends = false;
let restarts = 0;
process.on("SIGTERM", () => (ends = true));
process.on("SIGUSR2", () => (restarts += 1));
await page.evaluate(open, [direction, url, token]);
const show = async (ends) => console.log(JSON.stringify({ clients, ends, statuses: await page.evaluate(() => statuses) }));
while (!ends) {
  await pause(250);
  for (; restarts > 0; restarts -= 1) await page.evaluate(() => client.restart());
  await show([await page.evaluate(observe, direction === "view" ? 1 : 0)]);
}
await page.evaluate(() => client.stop());
await show([]);
await browser.close();
