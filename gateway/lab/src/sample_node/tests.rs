mod drills;
mod feedback;

use std::thread::JoinHandle;

use evenkeel_media::rtcp::{self, Pli, RtcpPacket, SenderInfo};
use evenkeel_media::trunk::message::{
    ClockRefusal, NodeFault, NodeLoad, OpenStatus, OrderOutcome, ServingState, TrunkAnswer,
    TrunkQuestion,
};
use evenkeel_media::trunk::{self, Bundle, REPAIR_EXCESS, Tag};
use evenkeel_media::{rtp, stun};

use super::*;
use crate::TestHeader;

const SECRET: &[u8] = b"a secret of both ends of the leg";

/// A node on a thread, and the gateway's end of its trunk leg.
struct Rig {
    node: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<SampleNodeCounters>>,
    gateway: Peer,
    secret: NodeSecret,
}

/// A socket with a read timeout.
struct Peer {
    socket: UdpSocket,
    waiting: std::collections::VecDeque<(Tag, Vec<u8>)>,
}

impl Peer {
    fn new(node: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(node).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, waiting: Default::default() }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; DATAGRAM];
        let length = self.socket.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The next packet out of a bundle.
    fn packet(&mut self) -> (Tag, Vec<u8>) {
        while self.waiting.is_empty() {
            let datagram = self.receive();
            self.waiting.extend(trunk::entries(&datagram).map(|entry| {
                let (tag, packet) = entry.unwrap();
                (tag, packet.to_vec())
            }));
        }
        self.waiting.pop_front().unwrap()
    }

    /// The next RTP packet out of a bundle, read.
    fn rtp(&mut self) -> (Tag, rtp::RtpHeader, TestHeader) {
        let (tag, packet) = self.packet();
        let (header, mark) = read(&packet);
        (tag, header, mark)
    }
}

impl Rig {
    fn new(twist: impl FnOnce(&mut SampleNodeOptions)) -> Self {
        let secret = NodeSecret::new(SECRET, "east-a1").unwrap();
        let mut options = SampleNodeOptions::new("127.0.0.1:0".parse().unwrap(), "east-a1");
        options.secret = Some(secret.clone());
        twist(&mut options);
        let node = SampleNode::bind(options).unwrap();
        let (address, ending) = (node.address(), node.ending());
        let thread = Some(std::thread::spawn(move || node.run().unwrap()));
        Self { node: address, ending, thread, gateway: Peer::new(address), secret }
    }

    fn ask_as(&self, secret: &NodeSecret, question: &TrunkQuestion, now_us: u64) {
        let mut bytes = Vec::new();
        question.write(secret, 77, now_us, &mut bytes);
        self.gateway.send(&bytes);
    }

    fn ask(&self, question: &TrunkQuestion) -> TrunkAnswer {
        let now_us = clock::now_ns() / 1_000;
        self.ask_as(&self.secret, question, now_us);
        let bytes = self.gateway.receive();
        let answered = TrunkAnswer::read(&bytes, &self.secret, clock::now_ns() / 1_000).unwrap();
        assert_eq!(answered.nonce, 77);
        answered.message
    }

    fn open(&self, room: u64, tag: u64) -> OpenStatus {
        let question =
            TrunkQuestion::Open { room, session: tag, tag: Tag(tag), lease_s: 30, numbered: false };
        let TrunkAnswer::Open { status, .. } = self.ask(&question) else { panic!() };
        status
    }

    /// Renews these leases for `lease_s` seconds. Returns unknown tags.
    fn keep(&self, lease_s: u16, tags: &[u64]) -> Vec<Tag> {
        let tags = tags.iter().copied().map(Tag).collect();
        let TrunkAnswer::Keep { unknown } =
            self.ask(&TrunkQuestion::Keep { lease_s, numbered: false, tags })
        else {
            panic!()
        };
        unknown.to_vec()
    }

    fn open_all(&self, room: u64, tags: &[u64]) {
        assert!(tags.iter().all(|&tag| self.open(room, tag) == OpenStatus::Ok));
    }

    fn send(&self, tag: u64, packet: &[u8]) {
        let mut bundle = Bundle::new(DATAGRAM);
        assert!(bundle.push(Tag(tag), packet));
        self.gateway.send(bundle.as_bytes());
    }

    fn probe(&self) -> NodeLoad {
        let TrunkAnswer::Probe(load) = self.ask(&TrunkQuestion::Probe) else { panic!() };
        load
    }

    fn end(mut self) -> SampleNodeCounters {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

fn voice(ssrc: u32, sequence: u16, session: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    TestHeader { session, number: sequence.into(), sent_ns: 5, node: 0, stream: 1 }
        .write(&mut payload);
    payload.extend_from_slice(b"voice");
    let mut packet = Vec::new();
    let timestamp = u32::from(sequence) * 960;
    let fields = rtp::Fields { payload_type: 111, marker: false, sequence, timestamp, ssrc };
    rtp::write(&fields, &payload, &mut packet);
    packet
}

fn read(packet: &[u8]) -> (rtp::RtpHeader, TestHeader) {
    let header = rtp::RtpHeader::parse(packet).unwrap();
    (header, TestHeader::read(header.payload(packet)).unwrap())
}

#[test]
fn packet_goes_to_the_others_of_its_room() {
    let mut rig = Rig::new(|_| {});
    for (room, tag) in [(1, 10), (1, 11), (1, 12), (2, 20)] {
        assert_eq!(rig.open(room, tag), OpenStatus::Ok);
    }
    rig.send(10, &voice(5, 1, 10));
    rig.send(20, &voice(6, 2, 20));
    let mut heard: Vec<_> =
        (0..3).map(|_| rig.gateway.rtp()).map(|(tag, _, mark)| (tag.0, mark.session)).collect();
    heard.sort_unstable();
    assert_eq!(heard, [(11, 10), (12, 10), (20, 20)]);
    let counters = rig.end();
    assert_eq!((counters.packets_in, counters.packets_out, counters.sessions), (2, 3, 4));
}

#[test]
fn rewriting_node_sends_equal_streams_to_all() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11, 12]);
    rig.send(10, &voice(5, 65_535, 10));
    rig.send(10, &voice(5, 0, 10));
    let heard: Vec<_> = (0..4).map(|_| rig.gateway.rtp()).collect();
    let of = |tag: u64| {
        heard
            .iter()
            .filter(|(to, ..)| to.0 == tag)
            .map(|(_, header, _)| *header)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(11), of(12));
    let [first, second] = of(11)[..] else { panic!() };
    assert_ne!(first.ssrc, 5);
    assert_eq!(second.ssrc, first.ssrc);
    assert_eq!(second.sequence, first.sequence.wrapping_add(1));
    assert_eq!(second.timestamp, first.timestamp.wrapping_sub(65_535 * 960));
    assert!(heard.iter().all(|(_, _, mark)| mark.node == number_of("east-a1")));
}

#[test]
fn two_streams_stay_two_streams() {
    let mut rig = Rig::new(|_| {});
    rig.open(1, 10);
    rig.send(10, &voice(5, 1, 10));
    rig.send(10, &voice(6, 1, 10));
    let (_, first, _) = rig.gateway.rtp();
    let (_, second, _) = rig.gateway.rtp();
    assert_ne!(first.ssrc, second.ssrc);
}

#[test]
fn untouched_node_changes_only_the_stamp() {
    let mut rig = Rig::new(|options| options.untouched = true);
    rig.open(1, 10);
    let sent = voice(5, 7, 10);
    rig.send(10, &sent);
    let (tag, mut came) = rig.gateway.packet();
    assert_eq!(tag, Tag(10));
    assert_eq!(read(&came).1.node, number_of("east-a1"));
    TestHeader::stamp(&mut came[rtp::HEADER_LEN..], 0);
    assert_eq!(came, sent);
}

#[test]
fn untouched_node_reflects_srtp() {
    let mut rig = Rig::new(|options| (options.untouched, options.stamps) = (true, false));
    rig.open(1, 10);
    let mut sent = voice(5, 7, 10);
    // The flag of padding. The last byte is one of the tag, and no number of padding bytes.
    sent[0] |= 0x20;
    *sent.last_mut().unwrap() = 255;
    rig.send(10, &sent);
    assert_eq!(rig.gateway.packet().1, sent);
}

#[test]
fn lone_session_hears_itself() {
    let mut rig = Rig::new(|_| {});
    rig.open(1, 10);
    rig.send(10, &voice(5, 1, 10));
    assert_eq!(rig.gateway.rtp().0, Tag(10));
    rig.open(1, 11);
    rig.send(10, &voice(5, 2, 10));
    assert_eq!(rig.gateway.rtp().0, Tag(11));
    assert_eq!(rig.end().packets_out, 2);
}

#[test]
fn foreign_tag_is_dropped_and_counted() {
    let mut rig = Rig::new(|_| {});
    rig.open(1, 10);
    rig.send(99, &voice(5, 1, 10));
    rig.send(10, &voice(5, 2, 10));
    assert_eq!(rig.gateway.rtp().2.number, 2);
    let counters = rig.end();
    assert_eq!((counters.unknown_tag, counters.packets_in, counters.packets_out), (1, 1, 1));
}

#[test]
fn bundle_from_another_source_is_dropped() {
    let mut rig = Rig::new(|_| {});
    rig.open(1, 10);
    let elsewhere = Peer::new(rig.node);
    let mut bundle = Bundle::new(1_472);
    assert!(bundle.push(Tag(10), &voice(5, 1, 10)));
    elsewhere.send(bundle.as_bytes());
    rig.gateway.send(bundle.as_bytes());
    assert_eq!(rig.gateway.rtp().0, Tag(10));
    let counters = rig.end();
    assert_eq!((counters.unknown_source, counters.packets_in), (1, 1));
}

#[test]
fn path_probe_is_answered_in_its_own_length() {
    let rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    let room = 1 + 2 * (10 + voice(5, 1, 10).len());
    let bundle_max = u16::try_from(room + REPAIR_EXCESS).unwrap();
    let path = TrunkQuestion::Path { bundle_max, padding: 900 };
    assert_eq!(rig.ask(&path), TrunkAnswer::Path { padding: 900 });
    let mut bundle = Bundle::new(DATAGRAM);
    (1..=4).for_each(|number| assert!(bundle.push(Tag(10), &voice(5, number, 10))));
    rig.gateway.send(bundle.as_bytes());
    let lengths: Vec<usize> = (0..2).map(|_| rig.gateway.receive().len()).collect();
    assert_eq!(lengths, [room, room]);
}

#[test]
fn badly_signed_message_is_refused() {
    let rig = Rig::new(|_| {});
    let now_us = clock::now_ns() / 1_000;
    let open =
        TrunkQuestion::Open { room: 1, session: 1, tag: Tag(1), lease_s: 30, numbered: false };
    let mut forged = Vec::new();
    open.write(&rig.secret, 1, now_us, &mut forged);
    *forged.last_mut().unwrap() ^= 1;
    rig.gateway.send(&forged);
    rig.gateway.send(&forged[..40]);
    let mut probe = Vec::new();
    TrunkQuestion::Probe.write(&rig.secret, 2, now_us, &mut probe);
    rig.gateway.send(&probe);
    rig.gateway.receive();
    rig.gateway.send(&probe);
    assert_eq!(rig.probe().sessions, 0);
    rig.ask_as(&NodeSecret::new(b"another secret altogether", "east-a1").unwrap(), &open, now_us);
    rig.ask_as(&rig.secret, &open, now_us - 6_000_000);
    let refusal = ClockRefusal::read(&rig.gateway.receive()).unwrap();
    assert_eq!(refusal.nonce, 77, "the other secret's is not answered");
    rig.gateway.send(&[0xE2, 1]);
    // The rate limit makes the number of refusals vary.
    while rig.gateway.receive() != [0xE2, 1] {}
    let counters = rig.end();
    let refused =
        RefusalCounters { malformed: 1, key: 1, forged: 1, time: 1, replayed: 1, unreadable: 0 };
    assert_eq!((counters.refused, counters.opened, counters.probes), (refused, 0, 2));
}

#[test]
fn node_without_a_secret_believes_nobody() {
    let rig = Rig::new(|options| options.secret = None);
    rig.ask_as(&rig.secret, &TrunkQuestion::Probe, clock::now_ns() / 1_000);
    rig.gateway.send(&[0xE2, 1]);
    assert_eq!(rig.gateway.receive(), [0xE2, 1]);
    assert_eq!(rig.end().refused.key, 1);
}

#[test]
fn lease_ends_unless_renewed() {
    let rig = Rig::new(|_| {});
    rig.open_all(1, &[11, 12]);
    rig.ask(&TrunkQuestion::Open {
        room: 1,
        session: 10,
        tag: Tag(10),
        lease_s: 0,
        numbered: false,
    });
    assert_eq!(rig.keep(0, &[12]), []);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.probe().sessions != 1 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(rig.open(1, 11), OpenStatus::Ok);
    let counters = rig.end();
    assert_eq!((counters.opened, counters.expired, counters.sessions), (3, 2, 1));
}

#[test]
fn keep_renews_open_and_names_unknown_tags() {
    let start = Instant::now();
    let mut options = SampleNodeOptions::new("127.0.0.1:1".parse().unwrap(), "n");
    options.secret = Some(NodeSecret::new(SECRET, "n").unwrap());
    let mut reflector = Reflector::new(options, fastrand::Rng::with_seed(1));
    let mut ask = |question: TrunkQuestion, after: u64| {
        let now =
            BatchClock { instant: start + Duration::from_secs(after), unix_us: after * 1_000_000 };
        let mut bytes = Vec::new();
        question.write(&NodeSecret::new(SECRET, "n").unwrap(), 1, now.unix_us, &mut bytes);
        let source = "127.0.0.1:9".parse().unwrap();
        let datagram = crate::datagrams::Datagram { bytes: &bytes, source, stamp_ns: None };
        reflector.handle_timeout(now, &mut DatagramOutbox::default());
        reflector.handle_datagram(&datagram, now, &mut DatagramOutbox::default());
        let answer = &reflector.scratch;
        let answer =
            TrunkAnswer::read(answer, &NodeSecret::new(SECRET, "n").unwrap(), now.unix_us).unwrap();
        (answer.message, reflector.counters())
    };
    for tag in [10, 11] {
        ask(
            TrunkQuestion::Open {
                room: 1,
                session: tag,
                tag: Tag(tag),
                lease_s: 10,
                numbered: false,
            },
            0,
        );
    }
    let keep = |tags: &[u64]| {
        let tags = tags.iter().copied().map(Tag).collect();
        TrunkQuestion::Keep { lease_s: 10, numbered: false, tags }
    };
    let unknown =
        |tags: &[u64]| TrunkAnswer::Keep { unknown: tags.iter().copied().map(Tag).collect() };
    assert_eq!(ask(keep(&[9, 10, 12]), 6).0, unknown(&[9, 12]));
    let (answer, counters) = ask(keep(&[10, 11]), 12);
    assert_eq!(answer, unknown(&[11]), "the lease expired");
    assert_eq!((counters.sessions, counters.opened, counters.kept), (1, 2, 2));
    assert_eq!(ask(TrunkQuestion::Probe, 21).1.sessions, 1);
    assert_eq!(ask(TrunkQuestion::Probe, 22).1.sessions, 0);
}

#[test]
fn packets_go_to_the_last_keep_source() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    let elsewhere = std::mem::replace(&mut rig.gateway, Peer::new(rig.node));
    assert_eq!(rig.keep(30, &[11]), []);
    let mut bundle = Bundle::new(DATAGRAM);
    assert!(bundle.push(Tag(10), &voice(5, 1, 10)));
    elsewhere.send(bundle.as_bytes());
    assert_eq!(rig.gateway.rtp().0, Tag(11));
}

#[test]
fn lease_runs_from_its_last_renewal() {
    let mut reflector = Reflector::new(
        SampleNodeOptions::new("127.0.0.1:1".parse().unwrap(), "n"),
        fastrand::Rng::with_seed(1),
    );
    reflector.handle_datagram(
        &crate::datagrams::Datagram {
            bytes: &voice(5, 1, 1),
            source: "127.0.0.1:9".parse().unwrap(),
            stamp_ns: None,
        },
        BatchClock { instant: Instant::now(), unix_us: 0 },
        &mut DatagramOutbox::default(),
    );
    let expires = reflector.sessions.values().next().unwrap().expires;
    let mut expire = |instant| {
        let now = BatchClock { instant, unix_us: 0 };
        reflector.handle_timeout(now, &mut DatagramOutbox::default());
        reflector.counters()
    };
    assert_eq!(expire(expires - Duration::from_millis(60)).sessions, 1);
    let counters = expire(expires);
    assert_eq!((counters.sessions, counters.expired), (0, 1));
}

#[test]
fn second_close_reports_unknown() {
    let rig = Rig::new(|_| {});
    rig.open(1, 10);
    let close = || {
        let TrunkAnswer::Close { status, .. } = rig.ask(&TrunkQuestion::Close { tag: Tag(10) })
        else {
            panic!()
        };
        status
    };
    assert_eq!((close(), close()), (OpenStatus::Ok, OpenStatus::UnknownTag));
    assert_eq!(rig.end().closed, 1);
}

#[test]
fn draining_node_keeps_its_sessions() {
    let mut rig = Rig::new(|_| {});
    rig.open(1, 10);
    assert_eq!(rig.probe().state, ServingState::Serving);
    let TrunkAnswer::Drain(load) = rig.ask(&TrunkQuestion::Drain) else { panic!() };
    assert_eq!((load.state, load.sessions), (ServingState::Draining, 1));
    assert_eq!(rig.probe().state, ServingState::Draining);
    assert_eq!((rig.open(1, 11), rig.open(1, 10)), (OpenStatus::Draining, OpenStatus::Ok));
    rig.send(10, &voice(5, 1, 10));
    assert_eq!(rig.gateway.rtp().0, Tag(10));
    assert_eq!(rig.end().turned_away, 1);
}

#[test]
fn full_node_refuses_and_reports_its_load() {
    let rig = Rig::new(|options| options.sessions_max = 2);
    assert_eq!((rig.open(1, 10), rig.probe().permille), (OpenStatus::Ok, 500));
    assert_eq!((rig.open(1, 11), rig.open(1, 12)), (OpenStatus::Ok, OpenStatus::Full));
    assert_eq!(rig.open(1, 11), OpenStatus::Ok);
    assert_eq!(
        rig.probe(),
        NodeLoad { permille: 1_000, state: ServingState::Serving, sessions: 2, vouched: true }
    );
}

#[test]
fn plain_sources_are_grouped_as_configured() {
    let rig = Rig::new(|_| {});
    let (one, other) = (Peer::new(rig.node), Peer::new(rig.node));
    one.send(&voice(5, 1, 10));
    assert_eq!(read(&one.receive()).1.session, 10);
    other.send(&voice(6, 1, 11));
    assert_eq!(read(&other.receive()).1.session, 11);

    let rig = Rig::new(|options| options.plain_room = PlainRoom::Shared);
    let (one, other) = (Peer::new(rig.node), Peer::new(rig.node));
    one.send(&voice(5, 1, 10));
    one.receive();
    other.send(&voice(6, 1, 11));
    assert_eq!(read(&one.receive()).1.session, 11);
    one.send(&voice(5, 2, 10));
    assert_eq!(read(&other.receive()).1.session, 10);
}

#[test]
fn echo_returns_and_stun_maps_the_address() {
    let rig = Rig::new(|_| {});
    rig.gateway.send(&[0xE2, 1, 2, 3]);
    assert_eq!(rig.gateway.receive(), [0xE2, 1, 2, 3]);
    let transaction = stun::Transaction([7; 12]);
    let mut request = Vec::new();
    stun::BindingBuilder::probe(transaction).write(&mut request);
    rig.gateway.send(&request);
    let answer = rig.gateway.receive();
    let response = stun::Response::parse(&answer).unwrap();
    assert_eq!(response.message.transaction(), transaction);
    assert_eq!(
        response.outcome,
        stun::BindingOutcome::Mapped(rig.gateway.socket.local_addr().unwrap())
    );
    let counters = rig.end();
    assert_eq!((counters.echoes, counters.stun), (1, 1));
}

#[test]
fn picture_loss_reaches_the_sender() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    rig.send(10, &voice(5, 1, 10));
    let (_, header, _) = rig.gateway.rtp();
    for media in [header.ssrc, header.ssrc.wrapping_add(1)] {
        let mut request = Vec::new();
        rtcp::write_pli(Pli { sender: 9, media }, &mut request);
        rig.send(11, &request);
    }
    let (tag, compound) = rig.gateway.packet();
    let asked: Vec<u32> = rtcp::packets(&compound)
        .filter_map(|packet| match packet.unwrap() {
            RtcpPacket::Pli(pli) => Some(pli.media),
            _ => None,
        })
        .collect();
    assert_eq!((tag, asked), (Tag(10), vec![5]));
    let counters = rig.end();
    assert_eq!((counters.pli, counters.packets_out), (2, 2));
}

#[test]
fn sender_report_is_answered_and_forwarded() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    rig.send(10, &voice(5, 2, 10));
    rig.send(10, &voice(5, 4, 10));
    let (_, header, _) = rig.gateway.rtp();
    rig.gateway.rtp();
    let mut report = Vec::new();
    let info = SenderInfo {
        ssrc: 5,
        ntp: 0x0123_4567_89ab_cdef,
        timestamp: 4 * 960,
        packets: 2,
        octets: 80,
    };
    rtcp::write_sender_report(&info, &[], &mut report);
    rig.send(10, &report);
    let (mut mapped, mut answered) = (None, None);
    for _ in 0..2 {
        let (tag, compound) = rig.gateway.packet();
        for packet in rtcp::packets(&compound) {
            match packet.unwrap() {
                RtcpPacket::SenderReport(report) => mapped = Some((tag, report.info)),
                packet @ RtcpPacket::ReceiverReport(_) => {
                    answered = packet.blocks().next().map(|block| (tag, block));
                }
                _ => {}
            }
        }
    }
    let (tag, mapped) = mapped.unwrap();
    assert_eq!((tag, mapped.ssrc, mapped.ntp), (Tag(11), header.ssrc, info.ntp));
    assert_eq!(mapped.timestamp, header.timestamp.wrapping_add(2 * 960));
    let (tag, block) = answered.unwrap();
    assert_eq!((tag, block.ssrc, block.lost, block.last_sr), (Tag(10), 5, 1, 0x4567_89ab));
}

#[test]
fn untouched_node_reflects_feedback() {
    let mut rig = Rig::new(|options| options.untouched = true);
    rig.open_all(1, &[10, 11]);
    let mut request = Vec::new();
    rtcp::write_pli(Pli { sender: 9, media: 5 }, &mut request);
    rig.send(11, &request);
    assert_eq!(rig.gateway.packet(), (Tag(10), request));
    assert_eq!(rig.end().pli, 1);
}

#[test]
fn burst_leaves_in_few_datagrams() {
    let rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    let mut bundle = Bundle::new(8_000);
    for sequence in 0..100 {
        assert!(bundle.push(Tag(10), &voice(5, sequence, 10)));
    }
    rig.gateway.send(bundle.as_bytes());
    let (mut datagrams, mut packets) = (0, 0);
    while packets < 100 {
        let datagram = rig.gateway.receive();
        assert!(datagram.len() <= trunk::SHARED_MAX);
        packets += trunk::entries(&datagram).count();
        datagrams += 1;
    }
    assert!(datagrams < 10, "{datagrams}");
    assert_eq!(rig.end().packets_out, 100);
}

#[test]
fn excess_stream_replaces_the_longest_silent() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10]);
    let mut out = std::collections::BTreeMap::new();
    for ssrc in (0..16).chain(1..16).chain([16]) {
        rig.send(10, &voice(ssrc, 1, 10));
        out.insert(ssrc, rig.gateway.rtp().1.ssrc);
    }
    let mut request = Vec::new();
    rtcp::write_pli(Pli { sender: 9, media: out[&0] }, &mut request);
    rig.send(10, &request);
    // A request for a stream without sender is dropped; voice comes next.
    rig.send(10, &voice(1, 2, 10));
    assert_eq!(rig.gateway.rtp().1.ssrc, out[&1]);
    rig.send(10, &voice(0, 2, 10));
    assert_ne!(rig.gateway.rtp().1.ssrc, out[&0]);
    assert_eq!(rig.end().malformed, 0);
}

#[test]
fn too_large_packet_is_counted_and_dropped() {
    let to = "127.0.0.1:1".parse().unwrap();
    let leg = session::SessionLeg::Trunk { tag: Tag(1), reply_to: to };
    let mut reflector =
        Reflector::new(SampleNodeOptions::new(to, "n"), fastrand::Rng::with_seed(1));
    for size in [1_461, 1_462] {
        reflector.send(leg, &vec![0; size], &mut DatagramOutbox::default());
    }
    let counters = reflector.counters();
    assert_eq!((counters.packets_out, counters.oversize), (1, 1));
}

#[test]
fn reopened_session_changes_rooms() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    rig.open_all(2, &[10]);
    rig.send(11, &voice(5, 1, 11));
    assert_eq!(rig.gateway.rtp().0, Tag(11), "it is alone now");
    rig.send(10, &voice(6, 1, 10));
    assert_eq!(rig.gateway.rtp().0, Tag(10));
    assert_eq!(rig.end().sessions, 2);
}

#[test]
fn retransmission_has_the_numbers_of_the_outgoing_stream() {
    let mut rig = Rig::new(|options| options.retransmissions = vec![97]);
    rig.open_all(1, &[1, 2]);
    let packet = |payload_type, sequence, payload: &[u8]| {
        let ssrc = u32::from(payload_type);
        let fields = rtp::Fields { payload_type, marker: false, sequence, timestamp: 3_000, ssrc };
        let mut packet = Vec::new();
        rtp::write(&fields, payload, &mut packet);
        packet
    };
    let mut reflected = |packet: &[u8]| {
        rig.send(1, packet);
        let (_, packet) = rig.gateway.packet();
        (rtp::RtpHeader::parse(&packet).unwrap(), packet)
    };
    let (lost, _) = reflected(&packet(96, 65_535, b"picture"));
    reflected(&packet(96, 2, b"picture"));
    let (header, again) = reflected(&packet(97, 9, &[0xff, 0xff, 7]));
    let [high, low] = lost.sequence.to_be_bytes();
    assert_eq!(header.payload(&again), [high, low, 7]);
    assert_eq!(header.timestamp, lost.timestamp);
}
