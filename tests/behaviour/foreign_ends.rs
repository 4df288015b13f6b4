//! Calls of clients that are other programs, through the faults of a group: their own SRTP decides which packets it accepts, and a capture
//! beside them names those that it does not.

mod turn;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_contract::offers::OfferIngress;
use evenkeel_lab::clock;
use evenkeel_lab::process::ChildProcess;
use evenkeel_lab::sample_node::WEBRTC_RETRANSMISSIONS;
use evenkeel_testkit::capture::Capture;
use evenkeel_testkit::client_packets::{
    AcceptedPacket, CapturedIndices, ClientContent, ClientPacket, RefusedPacket, refused,
};
use evenkeel_testkit::clients::{browser_packages, python};
use evenkeel_testkit::{not_measured, required};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::harness::{
    GatewayProcess, Hosts, NODE, Node, TIMEOUT, await_replica, has_replica, ids, wait_until,
};

const ROOM: &str = "room";
/// The port of the group's listener.
const PORT: u16 = 7_000;
/// Packets of each kind that each end receives between faults.
const PACKETS: u64 = 25;
/// Frames that pages decode meanwhile; a busy machine decodes few.
const FRAMES: u64 = 5;
/// A takeover loses a few packets of those that a report is about.
const LOSS_PPM_MAX: u64 = 150_000;
/// A program has processed what reached it this long before a report of an end.
const PROCESSED_AFTER_NS: u64 = 2_000_000_000;
/// A packet that a gateway sent before a fault reaches its client within this time: nothing delays it.
const ON_ITS_WAY_NS: u64 = 1_000_000;

/// States of a transport that passes packets (W3C webrtc, `RTCIceConnectionState`).
const CONNECTED: [&str; 2] = ["connected", "completed"];

/// Two ends in a call. Ended in this order.
struct ForeignCall {
    program: ChildProcess,
    owner: GatewayProcess,
    standby: GatewayProcess,
    nodes: [Node; 2],
    capture: Capture<ClientPacket>,
    place: Hosts,
    /// The time when the call had begun, and those of faults: nanoseconds since the Unix epoch.
    begun_ns: u64,
    faults_ns: Vec<u64>,
    /// Lines of output, and datagrams that found no space in a client's socket, before the call had begun.
    lines_before: usize,
    dropped_before: u64,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

/// The last line of output.
fn last(lines: &[String]) -> Option<Value> {
    serde_json::from_str(lines.last()?).ok()
}

/// All lines of output.
fn read_all(lines: &[String]) -> Vec<Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The ends of phones are a list, those of WebRTC clients have the field `ends`.
fn ends(line: &Value) -> &[Value] {
    let ends = line.as_array().or_else(|| line["ends"].as_array());
    ends.map_or(&[], Vec::as_slice)
}

/// The packets that all ends received, by kind.
fn received(line: &Value) -> Vec<u64> {
    let counts = ends(line).iter().flat_map(|end| match end["received"].as_array() {
        Some(counts) => counts.clone(),
        None => vec![end["decrypted"].clone()],
    });
    counts.map(|count| count.as_u64().unwrap_or_default()).collect()
}

/// The least of each count that [`received`] returns. Of pages the third one is frames.
fn wanted(line: &Value) -> Vec<u64> {
    let least = [PACKETS, PACKETS, FRAMES];
    let counts = ends(line).iter().map(|end| end["received"].as_array().map_or(1, Vec::len));
    counts.flat_map(|counts| least.into_iter().take(counts)).collect()
}

/// The packets of RTP that SRTP accepted since the line before.
fn accepted(line: &Value) -> Vec<AcceptedPacket> {
    let of_ends = ends(line).iter().map(|end| &end["accepted"]);
    let lists = of_ends.chain([&line["accepted"]]).filter(|list| list.is_array());
    let read =
        |list: &Value| -> Vec<AcceptedPacket> { serde_json::from_value(list.clone()).unwrap() };
    lists.flat_map(read).collect()
}

/// Datagrams that found no space in a socket of this host.
fn dropped_by(place: &Hosts) -> u64 {
    let _inside = place.client.enter().unwrap();
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let mut fields = names.split(' ').zip(values.split(' '));
    let (_, value) = fields.find(|(name, _)| *name == "RcvbufErrors").unwrap();
    value.parse().unwrap()
}

impl ForeignCall {
    /// Starts a group before two nodes, and the program of both ends, and waits until each receives media.
    fn begin(
        identity: &str,
        program: impl FnOnce(&Hosts, &mut GatewayProcess) -> Command,
    ) -> ForeignCall {
        let place = Hosts::lay();
        let nodes = ["east-a1", "east-b1"].map(|name| {
            let _inside = place.node.enter().unwrap();
            Node::with(name, &format!("{NODE}:0"), |options| {
                options.retransmissions = WEBRTC_RETRANSMISSIONS.into();
            })
        });
        let text: String = nodes.iter().map(Node::text).collect();
        let [mut owner, standby] = place.group_with(&text, |_, world| {
            world.listens = world.listens.replace("declared", identity);
        });
        let mut command = program(&place, &mut owner);
        let _inside = place.client.enter().unwrap();
        let capture = Capture::of_received(|datagram, packets| {
            packets.extend(ClientPacket::read(datagram, PORT));
        });
        let capture = capture.unwrap();
        let program = ChildProcess::start("clients", &mut command, owner.folder()).unwrap();
        drop(_inside);
        // A browser ends with its driver.
        let program = program.with_grace(TIMEOUT);
        let mut call = ForeignCall {
            program,
            owner,
            standby,
            nodes,
            capture,
            place,
            begun_ns: 0,
            faults_ns: Vec::new(),
            lines_before: 0,
            dropped_before: 0,
        };
        call.await_media("the call begins", None);
        call.lines_before = call.program.lines().len();
        call.dropped_before = dropped_by(&call.place);
        call.begun_ns = clock::now_ns();
        assert_eq!(ids(&mut call.owner).len(), 2);
        call
    }

    fn line(&self) -> Value {
        last(&self.program.lines()).unwrap()
    }

    /// Waits until each end has received more of each kind.
    fn await_media(&self, what: &str, before: Option<&Value>) {
        let before = before.map(received);
        let came = self.program.wait_for(what, 2 * TIMEOUT, |lines| {
            let line = last(lines)?;
            let counts = received(&line);
            let goals = wanted(&line).into_iter().enumerate().map(|(place, least)| {
                let before = before.as_ref().and_then(|before| before.get(place));
                before.copied().unwrap_or_default() + least
            });
            let is_whole = !counts.is_empty() && goals.zip(&counts).all(|(goal, is)| *is >= goal);
            is_whole.then_some(())
        });
        came.unwrap_or_else(|error| panic!("{error}; {:?}", self.program.lines().last()));
    }

    /// A fault happens, and each end receives media afterwards.
    fn survive(&mut self, what: &str, fault: impl FnOnce(&mut ForeignCall)) {
        self.faults_ns.push(clock::now_ns());
        fault(self);
        let before = self.line();
        self.await_media(what, Some(&before));
        println!("{what}: {:?} before, {:?}", received(&before), received(&self.line()));
    }

    /// The node that carries the call dies.
    fn survive_node_death(&mut self) {
        let rooms = self.owner.read("/v1/rooms");
        let carries = rooms["rooms"][0]["route"][0]["node"].as_str().unwrap().to_owned();
        self.survive("a node's death", |call| {
            call.nodes.iter_mut().find(|node| node.name == carries).unwrap().kill();
        });
        let rooms = self.owner.read("/v1/rooms");
        assert_ne!(rooms["rooms"][0]["route"][0]["node"], *carries);
    }

    /// Another process continues the owner. Returns the last line of output when it had begun.
    fn survive_upgrade(&mut self) -> Value {
        let mut begun = Value::Null;
        self.survive("an upgrade", |call| {
            let upgraded = call.owner.upgrade(json!({})).join().unwrap().unwrap();
            call.owner.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
            assert_eq!(upgraded["sessions"], 2, "{upgraded}");
            begun = call.line();
        });
        begun
    }

    /// The number of times that the standby has taken over.
    fn takeovers(&self) -> usize {
        self.standby.process.log().matches("sessions continue at this gateway").count()
    }

    /// Waits until the standby has all records. Returns false if it has taken over since by itself.
    fn keeps_its_owner(&mut self, takeovers: usize) -> bool {
        wait_until("the standby has all records", || {
            self.takeovers() > takeovers || has_replica(&mut self.owner)
        });
        self.takeovers() == takeovers
    }

    /// The owner is killed, and its standby takes over.
    fn survive_takeover(&mut self) {
        self.survive("a takeover", |call| kill(call.owner.pid(), Signal::SIGKILL).unwrap());
        self.assert_taken_over();
    }

    fn assert_taken_over(&mut self) {
        assert_eq!(ids(&mut self.standby).len(), 2);
        assert!(self.place.has_address(1));
    }

    /// Waits until the standby has read a report of each client. Numbers that the takeover skipped are no loss, for which video would stop.
    fn await_reports_after_takeover(&mut self) {
        wait_until("both clients have reported", || {
            let sessions = self.standby.read("/v1/sessions");
            let sessions = sessions["sessions"].as_array().unwrap().iter();
            let losses: Option<Vec<u64>> =
                sessions.map(|session| session["measures"]["loss-down"].as_u64()).collect();
            let worst = losses.as_ref().and_then(|losses| losses.iter().max());
            assert!(worst.is_none_or(|ppm| *ppm < LOSS_PPM_MAX), "{losses:?}");
            worst.is_some()
        });
    }

    /// The time until which the ends have processed what reached them, by their next report: nanoseconds since the Unix epoch.
    fn processed_ns(&self) -> u64 {
        let before = self.program.lines().len();
        let line = self
            .program
            .wait_for("a further line", TIMEOUT, |lines| lines.get(before..).and_then(last));
        let line = line.unwrap_or_else(|error| panic!("{error}"));
        let at_ms =
            |end: &Value| end["at_ms"].as_f64().unwrap_or_else(|| panic!("no at_ms in {end}"));
        let reported_ms = ends(&line).iter().map(at_ms).min_by(f64::total_cmp);
        let reported_ns = reported_ms.expect("the line has both ends") * 1e6;
        (reported_ns as u64).saturating_sub(PROCESSED_AFTER_NS)
    }

    /// Both ends have been connected since the call had begun, by each report.
    fn assert_stays_connected(&self) {
        let lines = self.program.lines();
        let since_begun: Vec<Value> = read_all(&lines[self.lines_before..]);
        assert!(since_begun.iter().all(|line| ends(line).len() == 2));
        // Phones have no transport with states.
        let of_webrtc = since_begun.iter().filter_map(|line| line["ends"].as_array()).flatten();
        let states =
            of_webrtc.flat_map(|end| end["states"].as_array().unwrap_or_else(|| panic!("{end}")));
        let others = states.filter(|state| !CONNECTED.iter().any(|known| state == known));
        let others: BTreeSet<String> = others.map(Value::to_string).collect();
        assert!(others.is_empty(), "{others:?}");
    }

    /// Each packet that reached an end was accepted there, except those that were on their way at a fault, and had an index of its own. No
    /// end connected again.
    fn assert_accepted(&self) {
        let processed_ns = self.processed_ns();
        let lines = self.program.lines();
        let all: Vec<AcceptedPacket> = read_all(&lines).iter().flat_map(accepted).collect();
        let (refused, again, indices) = self.capture.read(|packets| {
            let since = packets.iter().filter(|packet| packet.at_ns >= self.begun_ns);
            (
                refused(packets, &all, self.begun_ns, processed_ns),
                since.filter(|packet| packet.content == ClientContent::Dtls).count(),
                CapturedIndices::of(packets, self.capture.lost()),
            )
        });
        for packet in &refused {
            let is_on_its_way = packet.was_on_its_way(&self.faults_ns, ON_ITS_WAY_NS);
            println!("{packet}; on its way at a fault: {is_on_its_way}");
        }
        println!("{} packets refused, {} accepted; {indices:?}", refused.len(), all.len());
        let is_unexplained =
            |packet: &&RefusedPacket| !packet.was_on_its_way(&self.faults_ns, ON_ITS_WAY_NS);
        let unexplained = refused.iter().filter(is_unexplained).count() as u64;
        let dropped = dropped_by(&self.place) - self.dropped_before;
        if (1..=dropped).contains(&unexplained) {
            not_measured(&format!("{dropped} datagrams found no space in a client's socket"));
        } else {
            assert_eq!(unexplained, 0, "packets refused without a fault");
        }
        assert_eq!((indices.reused, indices.frames_lost, indices.clients), (0, 0, 2));
        assert_eq!(again, 0, "datagrams of another handshake");
        self.assert_stays_connected();
    }
}

/// A call through the death of a node, an upgrade and a takeover.
fn call_survives_all(mut command: Command) {
    let mut call = ForeignCall::begin("stun", |_, owner| {
        command.arg(owner.folder().join("admin.sock")).arg(ROOM);
        command
    });
    call.survive_node_death();
    let takeovers = call.takeovers();
    call.survive_upgrade();
    if !call.keeps_its_owner(takeovers) {
        not_measured("the standby took over by itself: a busy machine let the owner stall");
        return;
    }
    call.survive_takeover();
    call.await_reports_after_takeover();
    call.assert_accepted();
}

#[required(Namespaces, Chromium)]
#[test]
fn call_of_chromium_survives_each_fault() {
    let mut command = Command::new("node");
    command.arg(script("browser/call.js")).arg(browser_packages());
    command.args(["--recorded", "chromium", "chromium"]);
    call_survives_all(command);
}

#[required(Namespaces, Aiortc)]
#[test]
fn call_of_aiortc_survives_each_fault() {
    let mut command = Command::new(python());
    command.arg(script("webrtc_call.py")).arg("aiortc");
    call_survives_all(command);
}

/// A key of AES_CM_128_HMAC_SHA1_80.
const KEY: (&str, &str) = ("AES_CM_128_HMAC_SHA1_80", "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz");

/// Two phones with SDES keys, near a roll-over of the numbers that one of them sends, and of those that it receives. `near`: what they do
/// there.
fn phones(near: &str, place: &Hosts, owner: &mut GatewayProcess) -> Command {
    let (suite, key) = KEY;
    let mut command = Command::new(python());
    command.arg(script("srtp_ends.py")).args(["--rollover", near, suite]);
    for port in [40_000, 40_002] {
        let client = (place.client.address(), port).into();
        let offer = GatewayProcess::offer(ROOM, OfferIngress::declared(client));
        let mut offer = serde_json::to_value(offer).unwrap();
        offer["srtp"] = json!({"crypto": [format!("1 {suite} inline:{key}")]});
        let answer = owner.post("/v1/sessions", &offer);
        let crypto = answer["srtp"]["crypto"][0].as_str().unwrap_or_else(|| panic!("{answer}"));
        let own = crypto.strip_prefix(&format!("1 {suite} inline:")).unwrap();
        let gateway = answer["udp"]["addresses"][0].as_str().unwrap();
        command.args([&client.to_string(), gateway, key, own]);
    }
    command
}

/// Packets after a roll-over.
const ROLLED_OVER: i64 = 25;
/// An event within this many packets is at a roll-over.
const NEAR: i64 = 100;
/// Lines of three seconds: the standby gets a copy of the indices each second.
const HELD_LINES: usize = 150;

/// How many packets it is until the roll-over at each end; `None` while they skip.
fn rollovers_in(line: &Value) -> Option<Vec<i64>> {
    ends(line).iter().map(|end| end["rollover_in"].as_i64()).collect()
}

/// Waits until the number that the gateway receives is at most this many packets from its roll-over.
fn await_rollover(call: &ForeignCall, at_most: i64) {
    let came = call.program.wait_for("a roll-over", TIMEOUT, |lines| {
        rollovers_in(&last(lines)?).filter(|packets| packets[0] <= at_most)
    });
    let packets = came.unwrap_or_else(|error| panic!("{error}"));
    println!("the roll-overs are in {packets:?} packets");
}

/// Waits until the phones have held before the first roll-over for so long that the standby has a copy of their indices.
fn await_held(call: &ForeignCall) {
    let held = call.program.wait_for("phones that hold", TIMEOUT, |lines| {
        let since = lines.len().checked_sub(HELD_LINES)?;
        let packets = |line: &String| {
            let line: Value = serde_json::from_str(line).ok()?;
            rollovers_in(&line)
        };
        let held = packets(&lines[since])?;
        let is_held =
            held[0] > 0 && lines[since..].iter().all(|line| packets(line).as_ref() == Some(&held));
        is_held.then_some(held)
    });
    let held = held.unwrap_or_else(|error| panic!("{error}"));
    println!("the phones hold {held:?} packets before the roll-overs");
}

/// Waits until both numbers have begun again, and both ends received packets afterwards.
fn await_rolled_over(call: &ForeignCall) {
    let came = call.program.wait_for("both roll-overs", TIMEOUT, |lines| {
        let packets = rollovers_in(&last(lines)?)?;
        packets.iter().all(|packets| *packets <= -ROLLED_OVER).then_some(())
    });
    came.unwrap_or_else(|error| panic!("{error}"));
    // The numbers are those that were sent; a direction may have stopped.
    call.await_media("both directions go on", Some(&call.line()));
}

#[required(Namespaces, Pylibsrtp)]
#[test]
fn sdes_phones_survive_a_takeover_at_a_rollover() {
    let mut call = ForeignCall::begin("declared", |place, owner| phones("hold", place, owner));
    await_replica(&mut call.owner);
    await_held(&call);
    // The standby has indices from before the first roll-over, and gets packets from after it.
    call.survive("a takeover", |call| {
        kill(call.owner.pid(), Signal::SIGKILL).unwrap();
        call.program.signal(Signal::SIGUSR1).unwrap();
    });
    call.assert_taken_over();
    await_rolled_over(&call);
    call.assert_accepted();
}

#[required(Namespaces, Pylibsrtp)]
#[test]
fn sdes_phones_survive_an_upgrade_at_a_rollover() {
    let mut call = ForeignCall::begin("declared", |place, owner| phones("slow", place, owner));
    await_rollover(&call, 30);
    let begun = rollovers_in(&call.survive_upgrade()).unwrap();
    println!("the next process has begun {begun:?} packets before the roll-overs");
    await_rolled_over(&call);
    call.assert_accepted();
    if begun.iter().any(|packets| packets.abs() > NEAR) {
        not_measured(&format!("the upgrade ended {begun:?} packets before the roll-overs"));
    }
}
