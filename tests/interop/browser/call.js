// Pages in a call, or one that publishes a stream. Arguments: the folder of `playwright-core`, `--simulcast` if the first page sends its
// pictures in two sizes, `--publish` for a stream of small pictures, `--codecs=VIDEO,AUDIO` for pages that offer these alone, or `--recorded`;
// the browser of each page (`chromium` or `firefox`), the socket of the API, and the room. The environment variable ICE_SERVERS may have their
// `iceServers` as JSON.
//
// Standard output is lines of JSON, four a second: the versions of the browsers, each end with its states, the packets that it received by kind,
// the frames that it decoded, and its figures; with `--recorded` also the packets of RTP that SRTP of all pages accepted since the line before.

import { ask, launch, launchRecorded, newPage, observe, pause, versions } from "./browser.js";

const [packages, ...words] = process.argv.slice(2);
const [api, room] = words.splice(-2);
const [option, list] = words[0].startsWith("--") ? words.shift().split("=") : [""];
const codecs = list?.split(",") ?? [];
const others = words.length - 1;
const scenario = option === "--publish" ? "live" : "call";
/** The pictures of the first page, with `--codecs` of all pages, and their layers. */
const [pictures, layers] = {
  "": [true, []],
  "--recorded": [true, []],
  "--codecs": [{ width: 320, height: 240, frameRate: 15 }, []],
  "--simulcast": [true, [{ rid: "small", scaleResolutionDownBy: 2 }, { rid: "large" }]],
  "--publish": [{ width: 320, height: 240, frameRate: 10 }, [{ maxBitrate: 100_000 }]],
}[option];

const iceServers = JSON.parse(process.env.ICE_SERVERS ?? "[]");

/** Packets that the first page receives before the others join. It hears itself while it is alone. */
const PACKETS = 100;

/** Sends an offer to the gateway. Returns the SDP of its answer. */
async function openSession(offer, participant) {
  const body = { scenario, room, labels: { participant }, webrtc: { offer } };
  return (await ask(api, "POST", "/v1/sessions", body)).webrtc.answer;
}

/** Runs in a page: calls `others` ends with camera and microphone, and plays one of them. `sendEncodings`: the layers of its pictures.
 *  `codecs`: those that it offers; none stands for all. */
async function call({ participant, others, pictures, sendEncodings, codecs, iceServers }) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: pictures });
  globalThis.peer = new RTCPeerConnection({ iceServers });
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
    const transceiver = peer.addTransceiver(track, { direction, streams: [media], sendEncodings: encodings });
    if (codecs.length > 0) {
      const wanted = [...codecs, "rtx"].map((codec) => `${track.kind}/${codec}`);
      const all = RTCRtpReceiver.getCapabilities(track.kind).codecs;
      transceiver.setCodecPreferences(all.filter(({ mimeType }) => wanted.includes(mimeType)));
    }
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
await first.evaluate(call, { participant: "page 0", others, pictures, sendEncodings: layers, codecs, iceServers });
const isHeard = ({ received: [audio, video] }) => audio >= PACKETS && video >= PACKETS;
while (later.length > 0 && !isHeard(await first.evaluate(observe))) await pause(50);
for (const [index, page] of later.entries()) {
  const own = codecs.length > 0 ? pictures : true;
  await page.evaluate(call, { participant: `page ${index + 1}`, others, pictures: own, sendEncodings: [], codecs, iceServers });
}
for (;;) {
  await pause(250);
  const ends = await Promise.all(pages.map((page) => page.evaluate(observe, others)));
  console.log(JSON.stringify({ clients: versions(browsers), ends, accepted: accepted?.() }));
}
