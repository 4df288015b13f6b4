// A call by WebTransport: the page encodes, packs, and decodes.

import { Datagrams, type Destination } from "./datagrams";
import type { CallMedia } from "./figures";
import { Receiver } from "./receiver";
import { asksForKeyFrame, isRtcp, pictureLoss, readPacket } from "./rtp";
import { Sender } from "./sender";

export class WebtransportMedia implements CallMedia {
  readonly #datagrams: Datagrams;
  readonly #receiver: Receiver;
  readonly #sender?: Sender;

  /** Sends this media, unless it is absent. */
  constructor(destination: Destination, media: MediaStream | undefined, failed: (error: unknown) => void) {
    const send = (packet: Uint8Array) => this.#datagrams.send(packet);
    this.#receiver = new Receiver((ssrc) => send(pictureLoss(ssrc)), failed);
    this.#datagrams = new Datagrams(destination, (packet) => this.#receive(packet), failed);
    if (media) this.#sender = new Sender(media, send, failed);
  }

  /** The pictures of one other end. */
  get received() {
    return this.#receiver.pictures;
  }

  get state() {
    return this.#datagrams.state;
  }

  async figures() {
    return this.#receiver.figures();
  }

  close() {
    this.#sender?.close();
    this.#datagrams.close();
    this.#receiver.close();
  }

  #receive(bytes: Uint8Array) {
    if (isRtcp(bytes)) {
      if (asksForKeyFrame(bytes)) this.#sender?.requestKeyFrame();
      return;
    }
    const packet = readPacket(bytes);
    if (packet) this.#receiver.receive(packet);
  }
}
