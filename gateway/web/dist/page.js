// src/page.ts
var NONE = {
	received: 0,
	lost: 0,
	concealedSamples: 0,
	frozen: 0
};
var REFRESH_MS = 250;
/** Time between attempts to call while the gateway starts. */
var RETRY_MS = 500;
var element = (id) => document.getElementById(id);
var pause = (ms) => new Promise((wake) => setTimeout(wake, ms));
var own = element("own");
var remote = element("remote");
var leaveButton = element("leave");
var killButtons = ["kill-node", "kill-gateway"].map((id) => element(id));
var call;
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
function say(text) {
	const line = document.createElement("li");
	line.textContent = `${(/* @__PURE__ */ new Date()).toLocaleTimeString()}  ${text}`;
	element("log").prepend(line);
}
function show(id, text) {
	element(id).textContent = text;
}
/** Opens a session in the room. */
async function join(role, room) {
	const peer = new RTCPeerConnection();
	try {
		const kinds = ["audio", "video"];
		if (role === "watch") kinds.forEach((kind) => peer.addTransceiver(kind, { direction: "recvonly" }));
		else {
			own.srcObject ??= await navigator.mediaDevices.getUserMedia({
				audio: true,
				video: true
			});
			const media = own.srcObject;
			const direction = role === "call" ? "sendrecv" : "sendonly";
			media.getTracks().forEach((track) => peer.addTransceiver(track, {
				direction,
				streams: [media]
			}));
		}
		const received = new MediaStream();
		peer.ontrack = ({ track }) => received.addTrack(track);
		remote.srcObject = received;
		await peer.setLocalDescription();
		const { id, answer } = await ask("POST", "/sessions", {
			role,
			room,
			offer: peer.localDescription?.sdp
		});
		await peer.setRemoteDescription({
			type: "answer",
			sdp: answer
		});
		call = {
			role,
			room,
			peer,
			session: id,
			since: NONE
		};
	} catch (error) {
		peer.close();
		throw error;
	}
	leaveButton.disabled = false;
	killButtons.forEach((button) => button.disabled = false);
}
/** Ends the call, and its session unless the gateway lost it. */
function leave(hasSession) {
	if (!call) return;
	call.peer.close();
	if (hasSession) ask("DELETE", `/sessions/${call.session}`).catch(() => {});
	call = void 0;
	leaveButton.disabled = true;
	killButtons.forEach((button) => button.disabled = true);
}
function stopCamera() {
	own.srcObject?.getTracks().forEach((track) => track.stop());
	own.srcObject = remote.srcObject = null;
}
/** Calls until the gateway answers. */
async function joinAgain({ role, room }) {
	leave(false);
	for (;;) try {
		await join(role, room);
		return say("called again");
	} catch (error) {
		if (!(error instanceof Refused && error.status === 503)) throw error;
		await pause(RETRY_MS);
	}
}
async function figures(peer) {
	const sum = { ...NONE };
	let roundTrip;
	(await peer.getStats()).forEach((report) => {
		if (report.type === "inbound-rtp") {
			sum.received += report.packetsReceived ?? 0;
			sum.lost += report.packetsLost ?? 0;
			sum.concealedSamples += report.concealedSamples ?? 0;
			sum.frozen += report.totalFreezesDuration ?? 0;
		} else if (report.type === "candidate-pair" && report.nominated) roundTrip = report.currentRoundTripTime;
	});
	return {
		...sum,
		roundTrip
	};
}
/** Shows the call as it is now. */
async function refresh(call) {
	const now = await figures(call.peer);
	const since = (figure) => Math.max(now[figure] - call.since[figure], 0);
	const lost = since("lost");
	show("state", call.peer.connectionState);
	show("round-trip", now.roundTrip === void 0 ? "" : `${(now.roundTrip * 1e3).toFixed(1)} ms`);
	show("loss", `${(100 * lost / Math.max(lost + since("received"), 1)).toFixed(2)} %`);
	show("gap", `${Math.round(since("concealedSamples") / 48)} ms`);
	show("freeze", `${Math.round(since("frozen") * 1e3)} ms`);
}
/** Shows what carries the call. Calls again if another process of the gateway runs. */
async function locate(now) {
	let carriers;
	try {
		carriers = await ask("GET", `/sessions/${now.session}`);
	} catch (error) {
		if (error instanceof Refused && error.status === 404) return joinAgain(now);
		return show("gateway", "starts");
	}
	const { node, gateway } = carriers;
	now.gateway ??= gateway;
	if (now.gateway !== gateway) return joinAgain(now);
	show("node", node ?? "none");
	show("gateway", `${gateway}`);
	if (node && node !== now.node) {
		say(now.node ? `${node} carries the call in place of ${now.node}` : `${node} carries the call`);
		now.node = node;
	}
}
async function kill(path, name) {
	if (!call) return;
	call.since = await figures(call.peer);
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
	attempt(join(role, element("room").value));
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
