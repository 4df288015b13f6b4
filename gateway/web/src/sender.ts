// Encodes microphone and camera, and packs them into RTP.

import { AUDIO_RATE, AUDIO_TYPE, PacketWriter, VIDEO_RATE, VIDEO_TYPE } from "./rtp";

const AUDIO_BITRATE = 32_000;
const VIDEO_BITRATE = 500_000;

/** Frames that wait for the encoder; a later one is left out. */
const QUEUE_MAX = 2;

/** Least time between key frames that receivers ask for. */
const KEY_FRAME_EVERY_MS = 300;

export class Sender {
  readonly #send: (packet: Uint8Array) => void;
  readonly #readers: ReadableStreamDefaultReader[] = [];
  readonly #encoders: { close(): void; state: string }[] = [];
  #wantsKeyFrame = true;
  #keyFrameAt = 0;

  constructor(media: MediaStream, send: (packet: Uint8Array) => void, failed: (error: unknown) => void) {
    this.#send = send;
    for (const track of media.getAudioTracks()) this.#sendAudio(track, failed).catch(failed);
    for (const track of media.getVideoTracks()) this.#sendVideo(track, failed).catch(failed);
  }

  requestKeyFrame() {
    this.#wantsKeyFrame = true;
  }

  close() {
    this.#readers.forEach((reader) => reader.cancel().catch(() => {}));
    this.#encoders.filter((encoder) => encoder.state !== "closed").forEach((encoder) => encoder.close());
  }

  async #sendAudio(track: MediaStreamTrack, error: (error: unknown) => void) {
    const writer = new PacketWriter(AUDIO_TYPE);
    const output = (chunk: EncodedAudioChunk) => {
      this.#send(writer.write(rtpTime(chunk, AUDIO_RATE), bytesOf(chunk), false));
    };
    const encoder = new AudioEncoder({ output, error });
    this.#encoders.push(encoder);
    for await (const samples of this.#read<AudioData>(track)) {
      if (encoder.state === "unconfigured") {
        const { sampleRate, numberOfChannels } = samples;
        encoder.configure({ codec: "opus", sampleRate, numberOfChannels, bitrate: AUDIO_BITRATE });
      }
      if (encoder.state === "configured") encoder.encode(samples);
      samples.close();
    }
  }

  async #sendVideo(track: MediaStreamTrack, error: (error: unknown) => void) {
    const writer = new PacketWriter(VIDEO_TYPE);
    const output = (chunk: EncodedVideoChunk) => {
      for (const packet of writer.writeFrame(rtpTime(chunk, VIDEO_RATE), bytesOf(chunk))) this.#send(packet);
    };
    const encoder = new VideoEncoder({ output, error });
    this.#encoders.push(encoder);
    for await (const frame of this.#read<VideoFrame>(track)) {
      if (encoder.state === "unconfigured") {
        const { codedWidth: width, codedHeight: height } = frame;
        encoder.configure({ codec: "vp8", width, height, bitrate: VIDEO_BITRATE, latencyMode: "realtime" });
      }
      if (encoder.state === "configured" && encoder.encodeQueueSize < QUEUE_MAX) {
        const now = performance.now();
        const keyFrame = this.#wantsKeyFrame && now >= this.#keyFrameAt;
        if (keyFrame) [this.#wantsKeyFrame, this.#keyFrameAt] = [false, now + KEY_FRAME_EVERY_MS];
        encoder.encode(frame, { keyFrame });
      }
      frame.close();
    }
  }

  async *#read<T>(track: MediaStreamTrack): AsyncGenerator<T> {
    const reader = new MediaStreamTrackProcessor<T>({ track }).readable.getReader();
    this.#readers.push(reader);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  }
}

/** The time of a chunk, which counts microseconds, in units of RTP. */
function rtpTime({ timestamp }: { timestamp: number }, rate: number) {
  return Math.round((timestamp * rate) / 1000);
}

function bytesOf(chunk: EncodedAudioChunk | EncodedVideoChunk) {
  const bytes = new Uint8Array(chunk.byteLength);
  chunk.copyTo(bytes);
  return bytes;
}
