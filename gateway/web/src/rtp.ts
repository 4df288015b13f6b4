// Packets of RTP (RFC 3550), VP8 in them (RFC 7741), and requests of key frames (RFC 4585, section 6.3.1).

export const AUDIO_TYPE = 111;
export const VIDEO_TYPE = 96;

/** Samples per millisecond. */
export const AUDIO_RATE = 48;
export const VIDEO_RATE = 90;

const HEADER_BYTES = 12;

/** Bytes of VP8 in a packet: a DATAGRAM has about 1,150 bytes on a new connection. */
const FRAGMENT_BYTES = 1000;

/** The first byte of a payload descriptor: the packet begins a frame. */
const STARTS = 0x10;

/** The type of RTCP packets with feedback on a payload. */
const PAYLOAD_FEEDBACK = 206;
const PICTURE_LOSS = 1;

export interface Packet {
  type: number;
  marker: boolean;
  sequence: number;
  timestamp: number;
  ssrc: number;
  payload: Uint8Array;
}

/** The packets of one stream. Sequence numbers continue over connections. */
export class PacketWriter {
  readonly #ssrc = random32();
  #sequence = random32() & 0xffff;

  constructor(readonly type: number) {}

  write(timestamp: number, payload: Uint8Array, marker: boolean): Uint8Array {
    const packet = new Uint8Array(HEADER_BYTES + payload.length);
    const header = new DataView(packet.buffer);
    header.setUint8(0, 0x80);
    header.setUint8(1, this.type | (marker ? 0x80 : 0));
    header.setUint16(2, this.#sequence);
    header.setUint32(4, timestamp >>> 0);
    header.setUint32(8, this.#ssrc);
    packet.set(payload, HEADER_BYTES);
    this.#sequence = (this.#sequence + 1) & 0xffff;
    return packet;
  }

  /** The packets of a frame of VP8. */
  *writeFrame(timestamp: number, frame: Uint8Array) {
    for (let at = 0; at < frame.length; at += FRAGMENT_BYTES) {
      const part = frame.subarray(at, at + FRAGMENT_BYTES);
      const payload = new Uint8Array(1 + part.length);
      payload[0] = at === 0 ? STARTS : 0;
      payload.set(part, 1);
      yield this.write(timestamp, payload, at + part.length === frame.length);
    }
  }
}

/** Reads a packet of RTP, and returns none for other bytes. */
export function readPacket(bytes: Uint8Array): Packet | undefined {
  if (bytes.length < HEADER_BYTES || bytes[0]! >> 6 !== 2) return;
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let start = HEADER_BYTES + 4 * (bytes[0]! & 0x0f);
  if (bytes[0]! & 0x10) {
    if (bytes.length < start + 4) return;
    start += 4 + 4 * header.getUint16(start + 2);
  }
  const padding = bytes[0]! & 0x20 ? bytes[bytes.length - 1]! : 0;
  if (start + padding > bytes.length) return;
  return {
    type: bytes[1]! & 0x7f,
    marker: bytes[1]! >= 0x80,
    sequence: header.getUint16(2),
    timestamp: header.getUint32(4),
    ssrc: header.getUint32(8),
    payload: bytes.subarray(start, bytes.length - padding),
  };
}

/** True for RTCP (RFC 5761, section 4). */
export function isRtcp(bytes: Uint8Array) {
  return bytes[1]! >= 192 && bytes[1]! <= 223;
}

/** A part of a frame of VP8, without its descriptor. */
export function readFragment(payload: Uint8Array): { starts: boolean; part: Uint8Array } | undefined {
  const [first, extension] = payload;
  if (first === undefined) return;
  let length = 1;
  if (first & 0x80) {
    if (extension === undefined) return;
    length += 1;
    if (extension & 0x80) length += payload[length]! & 0x80 ? 2 : 1;
    if (extension & 0x40) length += 1;
    if (extension & 0x30) length += 1;
  }
  return { starts: (first & STARTS) !== 0 && (first & 0x07) === 0, part: payload.subarray(length) };
}

/** Asks the sender of a stream for a key frame. */
export function pictureLoss(ssrc: number): Uint8Array {
  const packet = new DataView(new ArrayBuffer(12));
  packet.setUint8(0, 0x80 | PICTURE_LOSS);
  packet.setUint8(1, PAYLOAD_FEEDBACK);
  packet.setUint16(2, 2);
  packet.setUint32(8, ssrc);
  return new Uint8Array(packet.buffer);
}

/** True if a compound packet of RTCP asks for a key frame. */
export function asksForKeyFrame(bytes: Uint8Array) {
  const packet = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 4 <= bytes.length; at += 4 + 4 * packet.getUint16(at + 2)) {
    const isPictureLoss = (packet.getUint8(at) & 0x1f) === PICTURE_LOSS;
    if (isPictureLoss && packet.getUint8(at + 1) === PAYLOAD_FEEDBACK) return true;
  }
  return false;
}

function random32() {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}
