// The page of `evenkeel demo --serve` in Chromium: calls, and kills the node that carries the call, then the gateway. Arguments: the folder of
// `playwright-core`, the page's address, and the transport (`webrtc` or `webtransport`).
//
// Standard output is one line of JSON: the result of a probe, the figures after the death of the node, the state after that of the gateway, and faults of the page.

import { launch, pause } from "./browser.js";

const [packages, url, transport] = process.argv.slice(2);
const browser = await launch(packages, "chromium");
const page = await browser.newPage();
// A gateway of a debug build on a busy machine takes long to start again.
page.setDefaultTimeout(100_000);
const faults = [];
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
page.on("pageerror", (error) => faults.push(`${error}`));
page.on("request", (request) => request.url().startsWith(url) || faults.push(request.url()));

const text = (id) => page.locator(`#${id}`).textContent();
const press = (name) => page.getByRole("button", { name, exact: true }).click();
const line = (words) => page.locator("#log li", { hasText: words }).first().waitFor();
/** The lines of the log, newest first. */
const log = () => page.locator("#log li").allTextContents();

/** Waits for a line of the log that is newer than the first `earlier` ones, and returns the match. */
async function newLine(pattern, earlier) {
  for (;;) {
    const lines = await log();
    const found = lines.slice(0, lines.length - earlier).find((text) => pattern.test(text));
    if (found) return found.match(pattern);
    await pause(50);
  }
}

/** Waits until ten more pictures were shown and, by WebTransport, a second of audio was decoded for a context that plays. */
async function watch() {
  const shown = () => page.locator("#remote").evaluate((player) => player.getVideoPlaybackQuality().totalVideoFrames);
  const decoded = () => page.evaluate(() => decodedAudio);
  const [pictures, voices] = [(await shown()) + 10, (await decoded()) + (transport === "webtransport" ? 50 : 0)];
  while ((await shown()) < pictures || (await decoded()) < voices) await pause(50);
  const state = await page.evaluate(() => contexts.at(-1)?.state);
  if (transport === "webtransport" && state !== "running") throw new Error(`the AudioContext is ${state}, so no audio is played`);
}

await page.addInitScript(() => {
  Object.assign(globalThis, { decodedAudio: 0, contexts: [], decoders: [] });
  globalThis.AudioContext = class extends AudioContext {
    constructor(options) {
      contexts.push(super(options));
    }
  };
  globalThis.AudioDecoder = class extends AudioDecoder {
    constructor({ output, error }) {
      const count = (samples) => {
        globalThis.decodedAudio += 1;
        output(samples);
      };
      decoders.push(super({ output: count, error }));
    }
  };
  globalThis.VideoDecoder = class extends VideoDecoder {
    constructor(init) {
      decoders.push(super(init));
    }
  };
});

await page.goto(url);
await page.locator("#transport").selectOption(transport);
await press("Test my network");
await page.locator("#probe-figures").waitFor();
const probeIds = ["verdict", "probe-delay", "probe-jitter", "probe-loss", "probe-rate", "probe-mtu", "probe-r", "probe-video"];
const probe = Object.fromEntries(await Promise.all(probeIds.map(async (id) => [id, await text(id)])));
// The call carries the result.
await press("Call");
await line("carries the call");
await watch();
// Another page, which kills nothing. A busy gateway may refuse it at first.
const other = await browser.newPage();
await other.goto(url);
const isCarried = other.locator("#log li", { hasText: "carries the call" }).first();
do await other.getByRole("button", { name: "Watch a stream", exact: true }).click();
while (!(await isCarried.waitFor({ timeout: 10_000 }).then(() => true, () => false)));
await page.bringToFront();
const since = (page) => page.locator("#since").textContent();
if (transport === "webtransport") {
  // Each decoder fails and is replaced.
  await page.evaluate(() => {
    const faulty = { type: "key", timestamp: 0, data: Uint8Array.of(0xff, 0) };
    for (const decoder of decoders) decoder.decode(new (decoder instanceof AudioDecoder ? EncodedAudioChunk : EncodedVideoChunk)(faulty));
  });
  await line("EncodingError");
  await watch();
}
// The gap of as long a time without a fault.
const gap = async () => parseFloat(await text("gap"));
const earlier = await gap();
await watch();
await pause(2000);
const control = Math.max(0, (await gap()) - earlier);
// The call may have moved since it began: the page names the node that it kills.
const lines = (await log()).length;
await press("Kill the node");
const [, killed] = await newLine(/(\S+) killed/, lines);
const [, node] = await newLine(new RegExp(`(\\S+) carries the call in place of ${killed}`), lines);
await watch();
// Audio that ended at the kill shows as a gap by then.
await pause(2000);
const ids = ["state", "gateway", "round-trip", "loss", "gap", "freeze"];
const figures = Object.fromEntries(await Promise.all(ids.map(async (id) => [id, await text(id)])));
// Losing its gateway is an error of requests.
const before = [...faults];
await other.locator("#since", { hasText: `the kill of ${killed}` }).waitFor();
const figuresSince = [await since(page), await since(other)];
await press("Kill the gateway");
await line("called again");
await watch();
// The page shows its call and its gateway some times a second.
await page.waitForFunction((former) => !["starts", former].includes(document.querySelector("#gateway").textContent), figures.gateway);
await page.locator("#state", { hasText: /^connected$/ }).waitFor();
console.log(JSON.stringify({ probe, killed, node, since: [...figuresSince, await since(page)], control, ...figures, faults: before, again: await text("state"), process: await text("gateway") }));
await browser.close();
