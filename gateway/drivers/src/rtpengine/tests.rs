//! Calls at a simulated rtpengine under a virtual clock.

mod srtp;

use std::collections::BTreeSet;

use evenkeel_dataplane::flows::Home;
use evenkeel_model::{
    FeedbackSupport, MediaDescription, MediaStream, PayloadType, RtcpPort, Srtp, StreamKind,
};

use super::*;

const NODE: NodeId = NodeId(0);
const MS: Duration = Duration::from_millis(1);

fn ng() -> SocketAddr {
    "10.0.0.9:2223".parse().unwrap()
}

/// NG requests and media leave from different addresses.
fn towards(other: SocketAddr) -> Option<IpAddr> {
    Some(if other == ng() { [10, 0, 0, 1].into() } else { [10, 7, 0, 1].into() })
}

fn facts(rtp: u16, rtcp: Option<u16>) -> SessionFacts {
    let payload = PayloadType::new(111, "opus", 48_000);
    let stream = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![payload],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    let port = if rtcp.is_some() { RtcpPort::Own } else { RtcpPort::Mux };
    let media = Arc::new(MediaDescription::new(vec![stream], port, Srtp::Plain));
    SessionFacts { room: "room".into(), labels: Arc::default(), media, ports: (rtp, rtcp) }
}

struct Pair {
    engine: RtpengineNode,
    start: Instant,
    now: Instant,
    drawn: u64,
    /// Calls that the simulated rtpengine has, and its next port.
    calls: BTreeSet<String>,
    port: u16,
    /// Requests, oldest first: command, call and SDP.
    asked: Vec<(String, String, String)>,
    /// Datagrams to rtpengine since the last refusal.
    sent: Vec<Box<[u8]>>,
    says: Option<&'static str>,
    /// The simulated rtpengine receives requests and does not answer.
    mute: bool,
    /// Number of requests to drop.
    drops: usize,
    /// The simulated rtpengine chooses other ports from now on.
    moves: bool,
    told: Vec<DriverAction>,
    srtp: NodeSrtp,
    /// Lines of its SDP for the answering side and for the offering one.
    crypto: [Vec<String>; 2],
}

fn clock(now: Instant) -> Clock {
    Clock { now, unix_us: 0 }
}

fn recorded(engine: &RtpengineNode) -> Vec<CallRecord> {
    let mut record = DriversRecord::new(None);
    engine.record(RecordScope::All, &mut record);
    record.calls
}

impl Pair {
    fn new() -> Pair {
        let start = Instant::now();
        Pair {
            engine: RtpengineNode::new(NODE, ng(), LocalSource::Routed(towards)),
            start,
            now: start,
            drawn: 0,
            calls: BTreeSet::new(),
            port: 30_000,
            asked: Vec::new(),
            sent: Vec::new(),
            says: None,
            mute: false,
            drops: 0,
            moves: false,
            told: Vec::new(),
            srtp: NodeSrtp::Off,
            crypto: Default::default(),
        }
    }

    fn hop(&self, incarnation: u32) -> Hop {
        Hop { node: NODE, incarnation: Incarnation(incarnation) }
    }

    fn open_in(&mut self, room: u64, session: u64, incarnation: u32, facts: &SessionFacts) {
        let wish = OpenRequest {
            session: SessionId(session),
            home: Home { worker: 0, slot: 0, generation: 1 },
            room: RoomId(room),
            hop: self.hop(incarnation),
            address: None,
            rtcp_apart: facts.ports.1.is_some(),
            client_srtp: Srtp::Plain,
            srtp: self.srtp,
            facts: Some(facts),
        };
        let drawn = &mut self.drawn;
        let mut draw = || {
            *drawn += 1;
            *drawn
        };
        let told = self.engine.open(&wish, &mut draw, clock(self.now));
        self.told.extend(told);
    }

    fn open(&mut self, session: u64, facts: &SessionFacts) {
        self.open_in(1, session, 1, facts);
        self.settle();
    }

    fn close(&mut self, session: u64) {
        let hop = self.hop(1);
        self.engine.close(SessionId(session), hop, clock(self.now));
        self.settle();
    }

    /// Runs until no action is due.
    fn settle(&mut self) {
        while let Some(act) = self.engine.poll(clock(self.now)) {
            match act {
                DriverAction::Send { node: NODE, transport: Transport::Datagram, bytes } => {
                    self.sent.push((*bytes).into());
                    if let Some(answer) = self.daemon(&bytes) {
                        self.engine.handle_datagram(&answer, self.now);
                    }
                }
                told => self.told.push(told),
            }
        }
    }

    /// The kernel reports that these datagrams met no listener.
    fn refuse(&mut self, quotes: &[Box<[u8]>]) {
        self.engine.handle_unreachable(quotes, self.now);
        self.settle();
    }

    fn pass(&mut self, ms: u32) {
        for _ in 0..ms / 10 {
            self.now += 10 * MS;
            self.settle();
        }
    }

    fn daemon(&mut self, datagram: &[u8]) -> Option<Box<[u8]>> {
        let text = std::str::from_utf8(datagram).unwrap();
        let (cookie, question) = text.split_once(' ').unwrap();
        let question = Value::read(question.as_bytes()).unwrap();
        let word = |key| question.text(key).unwrap_or_default().to_owned();
        let (command, call, sdp) = (word("command"), word("call-id"), word("sdp"));
        self.asked.push((command.clone(), call.clone(), sdp));
        if self.mute {
            return None;
        }
        if self.drops > 0 {
            self.drops -= 1;
            return None;
        }
        if let Some(says) = self.says {
            return Some(format!("{cookie} {says}").into_bytes().into());
        }
        if command == "delete" {
            self.calls.remove(&call);
            return Some(format!("{cookie} d6:result2:oke").into_bytes().into());
        }
        self.calls.insert(call);
        // One pair of ports faces the answering side, the next the offering side.
        let shift = if self.moves { 100 } else { 0 };
        let port = self.port + shift + if command == "offer" { 2 } else { 0 };
        let sdp =
            format!("c=IN IP4 10.0.0.9\r\nm=audio {port} RTP/AVP 111\r\na=rtcp:{}\r\n", port + 1);
        let sdp = sdp + &self.crypto[usize::from(command != "offer")].concat();
        let answer = Value::dictionary(vec![("result", "ok".into()), ("sdp", (&*sdp).into())]);
        let mut bytes = format!("{cookie} ").into_bytes();
        answer.write(&mut bytes);
        Some(bytes.into())
    }

    /// The results since the last call: the session, and its address or the error.
    fn told(&mut self) -> Vec<(u64, String)> {
        let word = |act: DriverAction| match act {
            DriverAction::Opened { session, leg: NodeLeg::Port(port), .. } => {
                (session.0, format!("{}/{}", port.address, port.rtcp_port))
            }
            DriverAction::Changed { session, leg: NodeLeg::Port(port), .. } => {
                (session.0, format!("now {}/{}", port.address, port.rtcp_port))
            }
            DriverAction::Refused { session, unwilling, reason, .. } => {
                (session.0, format!("{reason}{}", if unwilling { " (unwilling)" } else { "" }))
            }
            DriverAction::RoomFull { session, .. } => (session.0, "room full".to_owned()),
            act => panic!("{act:?}"),
        };
        self.told.drain(..).map(word).collect()
    }

    fn commands(&mut self) -> Vec<String> {
        self.asked.drain(..).map(|(command, ..)| command).collect()
    }
}

fn said(session: u64, words: &str) -> (u64, String) {
    (session, words.to_owned())
}

#[test]
fn room_is_a_call_with_two_sides() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    assert_eq!(pair.told(), [said(7, "10.0.0.9:30000/30000")], "before anybody answers");
    pair.open(8, &facts(5_000, Some(5_001)));
    assert_eq!(
        pair.told(),
        [said(8, "10.0.0.9:30002/30003")],
        "RTCP has its port, for who wants it"
    );
    assert_eq!(pair.calls.len(), 1);
    let (_, _, first) = &pair.asked[pair.asked.len() - 2];
    let (_, _, second) = &pair.asked[pair.asked.len() - 1];
    assert!(first.contains("m=audio 4000 ") && second.contains("m=audio 5000 "), "{first}{second}");
    assert!(first.contains("a=sendrecv") && second.contains("a=sendrecv"));
}

#[test]
fn sdp_has_the_source_address_of_media() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    let told: Vec<bool> = pair.asked.iter().map(|(_, _, sdp)| sdp.contains("10.7.0.1")).collect();
    assert_eq!(told, [false, false, true, true], "once the media address is known");
    assert_eq!(pair.told().len(), 1);
}

#[test]
fn third_session_finds_the_room_full() {
    let mut pair = Pair::new();
    for session in 7..10 {
        pair.open(session, &facts(4_000, None));
    }
    assert_eq!(pair.told().pop(), Some(said(9, "room full")));
    pair.close(7);
    pair.open(10, &facts(6_000, None));
    assert_eq!(pair.told(), [said(10, "10.0.0.9:30000/30000")], "in the place of who left");
}

#[test]
fn last_leaving_session_deletes_the_call() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    pair.open(8, &facts(5_000, None));
    pair.asked.clear();
    pair.close(7);
    let (_, _, first) = &pair.asked[0];
    assert!(first.contains("m=audio 9 ") && first.contains("a=inactive"), "{first}");
    assert_eq!(pair.commands(), ["offer", "answer"]);
    pair.close(8);
    assert_eq!(pair.commands(), ["delete"]);
    assert!(pair.calls.is_empty());
    pair.pass(60_000);
    assert_eq!(pair.commands(), [""; 0], "it is over");
}

#[test]
fn reopened_room_is_another_call() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    // The end of one call is still in progress when the next begins.
    pair.engine.close(SessionId(7), pair.hop(1), clock(pair.now));
    pair.open(8, &facts(4_000, None));
    let names: BTreeSet<&String> = pair.asked.iter().map(|(_, call, _)| call).collect();
    assert_eq!((names.len(), pair.calls.len()), (2, 1));
    pair.open_in(1, 8, 2, &facts(4_000, None));
    pair.settle();
    assert_eq!(pair.calls.len(), 2, "and so is it in the node's next life");
}

#[test]
fn calls_are_refreshed_before_they_expire() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    pair.told();
    pair.asked.clear();
    pair.pass(14_990);
    assert_eq!(pair.commands(), [""; 0]);
    pair.pass(45_010);
    assert_eq!(pair.commands(), ["offer", "answer"].repeat(4), "in a minute");
    assert_eq!(pair.told(), [], "nothing changed");
    pair.moves = true;
    pair.pass(15_000);
    assert_eq!(
        pair.told(),
        [said(7, "now 10.0.0.9:30100/30100")],
        "address of the restarted daemon"
    );
}

#[test]
fn call_continues_in_another_process() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    pair.open(8, &facts(5_000, None));
    pair.pass(5_000);
    pair.mute = true;
    pair.open_in(2, 9, 1, &facts(6_000, None));
    pair.settle();
    pair.mute = false;
    pair.asked.clear();
    let mut records = recorded(&pair.engine);
    records.iter_mut().for_each(|record| record.await_openings(TELL_AGAIN, pair.now));
    records.sort_by_key(|record| record.refresh);
    assert_eq!(records.len(), 2);
    pair.engine = RtpengineNode::new(NODE, ng(), LocalSource::Routed(towards));
    let (hop, all_facts) = (pair.hop(3), [facts(4_000, None), facts(5_000, None)]);
    let known = ContinuedSession {
        hop: &|_, _| Some(hop),
        facts: &|session| all_facts.get(session.0 as usize - 7),
    };
    for record in records {
        pair.engine.restore_call(record, &known, &mut || 99, pair.now);
    }
    pair.told();
    pair.pass(9_980);
    assert_eq!(pair.commands(), [""; 0]);
    pair.pass(40);
    let last = pair.asked.last().unwrap().clone();
    assert!(last.2.contains("m=audio 5000 ") && last.2.contains("10.7.0.1"), "{last:?}");
    assert_eq!(pair.commands(), ["offer", "answer"], "at its usual time");
    assert_eq!((pair.told(), pair.calls.len()), (vec![], 1), "the same call, unchanged");
    pair.engine.close(SessionId(7), hop, clock(pair.now));
    pair.engine.close(SessionId(8), hop, clock(pair.now));
    pair.settle();
    assert!(pair.commands().contains(&"delete".to_owned()));
}

#[test]
fn sessions_on_other_ports_stay_in_their_call() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    pair.open(8, &facts(5_000, None));
    let mut records = recorded(&pair.engine);
    // Their refresh is due.
    pair.now += TELL_AGAIN;
    for record in &mut records {
        record.lose_ports(|_| false);
        record.await_openings(TELL_AGAIN, pair.now);
    }
    pair.engine = RtpengineNode::new(NODE, ng(), LocalSource::Bound([10, 7, 0, 2].into()));
    let (hop, now) = (pair.hop(3), [facts(4_100, None), facts(5_100, None)]);
    let known = ContinuedSession {
        hop: &|_, _| Some(hop),
        facts: &|session| now.get(session.0 as usize - 7),
    };
    records
        .into_iter()
        .for_each(|record| pair.engine.restore_call(record, &known, &mut || 99, pair.now));
    pair.told();
    pair.asked.clear();
    pair.settle();
    assert_eq!(pair.commands(), [""; 0], "it waits for the core");
    pair.open_in(1, 7, 3, &now[0]);
    pair.open_in(1, 8, 3, &now[1]);
    pair.settle();
    assert_eq!(pair.told().len(), 2, "both are open again");
    let asked: Vec<_> = pair.asked.iter().map(|(command, _, sdp)| (&**command, &**sdp)).collect();
    let [("offer", first), ("answer", second)] = asked[..] else { panic!("{asked:?}") };
    for (sdp, port) in [(first, "m=audio 4100 "), (second, "m=audio 5100 ")] {
        assert!(sdp.contains(port) && sdp.contains("IN IP4 10.7.0.2"), "{sdp}");
    }
    assert_eq!(pair.calls.len(), 1, "rtpengine needs no further ports");
}

#[test]
fn lost_request_is_retried() {
    let mut pair = Pair::new();
    pair.drops = 3;
    pair.open(7, &facts(4_000, None));
    assert_eq!(pair.told(), []);
    pair.pass(700);
    assert_eq!(pair.told(), [said(7, "10.0.0.9:30000/30000")]);
}

#[test]
fn silent_daemon_fails_openings_in_time() {
    let mut pair = Pair::new();
    pair.mute = true;
    pair.open(7, &facts(4_000, None));
    // More calls than may be in flight.
    for room in 2..102 {
        pair.open_in(room, room, 1, &facts(4_000, None));
    }
    pair.settle();
    assert_eq!(pair.asked.len(), ASKED_AT_ONCE);
    pair.pass(1_790);
    assert_eq!(pair.told(), []);
    pair.pass(10);
    let told = pair.told();
    assert_eq!(told.len(), 101, "asked or not");
    assert!(
        told.contains(&said(7, "rtpengine at 10.0.0.9:2223 did not answer in time")),
        "{told:?}"
    );
    assert!(
        told.contains(&said(
            101,
            "rtpengine at 10.0.0.9:2223 timed out before the request was sent"
        )),
        "{told:?}"
    );
    assert!((pair.now - pair.start) < 2_000 * MS, "before the core gives up");
}

#[test]
fn open_call_survives_a_busy_daemon() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    pair.mute = true;
    pair.pass(20_000);
    pair.mute = false;
    pair.told();
    pair.open(8, &facts(5_000, None));
    assert_eq!(pair.told(), [said(8, "10.0.0.9:30002/30002")]);
    assert_eq!(pair.calls.len(), 1);
}

#[test]
fn address_of_no_single_host_is_refused() {
    let mut pair = Pair::new();
    pair.says = Some("d6:result2:ok3:sdp47:c=IN IP4 239.1.2.3\r\nm=audio 30000 RTP/AVP 111\r\ne");
    pair.open(7, &facts(4_000, None));
    let told = pair.told();
    let [(7, reason)] = &told[..] else { panic!("{told:?}") };
    let parts = ["SDP", "`239.1.2.3:30000`", "a multicast address", "expected"];
    assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    pair.says = None;
    pair.open(8, &facts(5_000, None));
    assert_eq!(pair.told(), [said(8, "10.0.0.9:30000/30000")]);
}

#[test]
fn refusal_keeps_rtpengines_words() {
    let mut pair = Pair::new();
    pair.says = Some("d12:error-reason16:Out of ports, ok6:result5:errore");
    pair.open(7, &facts(4_000, None));
    assert_eq!(pair.told(), [said(7, "Out of ports, ok")]);
    pair.says = Some("d7:message4:Full6:result10:load limite");
    pair.open(8, &facts(4_000, None));
    assert_eq!(pair.told(), [said(8, "Full (unwilling)")]);
    pair.says = Some("d6:result2:oke");
    pair.open(9, &facts(4_000, None));
    assert_eq!(pair.told(), [said(9, "rtpengine did not say where it takes packets")]);
}

#[test]
fn closed_port_fails_openings_and_drops_calls() {
    let mut pair = Pair::new();
    pair.open(7, &facts(4_000, None));
    pair.mute = true;
    pair.open_in(2, 8, 1, &facts(4_000, None));
    pair.settle();
    pair.close(7);
    pair.told();
    let mut forged = pair.sent.last().unwrap().clone();
    forged[0] ^= 1;
    pair.refuse(&[forged, Box::default(), b"00000000000000ff d7:command".as_slice().into()]);
    assert_eq!(pair.told(), []);
    let quotes = std::mem::take(&mut pair.sent);
    pair.refuse(&quotes);
    assert_eq!(pair.told(), [said(8, "no NG listener at 10.0.0.9:2223")]);
    assert!(pair.engine.sessions.is_empty() && pair.engine.rooms.is_empty());
    let quotes = std::mem::take(&mut pair.sent);
    pair.refuse(&quotes);
    assert!(pair.engine.calls.is_empty(), "{:?}", pair.engine.calls);
}

#[test]
fn unreachable_network_fails_openings() {
    let mut pair = Pair::new();
    pair.engine.source = LocalSource::Routed(|_| None);
    pair.open(7, &facts(4_000, None));
    assert_eq!(pair.told(), [said(7, "no route to 10.0.0.9:2223")]);
    assert_eq!(pair.commands(), [""; 0]);
}
