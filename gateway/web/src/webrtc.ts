// A call by WebRTC.

import { type CallMedia, NONE } from "./figures";

export class WebrtcMedia implements CallMedia {
  readonly #peer = new RTCPeerConnection();
  /** The tracks of the other ends. */
  readonly received = new MediaStream();

  /** Sends this media, unless it is absent, and receives if `receives`. */
  constructor(media: MediaStream | undefined, receives: boolean) {
    this.#peer.ontrack = ({ track }) => this.received.addTrack(track);
    if (media) {
      const direction = receives ? "sendrecv" : "sendonly";
      media.getTracks().forEach((track) => this.#peer.addTransceiver(track, { direction, streams: [media] }));
    } else {
      for (const kind of ["audio", "video"]) this.#peer.addTransceiver(kind, { direction: "recvonly" });
    }
  }

  get state() {
    return this.#peer.connectionState;
  }

  /** The SDP of the offer. */
  async offer() {
    await this.#peer.setLocalDescription();
    return this.#peer.localDescription?.sdp;
  }

  async accept(sdp: string) {
    await this.#peer.setRemoteDescription({ type: "answer", sdp });
  }

  async figures() {
    const sum = { ...NONE };
    let roundTripMs: number | undefined;
    (await this.#peer.getStats()).forEach((report) => {
      if (report.type === "inbound-rtp") {
        sum.received += report.packetsReceived ?? 0;
        sum.lost += report.packetsLost ?? 0;
        // Opus has 48 samples per millisecond.
        sum.gapMs += (report.concealedSamples ?? 0) / 48;
        sum.frozenMs += (report.totalFreezesDuration ?? 0) * 1000;
      } else if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== undefined) {
        roundTripMs = report.currentRoundTripTime * 1000;
      }
    });
    return { ...sum, roundTripMs };
  }

  close() {
    this.#peer.close();
  }
}
