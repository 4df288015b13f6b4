// RTP in DATAGRAMs of WebTransport, with the flow identifiers of RTP over QUIC (docs/webtransport.md).

/** `webtransport` of the gateway's answer. */
export interface Destination {
  urls: string[];
  certificates_sha256: string[];
  flow_to_gateway: string;
  flow_from_gateway: string;
}

/** The shortest and the longest time between attempts to connect, milliseconds. */
const [WAIT_MIN, WAIT_MAX] = [1, 1000];

/** Packets that wait for a slow connection, about a key frame; a later one is dropped. */
const QUEUE_MAX = 64;

/** A connection, which is opened again whenever it ends. */
export class Datagrams {
  state = "connecting";
  readonly #url: string;
  readonly #options: WebTransportOptions;
  readonly #to: Uint8Array;
  readonly #from: Uint8Array;
  readonly #receive: (packet: Uint8Array) => void;
  readonly #failed: (error: unknown) => void;
  #wait = WAIT_MIN;
  #session?: WebTransport;
  #writer?: WritableStreamDefaultWriter<Uint8Array>;

  /** `failed` gets the errors of `receive`, and the first of a connection since the last packet. */
  constructor(
    destination: Destination,
    receive: (packet: Uint8Array) => void,
    failed: (error: unknown) => void,
  ) {
    this.#url = destination.urls[0]!;
    this.#options = { serverCertificateHashes: certificateHashes(destination.certificates_sha256) };
    this.#to = varint(destination.flow_to_gateway);
    this.#from = varint(destination.flow_from_gateway);
    [this.#receive, this.#failed] = [receive, failed];
    void this.#follow();
  }

  /** Sends a packet, or drops it while there is no connection or its queue is full. */
  send(packet: Uint8Array) {
    // Chromium lets one packet wait (`desiredSize` is 1 at most), but a frame has several.
    if (!this.#writer || this.#writer.desiredSize! <= -QUEUE_MAX) return;
    const datagram = new Uint8Array(this.#to.length + packet.length);
    datagram.set(this.#to);
    datagram.set(packet, this.#to.length);
    this.#writer.write(datagram).catch(() => {});
  }

  close() {
    this.state = "closed";
    this.#session?.close();
  }

  async #follow() {
    while (!this.#isClosed()) {
      try {
        const session = new WebTransport(this.#url, this.#options);
        this.#session = session;
        // It ends with an error if the gateway does.
        session.closed.catch(() => {});
        await session.ready;
        if (this.#isClosed()) return;
        this.state = "connected";
        this.#writer = session.datagrams.writable.getWriter();
        await this.#read(session.datagrams.readable.getReader());
        throw new Error("the gateway closed the session");
      } catch (error) {
        // No gateway serves yet, or the gateway refused or ended the session.
        if (!this.#isClosed() && this.#wait === WAIT_MIN) this.#failed(`not connected, trying again: ${error}`);
      } finally {
        this.#writer = undefined;
        this.#session?.close();
      }
      if (this.#isClosed()) return;
      this.state = "connecting";
      await new Promise((wake) => setTimeout(wake, this.#wait));
      this.#wait = Math.min(2 * this.#wait, WAIT_MAX);
    }
  }

  #isClosed() {
    return this.state === "closed";
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>) {
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.#isClosed()) return;
      if (!this.#from.every((byte, at) => value[at] === byte)) continue;
      this.#wait = WAIT_MIN;
      try {
        this.#receive(value.subarray(this.#from.length));
      } catch (error) {
        this.#failed(error);
      }
    }
  }
}

/** The option of a connection for certificates with these SHA-256 (hexadecimal). */
export function certificateHashes(sha256: string[]) {
  const bytes = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
  return sha256.map((hex) => ({ algorithm: "sha-256", value: bytes(hex) }));
}

/** A variable-length integer of 8 bytes (RFC 9000, section 16), as the gateway writes its identifiers. */
function varint(number: string) {
  const bytes = new DataView(new ArrayBuffer(8));
  bytes.setBigUint64(0, BigInt(number) | (3n << 62n));
  return new Uint8Array(bytes.buffer);
}
