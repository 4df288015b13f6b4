// RTP in DATAGRAMs of WebTransport, with the flow identifiers of RTP over QUIC (docs/webtransport.md).

/** `webtransport` of the gateway's answer. */
export interface Destination {
  urls: string[];
  certificates_sha256: string[];
  flow_to_gateway: string;
  flow_from_gateway: string;
}

/** The longest time between attempts to connect, milliseconds. */
const WAIT_MAX = 1000;

/** A connection, which is opened again whenever it ends. */
export class Datagrams {
  state = "connecting";
  readonly #url: string;
  readonly #options: WebTransportOptions;
  readonly #to: Uint8Array;
  readonly #from: Uint8Array;
  readonly #receive: (packet: Uint8Array) => void;
  #session?: WebTransport;
  #writer?: WritableStreamDefaultWriter<Uint8Array>;

  constructor(destination: Destination, receive: (packet: Uint8Array) => void) {
    const bytes = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
    const hashes = destination.certificates_sha256;
    this.#url = destination.urls[0]!;
    this.#options = { serverCertificateHashes: hashes.map((hex) => ({ algorithm: "sha-256", value: bytes(hex) })) };
    this.#to = varint(destination.flow_to_gateway);
    this.#from = varint(destination.flow_from_gateway);
    this.#receive = receive;
    void this.#follow();
  }

  /** Sends a packet, or drops it while there is no connection. */
  send(packet: Uint8Array) {
    const datagram = new Uint8Array(this.#to.length + packet.length);
    datagram.set(this.#to);
    datagram.set(packet, this.#to.length);
    this.#writer?.write(datagram).catch(() => {});
  }

  close() {
    this.state = "closed";
    this.#session?.close();
  }

  async #follow() {
    let wait = 1;
    while (this.state !== "closed") {
      try {
        const session = new WebTransport(this.#url, this.#options);
        this.#session = session;
        // It ends with an error if the gateway does.
        session.closed.catch(() => {});
        await session.ready;
        if (this.#isClosed()) return session.close();
        [this.state, wait] = ["connected", 1];
        this.#writer = session.datagrams.writable.getWriter();
        await this.#read(session.datagrams.readable.getReader());
      } catch {
        // No gateway serves yet, or the session has ended.
      }
      this.#writer = undefined;
      if (this.#isClosed()) return;
      this.state = "connecting";
      await new Promise((wake) => setTimeout(wake, wait));
      wait = Math.min(2 * wait, WAIT_MAX);
    }
  }

  #isClosed() {
    return this.state === "closed";
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>) {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (this.#from.every((byte, at) => value[at] === byte)) this.#receive(value.subarray(this.#from.length));
    }
  }
}

/** A variable-length integer of 8 bytes (RFC 9000, section 16), as the gateway writes its identifiers. */
function varint(number: string) {
  const bytes = new DataView(new ArrayBuffer(8));
  bytes.setBigUint64(0, BigInt(number) | (3n << 62n));
  return new Uint8Array(bytes.buffer);
}
