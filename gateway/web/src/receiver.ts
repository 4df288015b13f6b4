// Decodes the received streams, plays all audio and the newest video, and measures both.

import { NONE } from "./figures";
import { AUDIO_RATE, AUDIO_TYPE, type Packet, readFragment, VIDEO_RATE, VIDEO_TYPE } from "./rtp";

/** Audio is played this long after its arrival: the jitter that is hidden. */
const DELAY_S = 0.06;

/** A longer pause between pictures is a freeze. */
const FREEZE_MS = 200;

/** Least time between requests for a key frame. */
const REQUEST_EVERY_MS = 300;

/** Video without packets for this long gives way to another stream. */
const IDLE_MS = 1000;

/** Streams at a time. Packets of a further one are dropped, unless another is idle. */
const STREAMS_MAX = 32;

interface Stream {
  /** The time of its last packet. */
  heardAt: number;
  receive(packet: Packet): void;
  close(): void;
}

export class Receiver {
  readonly #figures = { ...NONE };
  /** The pictures of the stream that began last, or of another while that one is idle. */
  readonly pictures = new MediaStream();
  readonly #streams = new Map<number, Stream>();
  #shown?: VideoStream;
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
    const voices = [...this.#streams.values()].filter((stream) => stream instanceof AudioStream);
    const pause = voices.length ? Math.min(...voices.map((voice) => voice.pauseMs())) : 0;
    return { ...this.#figures, gapMs: this.#figures.gapMs + pause };
  }

  receive(packet: Packet) {
    const now = performance.now();
    const stream = this.#streams.get(packet.ssrc) ?? this.#begin(packet, now);
    if (!stream) return;
    stream.heardAt = now;
    if (stream instanceof VideoStream && now > (this.#shown?.heardAt ?? 0) + IDLE_MS) this.#show(stream);
    stream.receive(packet);
  }

  close() {
    this.#streams.forEach((stream) => stream.close());
    this.#generator.stop();
    void this.#context.close();
  }

  #begin({ type, ssrc }: Packet, now: number): Stream | undefined {
    if (type !== AUDIO_TYPE && type !== VIDEO_TYPE) return;
    if (this.#streams.size === STREAMS_MAX) this.#removeIdle(now);
    if (this.#streams.size === STREAMS_MAX) return;
    let stream: AudioStream | VideoStream;
    if (type === AUDIO_TYPE) {
      stream = new AudioStream(this.#context, this.#figures, this.#failed);
    } else {
      const show = (frame: VideoFrame) => {
        const shown = this.#writer.write(frame);
        shown.catch(() => frame.close());
      };
      stream = new VideoStream(show, () => this.#requestKeyFrame(ssrc), this.#figures, this.#failed);
      this.#show(stream);
    }
    this.#streams.set(ssrc, stream);
    return stream;
  }

  #show(stream: VideoStream) {
    this.#shown?.hide();
    stream.isShown = true;
    this.#shown = stream;
  }

  #removeIdle(now: number) {
    this.#streams.forEach((stream, ssrc) => {
      if (now <= stream.heardAt + IDLE_MS) return;
      stream.close();
      this.#streams.delete(ssrc);
    });
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
  heardAt = 0;
  #decoder?: AudioDecoder;
  readonly #sequence: Sequence;
  /** The time of playing of RTP timestamp 0, seconds. */
  #origin?: number;
  #playedUntil?: number;
  readonly #beganAt: number;

  constructor(
    readonly context: AudioContext,
    readonly figures: typeof NONE,
    readonly failed: (error: unknown) => void,
  ) {
    this.#sequence = new Sequence(figures);
    this.#beganAt = context.currentTime;
  }

  receive(packet: Packet) {
    if (this.#sequence.next(packet) === undefined) return;
    // An error closes a decoder.
    if (this.#decoder?.state !== "configured") this.#decoder = this.#open();
    const timestamp = (packet.timestamp * 1000) / AUDIO_RATE;
    this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, data: packet.payload }));
  }

  close() {
    if (this.#decoder?.state === "configured") this.#decoder.close();
  }

  /** The time since the end of its audio, or since its first packet if none was played. */
  pauseMs() {
    return 1000 * Math.max(0, this.context.currentTime - (this.#playedUntil ?? this.#beganAt));
  }

  #open() {
    const decoder = new AudioDecoder({ output: (samples) => this.#play(samples), error: this.failed });
    decoder.configure({ codec: "opus", sampleRate: 1000 * AUDIO_RATE, numberOfChannels: 1 });
    return decoder;
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
  heardAt = 0;
  isShown = false;
  #decoder?: VideoDecoder;
  readonly #sequence: Sequence;
  /** The parts of the frame that is arriving; `undefined` until the next frame begins. */
  #parts?: Uint8Array[];
  /** Frames that depend on a missing one are not decoded. */
  #awaitsKeyFrame = true;
  #requestedAt = 0;
  #shownAt?: number;

  constructor(
    readonly show: (frame: VideoFrame) => void,
    readonly requestKeyFrame: () => void,
    readonly figures: typeof NONE,
    readonly failed: (error: unknown) => void,
  ) {
    this.#sequence = new Sequence(figures);
  }

  receive(packet: Packet) {
    const missing = this.#sequence.next(packet);
    if (missing === undefined || !this.isShown) return;
    // An error and `hide` close a decoder.
    const isOpen = this.#decoder?.state === "configured";
    if (missing || !isOpen) [this.#parts, this.#awaitsKeyFrame] = [undefined, true];
    if (!isOpen) this.#decoder = this.#open();
    const fragment = readFragment(packet.payload);
    if (!fragment) return;
    if (fragment.starts) this.#parts = [];
    this.#parts?.push(fragment.part);
    if (packet.marker && this.#parts) this.#decode(packet.timestamp, this.#parts);
    if (this.#awaitsKeyFrame) this.#request();
  }

  close() {
    if (this.#decoder?.state === "configured") this.#decoder.close();
  }

  hide() {
    [this.isShown, this.#shownAt] = [false, undefined];
    this.close();
  }

  #open() {
    const decoder = new VideoDecoder({ output: (frame) => this.#display(frame), error: this.failed });
    decoder.configure({ codec: "vp8", optimizeForLatency: true });
    return decoder;
  }

  #decode(rtpTime: number, parts: Uint8Array[]) {
    this.#parts = undefined;
    // RFC 6386, section 9.1.
    const isKey = ((parts[0]?.[0] ?? 1) & 1) === 0;
    if (this.#awaitsKeyFrame && !isKey) return;
    const data = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      data.set(part, at);
      at += part.length;
    }
    const timestamp = (rtpTime * 1000) / VIDEO_RATE;
    // It stays true if the decoder refuses the frame.
    this.#awaitsKeyFrame = true;
    this.#decoder!.decode(new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp, data }));
    this.#awaitsKeyFrame = false;
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
