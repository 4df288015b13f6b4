// Browsers with a camera and a microphone that need no hardware and no consent.

import { mkdtempSync, openSync, readSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The SHA-256 digest of the public key of a self-signed certificate that Chromium trusts, in Base64. */
const TRUSTED_KEY = process.env.TRUSTED_KEY;

const OPTIONS = {
  chromium: {
    executablePath: "/usr/bin/chromium",
    args: [
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      ...(TRUSTED_KEY ? [`--ignore-certificate-errors-spki-list=${TRUSTED_KEY}`] : []),
    ],
  },
  firefox: {
    // The build of the distribution, by WebDriver BiDi. Playwright 1.65 sends a command that Firefox 153 lacks.
    channel: "moz-firefox",
    executablePath: "/usr/bin/firefox-esr",
    firefoxUserPrefs: {
      "media.navigator.streams.fake": true,
      "media.navigator.permission.disabled": true,
      // Fake devices count as a permission, without which there is a candidate of the default address only.
      "media.navigator.permission.fake": true,
      "media.peerconnection.ice.loopback": true,
    },
  },
};

/** Starts `chromium` or `firefox`. `packages` is the folder in which `playwright-core` is installed. */
export function launch(packages, browser, options = {}) {
  return createRequire(`${packages}/`)("playwright-core")[browser].launch({ ...OPTIONS[browser], ...options });
}

/** Has Chromium log each packet after SRTP accepted it, or before SRTP protects it (webrtc/pc/srtp_session.cc). */
const RECORDED = ["--enable-logging=stderr", "--vmodule=*/pc/srtp_session*=4", "--force-fieldtrials=WebRTC-Debugging-RtpDump/Enabled/"];

/** Starts Chromium. `accepted` returns the packets of RTP that SRTP accepted since its last call, each as SSRC and sequence number. */
export async function launchRecorded(packages) {
  const folder = mkdtempSync(join(tmpdir(), "evenkeel-chromium-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const { executablePath: chromium, args } = OPTIONS.chromium;
  const [log, executablePath] = [join(folder, "log"), join(folder, "chromium")];
  const file = openSync(log, "a+");
  // The driver would drop standard error.
  writeFileSync(executablePath, `#!/bin/sh\nexec ${chromium} "$@" 2>>${log}\n`, { mode: 0o700 });
  const browser = await launch(packages, "chromium", { executablePath, args: [...args, ...RECORDED] });
  const buffer = Buffer.alloc(1 << 20);
  let [position, rest] = [0, ""];
  const accepted = () => {
    const found = [];
    for (let length; (length = readSync(file, buffer, 0, buffer.length, position)) > 0; position += length) {
      const lines = (rest + buffer.latin1Slice(0, length)).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        // Bytes in hexadecimal; those of RTCP have 192 to 223 in the second place.
        const header = line.match(/^I \S+ \d+ [89ab]. (?![cd])(?:.. )(.. ..) .. .. .. .. (.. .. .. ..)/);
        if (header) found.push([header[2], header[1]].map((bytes) => parseInt(bytes.replaceAll(" ", ""), 16)));
      }
    }
    return found;
  };
  return { browser, accepted };
}

/** Opens a page of an origin that may use the camera without TLS. */
export async function newPage(browser) {
  const page = await browser.newPage();
  await page.route("http://localhost/", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
  await page.goto("http://localhost/");
  return page;
}

/** Sends a request to the API at a socket. Returns its answer. */
export function ask(socketPath, method, path, body) {
  const options = { socketPath, path, method, headers: { "content-type": "application/json" } };
  return new Promise((resolve, reject) => {
    const request = http.request(options, async (response) => {
      const text = (await response.toArray()).join("");
      if (response.statusCode < 300) resolve(JSON.parse(text));
      else reject(new Error(`${method} ${path}: ${response.statusCode}: ${text}`));
    });
    request.on("error", reject).end(JSON.stringify(body));
  });
}

/** The names of started browsers, each with its version. */
export const versions = (browsers) => [...browsers].map(([name, browser]) => `${name} ${browser.version()}`);

/** Runs in a page: the state of its `peer`. `received` has the counts of the stream with the fewest among those of `others` ends, if there are any. */
export async function observe(others = 1) {
  const report = [...(await peer.getStats()).values()];
  const find = (type, kind) => report.filter((each) => each.type === type && each.kind === kind);
  const sum = (rows, field) => rows.reduce((total, row) => total + (row[field] ?? 0), 0);
  const least = (rows, field) => rows.map((row) => row[field] ?? 0).sort((one, two) => two - one)[others - 1] ?? 0;
  const [audio, video] = ["audio", "video"].map((kind) => find("inbound-rtp", kind));
  const [transport] = find("transport");
  const pair = report.find((each) => each.id === transport?.selectedCandidatePairId);
  const codec = ({ codecId }) => report.find((each) => each.id === codecId);
  const concealed = (row) => ((row.concealedSamples ?? 0) * 1000) / (codec(row)?.clockRate ?? 48_000);
  return {
    states: [peer.connectionState, peer.iceConnectionState, transport?.dtlsState],
    // The transport to a TURN server; null without one.
    relay: report.find((each) => each.id === pair?.localCandidateId)?.relayProtocol ?? null,
    // Firefox tells the pair only.
    path: [pair?.id, transport?.selectedCandidatePairChanges, transport?.localCertificateId, transport?.remoteCertificateId],
    // The time of the statistics: milliseconds since the Unix epoch.
    at_ms: transport?.timestamp,
    audio: audio.map((row) => row.ssrc),
    received: others > 0 ? [least(audio, "packetsReceived"), least(video, "packetsReceived"), least(video, "framesDecoded")] : [],
    // The ids of streams with voice, each with its level.
    voices: [...(globalThis.names ?? [])].filter(([{ kind }]) => kind === "audio").map(([track, name]) => {
      const voice = peer.getReceivers().find((each) => each.track === track);
      return [name, voice?.getSynchronizationSources()[0]?.audioLevel ?? null];
    }),
    lost: sum([...audio, ...video], "packetsLost"),
    video_lost: sum(video, "packetsLost"),
    codecs: [...new Set([...audio, ...video].map((row) => codec(row)?.mimeType ?? null))],
    repaired: sum(video, "retransmittedPacketsReceived"),
    // Of video, without what was sent again.
    video_bytes: sum(video, "bytesReceived") - sum(video, "retransmittedBytesReceived"),
    // Requests to send packets again: those of the page, and those that reached it.
    nacks: [sum(video, "nackCount"), sum(find("outbound-rtp", "video"), "nackCount")],
    // By layer of simulcast.
    sent: Object.fromEntries(find("outbound-rtp", "video").map((row) => [row.rid ?? "", row.packetsSent])),
    key_frames_asked: sum(find("outbound-rtp", "video"), "pliCount") + sum(find("outbound-rtp", "video"), "firCount"),
    kbps: Math.round((pair?.availableOutgoingBitrate ?? 0) / 1000),
    concealed_ms: Math.round(audio.reduce((total, row) => total + concealed(row), 0)),
    // A browser without the statistic does not tell 0.
    frozen_ms: others > 0 && video.every((row) => "totalFreezesDuration" in row) ? Math.round(sum(video, "totalFreezesDuration") * 1000) : null,
    freezes: others > 0 ? sum(video, "freezeCount") : null,
  };
}

export const pause = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));
