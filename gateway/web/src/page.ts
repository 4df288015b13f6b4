// Calls through the gateway of the demo, shows the figures of the call, and kills its node or the gateway.

import { type CallMedia, type Figures, NONE } from "./figures";
import { exchange, type OpenedProbe, type ProbeReport } from "./probe";
import { WebrtcMedia } from "./webrtc";
import { WebtransportMedia } from "./webtransport";

type Role = "call" | "publish" | "watch";
type Transport = "webrtc" | "webtransport";

interface Call {
  role: Role;
  room: string;
  transport: Transport;
  media: CallMedia;
  /** The id of the session at the gateway. */
  session: string;
  /** The process of the gateway that opened it, once it is known. */
  gateway?: number;
  node?: string;
  /** The number of kills of nodes by all pages, once it is known. */
  kills?: number;
  /** The figures of the call, newest last. The first is older than the latest answer of the page's server. */
  samples: [Figures, Figures];
  /** The figures before the latest kill of a node, or none. */
  since: Figures;
}

/** The advice of the gateway, with the segment of the path that is the reason. */
interface Advice {
  advice: string;
  cause: string;
}

const REFRESH_MS = 250;

/** Interfaces of a call by WebTransport. */
const NEEDED = [
  ...["WebTransport", "AudioEncoder", "AudioDecoder", "VideoEncoder", "VideoDecoder"],
  ...["MediaStreamTrackProcessor", "MediaStreamTrackGenerator"],
];

/** The words for each advice. */
const ADVICE: Record<string, string> = {
  "suspended": "The call is suspended.",
  "switch-network": "Your network is too bad for a call: use another one, such as Wi-Fi.",
  "lower-quality": "The connection is bad: send and watch with a lower resolution.",
  "audio-only": "The connection carries voice only: turn your camera off.",
};

/** Time between attempts to call while the gateway starts. */
const RETRY_MS = 500;

const element = <E extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as E;
const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

const own = element<HTMLVideoElement>("own");
const remote = element<HTMLVideoElement>("remote");
const leaveButton = element<HTMLButtonElement>("leave");
const probeButton = element<HTMLButtonElement>("probe");
const killButtons = ["kill-node", "kill-gateway"].map((id) => element<HTMLButtonElement>(id));

let call: Call | undefined;
/** The result of a probe for the next call, and the time until which the gateway takes it. */
let probed: { signed: string; until: number } | undefined;
let said = "";

/** An error that the gateway or the page's server told. */
class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function ask(method: string, path: string, body?: object): Promise<any> {
  const response = await fetch(path, { method, body: body && JSON.stringify(body), keepalive: method === "DELETE" });
  const text = await response.text();
  const answer = text ? JSON.parse(text) : {};
  if (!response.ok) throw new Refused(response.status, answer.error ?? text);
  return answer;
}

/** Adds a line to the log, unless it repeats the last one. */
function say(text: string) {
  if (text === said) return;
  said = text;
  const line = document.createElement("li");
  line.textContent = `${new Date().toLocaleTimeString()}  ${text}`;
  element("log").prepend(line);
}

function show(id: string, text: string) {
  element(id).textContent = text;
}

/** Shows the advice of the gateway, or none. */
function advise(advice?: Advice | null) {
  const banner = element("advice");
  banner.hidden = !advice;
  banner.textContent = advice ? `${ADVICE[advice.advice] ?? advice.advice} (${advice.cause})` : "";
}

async function openCamera() {
  own.srcObject ??= await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  return own.srcObject as MediaStream;
}

/** Measures the path to the gateway, and shows it. The next call carries the result. */
async function testNetwork() {
  if (!("WebTransport" in window)) throw new Error("this browser lacks WebTransport, which the test needs; Chromium has it");
  probed = undefined;
  show("verdict", "testing…");
  const opened: OpenedProbe = await ask("POST", "/probes");
  const roundTrips = await exchange(opened);
  const report: ProbeReport = await ask("PUT", `/probes/${opened.id}`, { round_trips_us: roundTrips });
  probed = { signed: report.signed, until: performance.now() + report.valid_ms };
  const percent = (ppm: number) => `${(ppm / 10_000).toFixed(1)} %`;
  show("verdict", report.verdict);
  show("probe-delay", `${(report.round_trip_us / 1_000).toFixed(1)} ms`);
  show("probe-jitter", `${(report.jitter_us / 1_000).toFixed(1)} ms`);
  show("probe-loss", `${percent(report.loss_up_ppm)} up, ${percent(report.loss_down_ppm)} down`);
  show("probe-rate", `${report.rate_kbps} kbit/s`);
  show("probe-mtu", report.mtu ? `${report.mtu} bytes` : "none");
  show("probe-r", (report.r_factor / 100).toFixed(0));
  show("probe-video", report.video_lines ? `${report.video_lines}p` : "none");
  element("probe-figures").hidden = false;
}

/** The result of a probe, for one offer. */
function takeProbe() {
  const result = probed && performance.now() < probed.until ? probed.signed : undefined;
  probed = undefined;
  return result;
}

/** Opens a session in the room. */
async function join(role: Role, room: string, transport: Transport) {
  const media = role === "watch" ? undefined : await openCamera();
  call = await (transport === "webrtc" ? joinByWebrtc(role, room, media) : joinByWebtransport(role, room, media));
  show("since", "this call began");
  leaveButton.disabled = false;
  killButtons.forEach((button) => (button.disabled = false));
}

async function joinByWebrtc(role: Role, room: string, sent?: MediaStream): Promise<Call> {
  const media = new WebrtcMedia(sent, role !== "publish");
  let session: string | undefined;
  try {
    remote.srcObject = media.received;
    const { id, answer } = await ask("POST", "/sessions", { role, room, offer: await media.offer(), probe: takeProbe() });
    session = id;
    await media.accept(answer);
    return { role, room, transport: "webrtc", media, session: id, samples: [NONE, NONE], since: NONE };
  } catch (error) {
    media.close();
    if (session) end(session);
    throw error;
  }
}

async function joinByWebtransport(role: Role, room: string, sent?: MediaStream): Promise<Call> {
  const missing = NEEDED.filter((name) => !(name in window));
  if (missing.length) throw new Error(`this browser lacks ${missing.join(", ")}; Chromium has them`);
  const { id, webtransport } = await ask("POST", "/sessions", { role, room, probe: takeProbe() });
  try {
    const media = new WebtransportMedia(webtransport, sent, (error) => say(`${error}`));
    remote.srcObject = media.received;
    return { role, room, transport: "webtransport", media, session: id, samples: [NONE, NONE], since: NONE };
  } catch (error) {
    end(id);
    throw error;
  }
}

/** Ends a session at the gateway, unless the gateway lost it. */
function end(session: string) {
  ask("DELETE", `/sessions/${session}`).catch(() => {});
}

/** Ends the call, and its session unless the gateway lost it. */
function leave(hasSession: boolean) {
  if (!call) return;
  call.media.close();
  if (hasSession) end(call.session);
  call = undefined;
  advise();
  leaveButton.disabled = true;
  killButtons.forEach((button) => (button.disabled = true));
}

function stopCamera() {
  (own.srcObject as MediaStream | null)?.getTracks().forEach((track) => track.stop());
  own.srcObject = remote.srcObject = null;
}

/** Calls until the gateway answers. */
async function joinAgain({ role, room, transport }: Call) {
  leave(false);
  // Another process takes no result of the one before.
  probed = undefined;
  for (;;) {
    try {
      await join(role, room, transport);
      show("since", "this call began; the gateway's death ended the one before");
      return say("called again");
    } catch (error) {
      if (!(error instanceof Refused && error.status === 503)) throw error;
      await pause(RETRY_MS);
    }
  }
}

/** Shows the call as it is now. */
async function refresh(call: Call) {
  const now = await call.media.figures();
  call.samples = [call.samples[1], now];
  const since = (figure: keyof Figures) => Math.max(now[figure] - call.since[figure], 0);
  const lost = since("lost");
  show("state", call.media.state);
  show("round-trip", now.roundTripMs === undefined ? "" : `${now.roundTripMs.toFixed(1)} ms`);
  show("loss", `${((100 * lost) / Math.max(lost + since("received"), 1)).toFixed(2)} %`);
  show("gap", `${Math.round(since("gapMs"))} ms`);
  show("freeze", `${Math.round(since("frozenMs"))} ms`);
}

/** Shows the node and the gateway of the call. Calls again if another process of the gateway runs. */
async function locate(now: Call) {
  let carriers: { node: string | null; gateway: number; kills: number; killed: string | null; advice: Advice | null };
  try {
    carriers = await ask("GET", `/sessions/${now.session}`);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return joinAgain(now);
    return show("gateway", "starts");
  }
  const { node, gateway, kills, killed, advice } = carriers;
  now.gateway ??= gateway;
  if (now.gateway !== gateway) return joinAgain(now);
  now.kills ??= kills;
  if (kills > now.kills) {
    now.kills = kills;
    now.since = now.samples[0];
    show("since", `the kill of ${killed}`);
  }
  if (now === call) advise(advice);
  show("node", node ?? "none");
  show("gateway", `${gateway}`);
  if (node && node !== now.node) {
    say(now.node ? `${node} carries the call in place of ${now.node}` : `${node} carries the call`);
    now.node = node;
  }
}

async function kill(path: string, name: string) {
  await ask("POST", path);
  say(`${name} killed`);
}

function attempt(action: Promise<unknown>) {
  action.catch((error) => say(`${error instanceof Error ? error.message : error}`));
}

element("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const role = ((event as SubmitEvent).submitter as HTMLButtonElement).value as Role;
  leave(true);
  const transport = element<HTMLSelectElement>("transport").value as Transport;
  attempt(join(role, element<HTMLInputElement>("room").value, transport));
});
probeButton.addEventListener("click", () => {
  probeButton.disabled = true;
  const tested = testNetwork().catch((error) => show("verdict", `${error instanceof Error ? error.message : error}`));
  void tested.finally(() => (probeButton.disabled = false));
});
leaveButton.addEventListener("click", () => {
  leave(true);
  stopCamera();
  show("state", "none");
});
killButtons[0]?.addEventListener("click", () => {
  if (call?.node) attempt(kill(`/nodes/${encodeURIComponent(call.node)}/kill`, call.node));
});
killButtons[1]?.addEventListener("click", () => attempt(kill("/gateway/kill", "gateway")));
addEventListener("pagehide", () => leave(true));

for (;;) {
  await pause(REFRESH_MS);
  if (!call) continue;
  try {
    await refresh(call);
    await locate(call);
  } catch (error) {
    say(`${error}`);
  }
}
