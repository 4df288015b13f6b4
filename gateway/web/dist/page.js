// src/figures.ts
var NONE = {
	received: 0,
	lost: 0,
	gapMs: 0,
	frozenMs: 0
};
// src/datagrams.ts
/** The shortest and the longest time between attempts to connect, milliseconds. */
var [WAIT_MIN, WAIT_MAX] = [1, 1e3];
/** A connection, which is opened again whenever it ends. */
var Datagrams = class {
	state = "connecting";
	#url;
	#options;
	#to;
	#from;
	#receive;
	#failed;
	#wait = WAIT_MIN;
	#session;
	#writer;
	/** `failed` gets the errors of `receive`, and the first of a connection since the last packet. */
	constructor(destination, receive, failed) {
		this.#url = destination.urls[0];
		this.#options = { serverCertificateHashes: certificateHashes(destination.certificates_sha256) };
		this.#to = varint(destination.flow_to_gateway);
		this.#from = varint(destination.flow_from_gateway);
		[this.#receive, this.#failed] = [receive, failed];
		this.#follow();
	}
	/** Sends a packet, or drops it while there is no connection or its queue is full. */
	send(packet) {
		if (!this.#writer || this.#writer.desiredSize <= -64) return;
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
				session.closed.catch(() => {});
				await session.ready;
				if (this.#isClosed()) return;
				this.state = "connected";
				this.#writer = session.datagrams.writable.getWriter();
				await this.#read(session.datagrams.readable.getReader());
				throw new Error("the gateway closed the session");
			} catch (error) {
				if (!this.#isClosed() && this.#wait === WAIT_MIN) this.#failed(`not connected, trying again: ${error}`);
			} finally {
				this.#writer = void 0;
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
	async #read(reader) {
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
};
/** The option of a connection for certificates with these SHA-256 (hexadecimal). */
function certificateHashes(sha256) {
	const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
	return sha256.map((hex) => ({
		algorithm: "sha-256",
		value: bytes(hex)
	}));
}
/** A variable-length integer of 8 bytes (RFC 9000, section 16), as the gateway writes its identifiers. */
function varint(number) {
	const bytes = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(8));
	bytes.setBigUint64(0, BigInt(number) | 3n << 62n);
	return new Uint8Array(bytes.buffer);
}
// src/probe.ts
/** Wait for a connection, and for answers after the last packet, milliseconds. */
var [CONNECTED_WITHIN, ANSWERED_WITHIN] = [2e3, 500];
var pause$1 = (ms) => new Promise((wake) => setTimeout(wake, ms));
/** Sends the packets of a probe, each once. Returns the round trips by number, microseconds; null: no answer came. */
async function exchange({ trains, webtransport }) {
	const packets = [];
	let due = 0;
	for (const { packets: count, interval_us, bytes } of trains) for (let at = 0; at < count; at += 1, due += interval_us / 1e3) packets.push({
		due,
		bytes,
		roundTripUs: null
	});
	const serverCertificateHashes = certificateHashes(webtransport.certificates_sha256);
	const session = new WebTransport(webtransport.urls[0], { serverCertificateHashes });
	session.closed.catch(() => {});
	try {
		const late = pause$1(CONNECTED_WITHIN).then(() => {
			throw new Error("UDP does not pass: no connection to the gateway; try another network");
		});
		await Promise.race([session.ready, late]);
		const { datagrams } = session;
		receive(datagrams.readable.getReader(), packets).catch(() => {});
		await send(datagrams.writable.getWriter(), datagrams.maxDatagramSize, packets);
		const until = performance.now() + ANSWERED_WITHIN;
		const isLeft = ({ sent, roundTripUs }) => sent !== void 0 && roundTripUs === null;
		while (performance.now() < until && packets.some(isLeft)) await pause$1(10);
	} finally {
		session.close();
	}
	return packets.map((packet) => packet.roundTripUs);
}
/** Sends each packet when it is due: its number, and zeroes up to its size. One that fits into no DATAGRAM is lost. */
async function send(writer, largest, packets) {
	const began = performance.now();
	for (const [number, packet] of packets.entries()) {
		const wait = began + packet.due - performance.now();
		if (wait > 0) await pause$1(wait);
		if (packet.bytes > largest) continue;
		const datagram = new Uint8Array(packet.bytes);
		new DataView(datagram.buffer).setUint16(0, number);
		packet.sent = performance.now();
		writer.write(datagram).catch(() => {});
	}
}
/** Notes the first answer to each packet. */
async function receive(reader, packets) {
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		if (value.length < 2) continue;
		const packet = packets[new DataView(value.buffer, value.byteOffset).getUint16(0)];
		if (packet?.sent === void 0 || packet.roundTripUs !== null || packet.bytes !== value.length) continue;
		packet.roundTripUs = Math.round((performance.now() - packet.sent) * 1e3);
	}
}
// src/webrtc.ts
var WebrtcMedia = class {
	#peer = new RTCPeerConnection();
	/** The tracks of the other ends. */
	received = new MediaStream();
	/** Sends this media, unless it is absent, and receives if `receives`. */
	constructor(media, receives) {
		this.#peer.ontrack = ({ track }) => this.received.addTrack(track);
		if (media) {
			const direction = receives ? "sendrecv" : "sendonly";
			media.getTracks().forEach((track) => this.#peer.addTransceiver(track, {
				direction,
				streams: [media]
			}));
		} else for (const kind of ["audio", "video"]) this.#peer.addTransceiver(kind, { direction: "recvonly" });
	}
	get state() {
		return this.#peer.connectionState;
	}
	/** The SDP of the offer. */
	async offer() {
		await this.#peer.setLocalDescription();
		return this.#peer.localDescription?.sdp;
	}
	async accept(sdp) {
		await this.#peer.setRemoteDescription({
			type: "answer",
			sdp
		});
	}
	async figures() {
		const sum = { ...NONE };
		let roundTripMs;
		(await this.#peer.getStats()).forEach((report) => {
			if (report.type === "inbound-rtp") {
				sum.received += report.packetsReceived ?? 0;
				sum.lost += report.packetsLost ?? 0;
				sum.gapMs += (report.concealedSamples ?? 0) / 48;
				sum.frozenMs += (report.totalFreezesDuration ?? 0) * 1e3;
			} else if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== void 0) roundTripMs = report.currentRoundTripTime * 1e3;
		});
		return {
			...sum,
			roundTripMs
		};
	}
	close() {
		this.#peer.close();
	}
};
// src/rtp.ts
var HEADER_BYTES = 12;
/** Bytes of VP8 in a packet: a DATAGRAM has about 1,150 bytes on a new connection. */
var FRAGMENT_BYTES = 1e3;
/** The first byte of a payload descriptor: the packet begins a frame. */
var STARTS = 16;
/** The type of RTCP packets with feedback on a payload. */
var PAYLOAD_FEEDBACK = 206;
var PICTURE_LOSS = 1;
/** The packets of one stream. Sequence numbers continue over connections. */
var PacketWriter = class {
	type;
	#ssrc = random32();
	#sequence = random32() & 65535;
	constructor(type) {
		this.type = type;
	}
	write(timestamp, payload, marker) {
		const packet = new Uint8Array(HEADER_BYTES + payload.length);
		const header = new DataView(packet.buffer);
		header.setUint8(0, 128);
		header.setUint8(1, this.type | (marker ? 128 : 0));
		header.setUint16(2, this.#sequence);
		header.setUint32(4, timestamp >>> 0);
		header.setUint32(8, this.#ssrc);
		packet.set(payload, HEADER_BYTES);
		this.#sequence = this.#sequence + 1 & 65535;
		return packet;
	}
	/** The packets of a frame of VP8. */
	*writeFrame(timestamp, frame) {
		for (let at = 0; at < frame.length; at += FRAGMENT_BYTES) {
			const part = frame.subarray(at, at + FRAGMENT_BYTES);
			const payload = new Uint8Array(1 + part.length);
			payload[0] = at === 0 ? STARTS : 0;
			payload.set(part, 1);
			yield this.write(timestamp, payload, at + part.length === frame.length);
		}
	}
};
/** Reads a packet of RTP, and returns none for other bytes. */
function readPacket(bytes) {
	if (bytes.length < HEADER_BYTES || bytes[0] >> 6 !== 2) return;
	const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
	let start = HEADER_BYTES + 4 * (bytes[0] & 15);
	if (bytes[0] & 16) {
		if (bytes.length < start + 4) return;
		start += 4 + 4 * header.getUint16(start + 2);
	}
	const padding = bytes[0] & 32 ? bytes[bytes.length - 1] : 0;
	if (start + padding > bytes.length) return;
	return {
		type: bytes[1] & 127,
		marker: bytes[1] >= 128,
		sequence: header.getUint16(2),
		timestamp: header.getUint32(4),
		ssrc: header.getUint32(8),
		payload: bytes.subarray(start, bytes.length - padding)
	};
}
/** True for RTCP (RFC 5761, section 4). */
function isRtcp(bytes) {
	return bytes[1] >= 192 && bytes[1] <= 223;
}
/** A part of a frame of VP8, without its descriptor. */
function readFragment(payload) {
	const [first, extension] = payload;
	if (first === void 0) return;
	let length = 1;
	if (first & 128) {
		if (extension === void 0) return;
		length += 1;
		if (extension & 128) length += payload[length] & 128 ? 2 : 1;
		if (extension & 64) length += 1;
		if (extension & 48) length += 1;
	}
	return {
		starts: (first & STARTS) !== 0 && (first & 7) === 0,
		part: payload.subarray(length)
	};
}
/** Asks the sender of a stream for a key frame. */
function pictureLoss(ssrc) {
	const packet = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(12));
	packet.setUint8(0, 129);
	packet.setUint8(1, PAYLOAD_FEEDBACK);
	packet.setUint16(2, 2);
	packet.setUint32(8, ssrc);
	return new Uint8Array(packet.buffer);
}
/** True if a compound packet of RTCP asks for a key frame. */
function asksForKeyFrame(bytes) {
	const packet = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
	for (let at = 0; at + 4 <= bytes.length; at += 4 + 4 * packet.getUint16(at + 2)) if ((packet.getUint8(at) & 31) === PICTURE_LOSS && packet.getUint8(at + 1) === PAYLOAD_FEEDBACK) return true;
	return false;
}
function random32() {
	return crypto.getRandomValues(/* @__PURE__ */ new Uint32Array(1))[0];
}
// src/receiver.ts
/** Audio is played this long after its arrival: the jitter that is hidden. */
var DELAY_S = .06;
/** A longer pause between pictures is a freeze. */
var FREEZE_MS = 200;
/** Least time between requests for a key frame. */
var REQUEST_EVERY_MS = 300;
/** Video without packets for this long gives way to another stream. */
var IDLE_MS = 1e3;
/** Streams at a time. Packets of a further one are dropped, unless another is idle. */
var STREAMS_MAX = 32;
var Receiver = class {
	#figures = { ...NONE };
	/** The pictures of the stream that began last, or of another while that one is idle. */
	pictures = new MediaStream();
	#streams = /* @__PURE__ */ new Map();
	#shown;
	#context = new AudioContext({ sampleRate: 48e3 });
	#generator = new MediaStreamTrackGenerator({ kind: "video" });
	#writer = this.#generator.writable.getWriter();
	#requestKeyFrame;
	#failed;
	constructor(requestKeyFrame, failed) {
		this.pictures.addTrack(this.#generator);
		[this.#requestKeyFrame, this.#failed] = [requestKeyFrame, failed];
	}
	/** A pause that lasts is part of the gap, unless another stream is heard. */
	figures() {
		const voices = [...this.#streams.values()].filter((stream) => stream instanceof AudioStream);
		const pause = voices.length ? Math.min(...voices.map((voice) => voice.pauseMs())) : 0;
		return {
			...this.#figures,
			gapMs: this.#figures.gapMs + pause
		};
	}
	receive(packet) {
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
		this.#context.close();
	}
	#begin({ type, ssrc }, now) {
		if (type !== 111 && type !== 96) return;
		if (this.#streams.size === STREAMS_MAX) this.#removeIdle(now);
		if (this.#streams.size === STREAMS_MAX) return;
		let stream;
		if (type === 111) stream = new AudioStream(this.#context, this.#figures, this.#failed);
		else {
			const show = (frame) => {
				this.#writer.write(frame).catch(() => frame.close());
			};
			stream = new VideoStream(show, () => this.#requestKeyFrame(ssrc), this.#figures, this.#failed);
			this.#show(stream);
		}
		this.#streams.set(ssrc, stream);
		return stream;
	}
	#show(stream) {
		this.#shown?.hide();
		stream.isShown = true;
		this.#shown = stream;
	}
	#removeIdle(now) {
		this.#streams.forEach((stream, ssrc) => {
			if (now <= stream.heardAt + IDLE_MS) return;
			stream.close();
			this.#streams.delete(ssrc);
		});
	}
};
/** Counts received and lost packets by their sequence numbers. */
var Sequence = class {
	figures;
	#last;
	constructor(figures) {
		this.figures = figures;
	}
	/** The number of packets that are missing before this one; `undefined` for a late one, which is no longer used. */
	next({ sequence }) {
		const step = this.#last === void 0 ? 1 : sequence - this.#last & 65535;
		this.figures.received += 1;
		if (step === 0 || step >= 32768) {
			this.figures.lost -= step === 0 ? 0 : 1;
			return;
		}
		this.#last = sequence;
		this.figures.lost += step - 1;
		return step - 1;
	}
};
var AudioStream = class {
	context;
	figures;
	failed;
	heardAt = 0;
	#decoder;
	#sequence;
	/** The time of playing of RTP timestamp 0, seconds. */
	#origin;
	#playedUntil;
	#beganAt;
	constructor(context, figures, failed) {
		this.context = context;
		this.figures = figures;
		this.failed = failed;
		this.#sequence = new Sequence(figures);
		this.#beganAt = context.currentTime;
	}
	receive(packet) {
		if (this.#sequence.next(packet) === void 0) return;
		if (this.#decoder?.state !== "configured") this.#decoder = this.#open();
		const timestamp = packet.timestamp * 1e3 / 48;
		this.#decoder.decode(new EncodedAudioChunk({
			type: "key",
			timestamp,
			data: packet.payload
		}));
	}
	close() {
		if (this.#decoder?.state === "configured") this.#decoder.close();
	}
	/** The time since the end of its audio, or since its first packet if none was played. */
	pauseMs() {
		return 1e3 * Math.max(0, this.context.currentTime - (this.#playedUntil ?? this.#beganAt));
	}
	#open() {
		const decoder = new AudioDecoder({
			output: (samples) => this.#play(samples),
			error: this.failed
		});
		decoder.configure({
			codec: "opus",
			sampleRate: 48e3,
			numberOfChannels: 1
		});
		return decoder;
	}
	#play(samples) {
		const { numberOfFrames, sampleRate, numberOfChannels, timestamp } = samples;
		const buffer = this.context.createBuffer(numberOfChannels, numberOfFrames, sampleRate);
		for (let channel = 0; channel < numberOfChannels; channel += 1) {
			const plane = new Float32Array(numberOfFrames);
			samples.copyTo(plane, {
				planeIndex: channel,
				format: "f32-planar"
			});
			buffer.copyToChannel(plane, channel);
		}
		samples.close();
		const now = this.context.currentTime;
		const at = timestamp / 1e6;
		const ahead = this.#origin === void 0 ? -1 : this.#origin + at - now;
		if (ahead < 0 || ahead > 1) this.#origin = now + DELAY_S - at;
		const start = this.#origin + at;
		if (this.#playedUntil !== void 0) this.figures.gapMs += Math.max(0, start - this.#playedUntil) * 1e3;
		this.#playedUntil = start + buffer.duration;
		const source = new AudioBufferSourceNode(this.context, { buffer });
		source.connect(this.context.destination);
		source.start(start);
	}
};
var VideoStream = class {
	show;
	requestKeyFrame;
	figures;
	failed;
	heardAt = 0;
	isShown = false;
	#decoder;
	#sequence;
	/** The parts of the frame that is arriving; `undefined` until the next frame begins. */
	#parts;
	/** Frames that depend on a missing one are not decoded. */
	#awaitsKeyFrame = true;
	#requestedAt = 0;
	#shownAt;
	constructor(show, requestKeyFrame, figures, failed) {
		this.show = show;
		this.requestKeyFrame = requestKeyFrame;
		this.figures = figures;
		this.failed = failed;
		this.#sequence = new Sequence(figures);
	}
	receive(packet) {
		const missing = this.#sequence.next(packet);
		if (missing === void 0 || !this.isShown) return;
		const isOpen = this.#decoder?.state === "configured";
		if (missing || !isOpen) [this.#parts, this.#awaitsKeyFrame] = [void 0, true];
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
		[this.isShown, this.#shownAt] = [false, void 0];
		this.close();
	}
	#open() {
		const decoder = new VideoDecoder({
			output: (frame) => this.#display(frame),
			error: this.failed
		});
		decoder.configure({
			codec: "vp8",
			optimizeForLatency: true
		});
		return decoder;
	}
	#decode(rtpTime, parts) {
		this.#parts = void 0;
		const isKey = ((parts[0]?.[0] ?? 1) & 1) === 0;
		if (this.#awaitsKeyFrame && !isKey) return;
		const data = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
		let at = 0;
		for (const part of parts) {
			data.set(part, at);
			at += part.length;
		}
		const timestamp = rtpTime * 1e3 / 90;
		this.#awaitsKeyFrame = true;
		this.#decoder.decode(new EncodedVideoChunk({
			type: isKey ? "key" : "delta",
			timestamp,
			data
		}));
		this.#awaitsKeyFrame = false;
	}
	#request() {
		const now = performance.now();
		if (now < this.#requestedAt + REQUEST_EVERY_MS) return;
		this.#requestedAt = now;
		this.requestKeyFrame();
	}
	#display(frame) {
		const now = performance.now();
		const pause = this.#shownAt === void 0 ? 0 : now - this.#shownAt;
		if (pause > FREEZE_MS) this.figures.frozenMs += pause;
		this.#shownAt = now;
		this.show(frame);
	}
};
// src/sender.ts
var AUDIO_BITRATE = 32e3;
var VIDEO_BITRATE = 5e5;
/** Frames that wait for the encoder; a later one is left out. */
var QUEUE_MAX = 2;
/** Least time between key frames that receivers ask for. */
var KEY_FRAME_EVERY_MS = 300;
var Sender = class {
	#send;
	#readers = [];
	#encoders = [];
	#wantsKeyFrame = true;
	#keyFrameAt = 0;
	constructor(media, send, failed) {
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
	async #sendAudio(track, error) {
		const writer = new PacketWriter(111);
		const output = (chunk) => {
			this.#send(writer.write(rtpTime(chunk, 48), bytesOf(chunk), false));
		};
		const encoder = new AudioEncoder({
			output,
			error
		});
		this.#encoders.push(encoder);
		for await (const samples of this.#read(track)) {
			if (encoder.state === "unconfigured") {
				const { sampleRate, numberOfChannels } = samples;
				encoder.configure({
					codec: "opus",
					sampleRate,
					numberOfChannels,
					bitrate: AUDIO_BITRATE
				});
			}
			if (encoder.state === "configured") encoder.encode(samples);
			samples.close();
		}
	}
	async #sendVideo(track, error) {
		const writer = new PacketWriter(96);
		const output = (chunk) => {
			for (const packet of writer.writeFrame(rtpTime(chunk, 90), bytesOf(chunk))) this.#send(packet);
		};
		const encoder = new VideoEncoder({
			output,
			error
		});
		this.#encoders.push(encoder);
		for await (const frame of this.#read(track)) {
			if (encoder.state === "unconfigured") {
				const { codedWidth: width, codedHeight: height } = frame;
				encoder.configure({
					codec: "vp8",
					width,
					height,
					bitrate: VIDEO_BITRATE,
					latencyMode: "realtime"
				});
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
	async *#read(track) {
		const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
		this.#readers.push(reader);
		for (;;) {
			const { value, done } = await reader.read();
			if (done) return;
			yield value;
		}
	}
};
/** The time of a chunk, which counts microseconds, in units of RTP. */
function rtpTime({ timestamp }, rate) {
	return Math.round(timestamp * rate / 1e3);
}
function bytesOf(chunk) {
	const bytes = new Uint8Array(chunk.byteLength);
	chunk.copyTo(bytes);
	return bytes;
}
// src/webtransport.ts
var WebtransportMedia = class {
	#datagrams;
	#receiver;
	#sender;
	/** Sends this media, unless it is absent. */
	constructor(destination, media, failed) {
		const send = (packet) => this.#datagrams.send(packet);
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
	#receive(bytes) {
		if (isRtcp(bytes)) {
			if (asksForKeyFrame(bytes)) this.#sender?.requestKeyFrame();
			return;
		}
		const packet = readPacket(bytes);
		if (packet) this.#receiver.receive(packet);
	}
};
// src/page.ts
var REFRESH_MS = 250;
/** Interfaces of a call by WebTransport. */
var NEEDED = [...[
	"WebTransport",
	"AudioEncoder",
	"AudioDecoder",
	"VideoEncoder",
	"VideoDecoder"
], ...["MediaStreamTrackProcessor", "MediaStreamTrackGenerator"]];
/** The words for each advice. */
var ADVICE = {
	"suspended": "The call is suspended.",
	"switch-network": "Your network is too bad for a call: use another one, such as Wi-Fi.",
	"lower-quality": "The connection is bad: send and watch with a lower resolution.",
	"audio-only": "The connection carries voice only: turn your camera off."
};
/** Time between attempts to call while the gateway starts. */
var RETRY_MS = 500;
var element = (id) => document.getElementById(id);
var pause = (ms) => new Promise((wake) => setTimeout(wake, ms));
var own = element("own");
var remote = element("remote");
var leaveButton = element("leave");
var probeButton = element("probe");
var killButtons = ["kill-node", "kill-gateway"].map((id) => element(id));
var call;
/** The result of a probe for the next call, and the time until which the gateway takes it. */
var probed;
var said = "";
/** An error that the gateway or the page's server told. */
var Refused = class extends Error {
	status;
	constructor(status, message) {
		super(message);
		this.status = status;
	}
};
async function ask(method, path, body) {
	const response = await fetch(path, {
		method,
		body: body && JSON.stringify(body),
		keepalive: method === "DELETE"
	});
	const text = await response.text();
	const answer = text ? JSON.parse(text) : {};
	if (!response.ok) throw new Refused(response.status, answer.error ?? text);
	return answer;
}
/** Adds a line to the log, unless it repeats the last one. */
function say(text) {
	if (text === said) return;
	said = text;
	const line = document.createElement("li");
	line.textContent = `${(/* @__PURE__ */ new Date()).toLocaleTimeString()}  ${text}`;
	element("log").prepend(line);
}
function show(id, text) {
	element(id).textContent = text;
}
/** Shows the advice of the gateway, or none. */
function advise(advice) {
	const banner = element("advice");
	banner.hidden = !advice;
	banner.textContent = advice ? `${ADVICE[advice.advice] ?? advice.advice} (${advice.cause})` : "";
}
async function openCamera() {
	own.srcObject ??= await navigator.mediaDevices.getUserMedia({
		audio: true,
		video: true
	});
	return own.srcObject;
}
/** Measures the path to the gateway, and shows it. The next call carries the result. */
async function testNetwork() {
	if (!("WebTransport" in window)) throw new Error("this browser lacks WebTransport, which the test needs; Chromium has it");
	probed = void 0;
	show("verdict", "testing…");
	const opened = await ask("POST", "/probes");
	const roundTrips = await exchange(opened);
	const report = await ask("PUT", `/probes/${opened.id}`, { round_trips_us: roundTrips });
	probed = {
		signed: report.signed,
		until: performance.now() + report.valid_ms
	};
	const percent = (ppm) => `${(ppm / 1e4).toFixed(1)} %`;
	show("verdict", report.verdict);
	show("probe-delay", `${(report.round_trip_us / 1e3).toFixed(1)} ms`);
	show("probe-jitter", `${(report.jitter_us / 1e3).toFixed(1)} ms`);
	show("probe-loss", `${percent(report.loss_up_ppm)} up, ${percent(report.loss_down_ppm)} down`);
	show("probe-rate", `${report.rate_kbps} kbit/s`);
	show("probe-mtu", report.mtu ? `${report.mtu} bytes` : "none");
	show("probe-r", (report.r_factor / 100).toFixed(0));
	show("probe-video", report.video_lines ? `${report.video_lines}p` : "none");
	element("probe-figures").hidden = false;
}
/** The result of a probe, for one offer. */
function takeProbe() {
	const result = probed && performance.now() < probed.until ? probed.signed : void 0;
	probed = void 0;
	return result;
}
/** Opens a session in the room. */
async function join(role, room, transport) {
	const media = role === "watch" ? void 0 : await openCamera();
	call = await (transport === "webrtc" ? joinByWebrtc(role, room, media) : joinByWebtransport(role, room, media));
	show("since", "this call began");
	leaveButton.disabled = false;
	killButtons.forEach((button) => button.disabled = false);
}
async function joinByWebrtc(role, room, sent) {
	const media = new WebrtcMedia(sent, role !== "publish");
	let session;
	try {
		remote.srcObject = media.received;
		const { id, answer } = await ask("POST", "/sessions", {
			role,
			room,
			offer: await media.offer(),
			probe: takeProbe()
		});
		session = id;
		await media.accept(answer);
		return {
			role,
			room,
			transport: "webrtc",
			media,
			session: id,
			samples: [NONE, NONE],
			since: NONE
		};
	} catch (error) {
		media.close();
		if (session) end(session);
		throw error;
	}
}
async function joinByWebtransport(role, room, sent) {
	const missing = NEEDED.filter((name) => !(name in window));
	if (missing.length) throw new Error(`this browser lacks ${missing.join(", ")}; Chromium has them`);
	const { id, webtransport } = await ask("POST", "/sessions", {
		role,
		room,
		probe: takeProbe()
	});
	try {
		const media = new WebtransportMedia(webtransport, sent, (error) => say(`${error}`));
		remote.srcObject = media.received;
		return {
			role,
			room,
			transport: "webtransport",
			media,
			session: id,
			samples: [NONE, NONE],
			since: NONE
		};
	} catch (error) {
		end(id);
		throw error;
	}
}
/** Ends a session at the gateway, unless the gateway lost it. */
function end(session) {
	ask("DELETE", `/sessions/${session}`).catch(() => {});
}
/** Ends the call, and its session unless the gateway lost it. */
function leave(hasSession) {
	if (!call) return;
	call.media.close();
	if (hasSession) end(call.session);
	call = void 0;
	advise();
	leaveButton.disabled = true;
	killButtons.forEach((button) => button.disabled = true);
}
function stopCamera() {
	own.srcObject?.getTracks().forEach((track) => track.stop());
	own.srcObject = remote.srcObject = null;
}
/** Calls until the gateway answers. */
async function joinAgain({ role, room, transport }) {
	leave(false);
	probed = void 0;
	for (;;) try {
		await join(role, room, transport);
		show("since", "this call began; the gateway's death ended the one before");
		return say("called again");
	} catch (error) {
		if (!(error instanceof Refused && error.status === 503)) throw error;
		await pause(RETRY_MS);
	}
}
/** Shows the call as it is now. */
async function refresh(call) {
	const now = await call.media.figures();
	call.samples = [call.samples[1], now];
	const since = (figure) => Math.max(now[figure] - call.since[figure], 0);
	const lost = since("lost");
	show("state", call.media.state);
	show("round-trip", now.roundTripMs === void 0 ? "" : `${now.roundTripMs.toFixed(1)} ms`);
	show("loss", `${(100 * lost / Math.max(lost + since("received"), 1)).toFixed(2)} %`);
	show("gap", `${Math.round(since("gapMs"))} ms`);
	show("freeze", `${Math.round(since("frozenMs"))} ms`);
}
/** Shows the node and the gateway of the call. Calls again if another process of the gateway runs. */
async function locate(now) {
	let carriers;
	try {
		carriers = await ask("GET", `/sessions/${now.session}`);
	} catch (error) {
		if (error instanceof Refused && error.status === 404) return joinAgain(now);
		return show("gateway", "starts");
	}
	const { node, gateway, kills, killed, advice } = carriers;
	now.gateway ??= gateway;
	if (now.gateway !== gateway) return joinAgain(now);
	now.kills ??= kills;
	if (kills > now.kills) {
		now.kills = kills;
		now.since = now.samples[0];
		show("since", `the kill of ${killed}`);
	}
	if (now === call) advise(advice);
	show("node", node ?? "none");
	show("gateway", `${gateway}`);
	if (node && node !== now.node) {
		say(now.node ? `${node} carries the call in place of ${now.node}` : `${node} carries the call`);
		now.node = node;
	}
}
async function kill(path, name) {
	await ask("POST", path);
	say(`${name} killed`);
}
function attempt(action) {
	action.catch((error) => say(`${error instanceof Error ? error.message : error}`));
}
element("join").addEventListener("submit", (event) => {
	event.preventDefault();
	const role = event.submitter.value;
	leave(true);
	const transport = element("transport").value;
	attempt(join(role, element("room").value, transport));
});
probeButton.addEventListener("click", () => {
	probeButton.disabled = true;
	testNetwork().catch((error) => show("verdict", `${error instanceof Error ? error.message : error}`)).finally(() => probeButton.disabled = false);
});
leaveButton.addEventListener("click", () => {
	leave(true);
	stopCamera();
	show("state", "none");
});
killButtons[0]?.addEventListener("click", () => {
	if (call?.node) attempt(kill(`/nodes/${encodeURIComponent(call.node)}/kill`, call.node));
});
killButtons[1]?.addEventListener("click", () => attempt(kill("/gateway/kill", "gateway")));
addEventListener("pagehide", () => leave(true));
for (;;) {
	await pause(REFRESH_MS);
	if (!call) continue;
	try {
		await refresh(call);
		await locate(call);
	} catch (error) {
		say(`${error}`);
	}
}
