// A page of Chromium that sends RTP packets in DATAGRAMs of WebTransport, and hears them. Arguments: the folder of `playwright-core`, the
// URL of the session, SHA-256 of the certificates, separated by a comma, and the flows to and from the gateway.
//
// Standard output is three lines of JSON: the packets received before the node dies, with their longest gap; after SIGUSR2 the figures of the
// death, of a second session, of a refused one and of a third; after another SIGUSR2 the last figures of the third.

import http from "node:http";
import { launch, pause } from "./browser.js";

const [packages, url, hashes, ...flows] = process.argv.slice(2);
const PACKETS = 50;

/** Runs in a page: opens a session, and sends a packet every 20 ms. */
async function start({ url, hashes, flows }) {
  const [to, from] = flows.map((flow) => {
    const varint = new DataView(new ArrayBuffer(8));
    varint.setBigUint64(0, BigInt(flow) | (3n << 62n));
    return new Uint8Array(varint.buffer);
  });
  const serverCertificateHashes = hashes.map((hex) => ({
    algorithm: "sha-256",
    value: Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16)),
  }));
  const state = { received: [], ssrcs: new Set(), strange: 0, closed: null, sent: 0, writer: null };
  globalThis.state = state;
  // A sender continues its numbers in its next session.
  globalThis.number ??= 0;
  globalThis.transport = new WebTransport(url, { serverCertificateHashes });
  const ended = (reason) => {
    state.closed = `${reason}`;
    state.writer = null;
  };
  transport.closed.then(ended, ended);
  function send() {
    const packet = new Uint8Array(8 + 12 + 40);
    packet.set(to);
    const header = new DataView(packet.buffer, 8);
    header.setUint16(0, 0x806f);
    header.setUint16(2, number);
    header.setUint32(4, number * 960);
    header.setUint32(8, 0x0ec0ffee);
    number += 1;
    state.sent += 1;
    state.writer?.write(packet).catch(() => {});
  }
  async function read(reader) {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const size = 1 << (value[0] >> 6);
      const isOurs = size === 8 && from.every((byte, at) => value[at] === byte);
      if (!isOurs) state.strange += 1;
      const packet = new DataView(value.buffer, value.byteOffset + size);
      // RTCP is no packet of the node's stream.
      if (packet.getUint8(1) >= 192 && packet.getUint8(1) <= 223) continue;
      state.received.push(performance.now());
      state.ssrcs.add(packet.getUint32(8));
    }
  }
  await transport.ready;
  state.writer = transport.datagrams.writable.getWriter();
  read(transport.datagrams.readable.getReader()).catch(() => {});
  state.timer = setInterval(send, 20);
}

/** Runs in a page: the figures so far. */
function observe() {
  const { received, ssrcs, closed, sent, strange } = state;
  const gaps = received.slice(1).map((time, at) => time - received[at]);
  return { longest_gap_ms: Math.round(Math.max(0, ...gaps)), ssrcs: ssrcs.size, sent, received: received.length, strange, closed };
}

/** Runs in a page: closes the session. */
async function stop() {
  clearInterval(state.timer);
  transport.close();
  await transport.closed;
}

const nextSignal = () => new Promise((tell) => process.once("SIGUSR2", tell));
const session = { url, hashes: hashes.split(","), flows };
const context = await (await launch(packages, "chromium")).newContext();
// WebTransport needs a page that comes over TLS or from this host, and only one from this host may connect to it.
const server = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html>"));
await new Promise((listening) => server.listen(0, "localhost", listening));
const page = await context.newPage();
await page.goto(`http://localhost:${server.address().port}/`);
const figures = () => page.evaluate(observe);
async function hear(packets) {
  const until = (await figures()).received + packets;
  for (;;) {
    const now = await figures();
    if (now.received >= until) return now;
    await pause(50);
  }
}

await page.evaluate(start, session);
const died = nextSignal();
const quiet = await hear(PACKETS);
console.log(JSON.stringify({ sending: quiet.received, longest_gap_ms: quiet.longest_gap_ms }));
await died;
const death = await hear(PACKETS);
await page.evaluate(stop);
await page.evaluate(start, session);
const again = (await hear(PACKETS)).strange === 0;
await page.evaluate(stop);
const wrong = { ...session, url: url.replace(/token=.*/, "token=1") };
const refused = await page.evaluate(start, wrong).then(() => "", (error) => `${error}`.split("\n")[0]);
await page.evaluate(start, session);
const before = await hear(PACKETS);
const replaced = nextSignal();
console.log(JSON.stringify({ death, again, refused, before }));
await replaced;
console.log(JSON.stringify(await hear(PACKETS)));
process.exit(0);
