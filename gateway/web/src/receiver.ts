// Decodes the streams that come back, plays their audio, and measures both.

import { NONE } from "./figures";
import { AUDIO_RATE, AUDIO_TYPE, type Packet, readFragment, VIDEO_RATE, VIDEO_TYPE } from "./rtp";

/** Audio is played this long after its arrival: the jitter that is hidden. */
const DELAY_S = 0.06;

/** A longer pause between pictures is a freeze. */
const FREEZE_MS = 200;

/** Least time between requests for a key frame. */
const REQUEST_EVERY_MS = 300;

interface Stream {
  receive(packet: Packet): void;
  close(): void;
}

export class Receiver {
  readonly #figures = { ...NONE };
  /** The pictures of the last stream that began. */
  readonly pictures = new MediaStream();
  readonly #streams = new Map<number, Stream>();
  readonly #voices: AudioStream[] = [];
  readonly #context = new AudioContext({ sampleRate: 1000 * AUDIO_RATE });
  readonly #generator = new MediaStreamTrackGenerator<VideoFrame>({ kind: "video" });
  readonly #writer = this.#generator.writable.getWriter();
  readonly #requestKeyFrame: (ssrc: number) => void;
  readonly #failed: (error: unknown) => void;

  constructor(requestKeyFrame: (ssrc: number) => void, failed: (error: unknown) => void) {
    this.pictures.addTrack(this.#generator);
    [this.#requestKeyFrame, this.#failed] = [requestKeyFrame, failed];
  }

  /** A pause that lasts is part of the gap, unless another stream is heard. */
  figures() {
    const pause = this.#voices.length ? Math.min(...this.#voices.map((voice) => voice.pauseMs())) : 0;
    return { ...this.#figures, gapMs: this.#figures.gapMs + pause };
  }

  receive(packet: Packet) {
    let stream = this.#streams.get(packet.ssrc);
    if (!stream) {
      stream = this.#begin(packet);
      if (!stream) return;
      this.#streams.set(packet.ssrc, stream);
    }
    stream.receive(packet);
  }

  close() {
    this.#streams.forEach((stream) => stream.close());
    this.#generator.stop();
    void this.#context.close();
  }

  #begin({ type, ssrc }: Packet): Stream | undefined {
    if (type === AUDIO_TYPE) {
      const voice = new AudioStream(this.#context, this.#figures, this.#failed);
      this.#voices.push(voice);
      return voice;
    }
    if (type !== VIDEO_TYPE) return;
    const show = (frame: VideoFrame) => {
      const shown = this.#writer.write(frame);
      shown.catch(() => frame.close());
    };
    return new VideoStream(show, () => this.#requestKeyFrame(ssrc), this.#figures, this.#failed);
  }
}

/** Counts received and lost packets by their sequence numbers. */
class Sequence {
  #last?: number;

  constructor(readonly figures: typeof NONE) {}

  /** The number of packets that are missing before this one; `undefined` for a late one, which is no longer used. */
  next({ sequence }: Packet): number | undefined {
    const step = this.#last === undefined ? 1 : (sequence - this.#last) & 0xffff;
    this.figures.received += 1;
    if (step === 0 || step >= 0x8000) {
      this.figures.lost -= step === 0 ? 0 : 1;
      return;
    }
    this.#last = sequence;
    this.figures.lost += step - 1;
    return step - 1;
  }
}

class AudioStream implements Stream {
  readonly #decoder: AudioDecoder;
  readonly #sequence: Sequence;
  /** The time of playing of RTP timestamp 0, seconds. */
  #origin?: number;
  #playedUntil?: number;

  constructor(
    readonly context: AudioContext,
    readonly figures: typeof NONE,
    error: (error: unknown) => void,
  ) {
    this.#sequence = new Sequence(figures);
    this.#decoder = new AudioDecoder({ output: (samples) => this.#play(samples), error });
    this.#decoder.configure({ codec: "opus", sampleRate: 1000 * AUDIO_RATE, numberOfChannels: 1 });
  }

  receive(packet: Packet) {
    if (this.#sequence.next(packet) === undefined) return;
    const timestamp = (packet.timestamp * 1000) / AUDIO_RATE;
    this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, data: packet.payload }));
  }

  close() {
    if (this.#decoder.state !== "closed") this.#decoder.close();
  }

  /** The time since the end of its audio. */
  pauseMs() {
    return 1000 * Math.max(0, this.context.currentTime - (this.#playedUntil ?? Infinity));
  }

  #play(samples: AudioData) {
    const { numberOfFrames, sampleRate, numberOfChannels, timestamp } = samples;
    const buffer = this.context.createBuffer(numberOfChannels, numberOfFrames, sampleRate);
    for (let channel = 0; channel < numberOfChannels; channel += 1) {
      const plane = new Float32Array(numberOfFrames);
      samples.copyTo(plane, { planeIndex: channel, format: "f32-planar" });
      buffer.copyToChannel(plane, channel);
    }
    samples.close();
    const now = this.context.currentTime;
    const at = timestamp / 1_000_000;
    const ahead = this.#origin === undefined ? -1 : this.#origin + at - now;
    // It came too late, or the sender's clock jumped.
    if (ahead < 0 || ahead > 1) this.#origin = now + DELAY_S - at;
    const start = this.#origin! + at;
    if (this.#playedUntil !== undefined) this.figures.gapMs += Math.max(0, start - this.#playedUntil) * 1000;
    this.#playedUntil = start + buffer.duration;
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    source.start(start);
  }
}

class VideoStream implements Stream {
  readonly #decoder: VideoDecoder;
  readonly #sequence: Sequence;
  /** The parts of the frame that is arriving; `undefined` until the next frame begins. */
  #parts?: Uint8Array[];
  /** Frames that a missing one leads to are not decoded. */
  #awaitsKeyFrame = true;
  #requestedAt = 0;
  #shownAt?: number;

  constructor(
    readonly show: (frame: VideoFrame) => void,
    readonly requestKeyFrame: () => void,
    readonly figures: typeof NONE,
    error: (error: unknown) => void,
  ) {
    this.#sequence = new Sequence(figures);
    this.#decoder = new VideoDecoder({ output: (frame) => this.#display(frame), error });
    this.#decoder.configure({ codec: "vp8", optimizeForLatency: true });
  }

  receive(packet: Packet) {
    const missing = this.#sequence.next(packet);
    const fragment = missing === undefined ? undefined : readFragment(packet.payload);
    if (!fragment) return;
    if (missing) [this.#parts, this.#awaitsKeyFrame] = [undefined, true];
    if (fragment.starts) this.#parts = [];
    this.#parts?.push(fragment.part);
    if (packet.marker && this.#parts) this.#decode(packet.timestamp, this.#parts);
    if (this.#awaitsKeyFrame) this.#request();
  }

  close() {
    if (this.#decoder.state !== "closed") this.#decoder.close();
  }

  #decode(rtpTime: number, parts: Uint8Array[]) {
    this.#parts = undefined;
    // RFC 6386, section 9.1.
    const isKey = ((parts[0]?.[0] ?? 1) & 1) === 0;
    if (this.#awaitsKeyFrame && !isKey) return;
    this.#awaitsKeyFrame = false;
    const data = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      data.set(part, at);
      at += part.length;
    }
    const timestamp = (rtpTime * 1000) / VIDEO_RATE;
    this.#decoder.decode(new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp, data }));
  }

  #request() {
    const now = performance.now();
    if (now < this.#requestedAt + REQUEST_EVERY_MS) return;
    this.#requestedAt = now;
    this.requestKeyFrame();
  }

  #display(frame: VideoFrame) {
    const now = performance.now();
    const pause = this.#shownAt === undefined ? 0 : now - this.#shownAt;
    if (pause > FREEZE_MS) this.figures.frozenMs += pause;
    this.#shownAt = now;
    this.show(frame);
  }
}
