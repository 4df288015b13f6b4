// A probe of the path to the gateway by WebTransport, before a call (docs/api.md, "Probe a path").

import { certificateHashes } from "./datagrams";

/** The gateway's answer to a request for a probe. */
export interface OpenedProbe {
  id: string;
  trains: { packets: number; interval_us: number; bytes: number }[];
  webtransport: { urls: string[]; certificates_sha256: string[] };
}

/** The gateway's measurement of the path. */
export interface ProbeReport {
  verdict: string;
  r_factor: number;
  video_lines: number;
  round_trip_us: number;
  jitter_us: number;
  loss_up_ppm: number;
  loss_down_ppm: number;
  rate_kbps: number;
  mtu: number;
  /** The result for one offer. */
  signed: string;
  valid_ms: number;
}

interface Packet {
  /** Milliseconds after the first one. */
  due: number;
  bytes: number;
  sent?: number;
  roundTripUs: number | null;
}

/** Wait for a connection, and for answers after the last packet, milliseconds. */
const [CONNECTED_WITHIN, ANSWERED_WITHIN] = [2_000, 500];

const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

/** Sends the packets of a probe, each once. Returns the round trips by number, microseconds; null: no answer came. */
export async function exchange({ trains, webtransport }: OpenedProbe) {
  const packets: Packet[] = [];
  let due = 0;
  for (const { packets: count, interval_us, bytes } of trains) {
    for (let at = 0; at < count; at += 1, due += interval_us / 1_000) packets.push({ due, bytes, roundTripUs: null });
  }
  const serverCertificateHashes = certificateHashes(webtransport.certificates_sha256);
  const session = new WebTransport(webtransport.urls[0]!, { serverCertificateHashes });
  session.closed.catch(() => {});
  try {
    const late = pause(CONNECTED_WITHIN).then(() => {
      throw new Error("UDP does not pass: no connection to the gateway; try another network");
    });
    await Promise.race([session.ready, late]);
    const { datagrams } = session;
    receive(datagrams.readable.getReader(), packets).catch(() => {});
    await send(datagrams.writable.getWriter(), datagrams.maxDatagramSize, packets);
    const until = performance.now() + ANSWERED_WITHIN;
    const isLeft = ({ sent, roundTripUs }: Packet) => sent !== undefined && roundTripUs === null;
    while (performance.now() < until && packets.some(isLeft)) await pause(10);
  } finally {
    session.close();
  }
  return packets.map((packet) => packet.roundTripUs);
}

/** Sends each packet when it is due: its number, and zeroes up to its size. One that fits into no DATAGRAM is lost. */
async function send(writer: WritableStreamDefaultWriter<Uint8Array>, largest: number, packets: Packet[]) {
  const began = performance.now();
  for (const [number, packet] of packets.entries()) {
    const wait = began + packet.due - performance.now();
    if (wait > 0) await pause(wait);
    if (packet.bytes > largest) continue;
    const datagram = new Uint8Array(packet.bytes);
    new DataView(datagram.buffer).setUint16(0, number);
    packet.sent = performance.now();
    writer.write(datagram).catch(() => {});
  }
}

/** Notes the first answer to each packet. */
async function receive(reader: ReadableStreamDefaultReader<Uint8Array>, packets: Packet[]) {
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    if (value.length < 2) continue;
    const packet = packets[new DataView(value.buffer, value.byteOffset).getUint16(0)];
    if (packet?.sent === undefined || packet.roundTripUs !== null || packet.bytes !== value.length) continue;
    packet.roundTripUs = Math.round((performance.now() - packet.sent) * 1_000);
  }
}
