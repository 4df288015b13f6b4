//! The worker's loop and its event sources.

use std::net::{Ipv4Addr, SocketAddr};

use evenkeel_media::rtp;
use evenkeel_media::trunk::message::{NodeSecret, OpenStatus, TrunkAnswer};
use evenkeel_media::trunk::{self, Bundle, Tag, TrunkRepair, seal};
use evenkeel_model::{
    DropReason, Hop, HopGrant, Incarnation, RedundancyMode, Route, RouteCell, SessionId, Srtp,
    Stamp,
};

use super::session::tests::install;
use super::*;
use crate::flows::{FlowEntry, FlowKey, Home};

mod suspended;

const LONG: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(60);
/// The number of a worker's first numbered bundle.
const FIRST_NUMBER: u16 = u16::MAX - 1;

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// The peers of a worker with one node and open listeners, which report each packet.
struct World {
    listeners: Vec<SocketAddr>,
    commands: crossbeam_channel::Sender<WorkerCommand>,
    waker: Arc<Waker>,
    flows: Arc<Flows>,
    stats: Arc<WorkerStats>,
    reports: mpsc::Receiver<WorkerReport>,
}

impl World {
    fn new(listeners: usize) -> (World, PacketWorker) {
        World::with(listeners, None)
    }

    fn with(listeners: usize, trunk: Option<TrunkSocket>) -> (World, PacketWorker) {
        let sockets = (0..listeners).map(|_| (socket(), socket())).collect();
        let (world, parts) = World::parts(sockets, trunk);
        (world, PacketWorker::new(parts, Instant::now()).unwrap())
    }

    /// `sockets` are those of the listeners for RTP and RTCP.
    fn parts(
        sockets: Vec<(UdpSocket, UdpSocket)>,
        trunk: Option<TrunkSocket>,
    ) -> (World, WorkerParts) {
        let now = Instant::now();
        let (rtp, rtcp): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        let addresses = rtp.iter().chain(&rtcp).map(|socket| socket.local_addr().unwrap());
        let addresses = addresses.collect();
        let listener = |(rtp, rtcp)| ListenerParts { rtp, rtcp: Some(rtcp), open: true };
        let (told, commands) = crossbeam_channel::bounded(COMMANDS_MAX);
        let (says, reports) = mpsc::channel(1_024);
        let waker = Arc::new(Waker::new().unwrap());
        let stats = Arc::new(WorkerStats::new(now, 1));
        let flows = Arc::new(Flows::new(64));
        let parts = WorkerParts {
            number: 0,
            listeners: rtp.into_iter().zip(rtcp).map(listener).collect(),
            trunks: vec![trunk],
            from_quic: None,
            to_handshakes: handshake_channel().0,
            to_quic: None,
            from_workers: Vec::new(),
            to_workers: vec![None],
            commands,
            waker: Arc::clone(&waker),
            reports: says,
            stats: Arc::clone(&stats),
            flows: Arc::clone(&flows),
            probes: Arc::default(),
            board: Arc::new(Board::new(1)),
            early_limits: EarlyLimits { packets: 0, wait: Duration::ZERO },
            repair_memory: RepairMemory::new(usize::MAX),
            misses_per_prefix: u32::MAX,
            hash_keys: RandomState::new(),
            gather: LONG,
            lease: Arc::new(SendLease::forever()),
            grant: Arc::new(IndexGrant::new(1, now)),
            suspended: false,
        };
        let commands = told;
        (World { listeners: addresses, commands, waker, flows, stats, reports }, parts)
    }

    /// Creates a worker with a node at the other end of the trunk.
    fn with_node() -> (World, PacketWorker, UdpSocket) {
        World::with_trunk(None)
    }

    fn with_trunk(seal: Option<Box<seal::GatewaySeal>>) -> (World, PacketWorker, UdpSocket) {
        let (trunk, node) = (socket(), socket());
        trunk.connect(node.local_addr().unwrap()).unwrap();
        node.connect(trunk.local_addr().unwrap()).unwrap();
        node.set_nonblocking(true).unwrap();
        let (world, worker) =
            World::with(1, Some(TrunkSocket { socket: trunk, seal, first_number: FIRST_NUMBER }));
        (world, worker, node)
    }

    /// Adds a client at its own address, with a leg to the node.
    fn enter(&self, slot: u32) -> Phone {
        let (phone, install) = self.phone(slot);
        self.admit(phone, install)
    }

    /// Creates a client at its own address, and its session.
    fn phone(&self, slot: u32) -> (Phone, Install) {
        let own = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + slot);
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.connect(self.listeners[0]).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let client = ClientAddressing::Declared { listener: 0, address, rtcp: address };
        let route = Route::new(1, RedundancyMode::Hot, [(NODE, HopGrant::Admitted)]);
        let install = Install {
            session: SessionId(slot.into()),
            route: Arc::new(RouteCell::holding(route)),
            ..install(client, Srtp::Plain, slot)
        };
        (Phone { socket, home: install.home }, install)
    }

    /// Adds the client, with a leg to the node.
    fn admit(&self, phone: Phone, install: Install) -> Phone {
        let (home, key) = (phone.home, phone.key());
        self.flows.insert(key, FlowEntry::of(home)).unwrap();
        self.tell(WorkerCommand::Install(Box::new(install)));
        self.tell(WorkerCommand::Attach {
            home,
            hop: NODE,
            leg: NodeLeg::Trunk(tag(home.slot, 7)),
        });
        phone
    }

    /// Takes the sessions removed after a panic.
    fn panicked(&mut self) -> Vec<u64> {
        let reports = std::iter::from_fn(|| self.reports.try_recv().ok());
        let panicked = |report| match report {
            WorkerReport::Ended(session, CloseReason::Panicked) => Some(session.0),
            _ => None,
        };
        reports.filter_map(panicked).collect()
    }

    /// Sends a packet from an unknown source and waits until the worker's thread has handled it.
    fn serve(&mut self, stranger: &UdpSocket) {
        stranger.send_to(&PACKET, self.listeners[0]).unwrap();
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            match self.reports.try_recv() {
                Ok(WorkerReport::FirstPacket { .. }) => return,
                Ok(other) => panic!("{other:?}"),
                Err(_) => std::thread::yield_now(),
            }
        }
        panic!("no report came");
    }

    fn tell(&self, command: WorkerCommand) {
        self.commands.send(command).unwrap();
        self.waker.wake();
    }

    /// Number of packets received from the node.
    fn received(&self) -> u64 {
        let mut all = [Stamp::default()];
        self.stats.merge_into(&mut all);
        all[0].received
    }
}

const PACKET: [u8; 12] = [0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const NODE: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

struct Phone {
    socket: UdpSocket,
    home: Home,
}

impl Phone {
    fn key(&self) -> FlowKey {
        FlowKey::Udp { listener: 0, address: self.socket.local_addr().unwrap() }
    }

    fn speak(&self, sequence: u16) {
        self.socket.send(&video(sequence)).unwrap();
    }

    /// Takes the sequence numbers of the received packets.
    fn heard(&self) -> Vec<u16> {
        let mut bytes = [0; 64];
        let came = std::iter::from_fn(|| {
            let length = self.socket.recv(&mut bytes).ok()?;
            Some(rtp::RtpHeader::parse(&bytes[..length]).unwrap().sequence)
        });
        came.collect()
    }
}

/// RTP with the payload type of these sessions.
fn video(sequence: u16) -> Vec<u8> {
    let timestamp = u32::from(sequence) * 3_000;
    let fields = rtp::Fields { payload_type: 96, marker: false, sequence, timestamp, ssrc: 5 };
    let mut packet = Vec::new();
    rtp::write(&fields, b"video", &mut packet);
    packet
}

/// Takes tags and sequence numbers of the packets that reached the node.
fn came(node: &UdpSocket) -> Vec<(Tag, u16)> {
    let mut bytes = [0; 2_048];
    let mut packets = Vec::new();
    while let Ok(length) = node.recv(&mut bytes) {
        packets.extend(trunk::entries(&bytes[..length]).map(|entry| {
            let (tag, packet) = entry.unwrap();
            (tag, rtp::RtpHeader::parse(packet).unwrap().sequence)
        }));
    }
    packets
}

impl PacketWorker {
    /// Runs one pass. Returns its number of events.
    fn turn(&mut self) -> usize {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        self.wait(&mut events, Duration::ZERO).unwrap();
        self.guarded_pass(&events, Instant::now());
        events.len()
    }

    /// Runs passes until no input remains.
    fn turns(&mut self) {
        while self.turn() > 0 || self.has_unread() {}
    }
}

#[test]
fn continuous_packets_gather() {
    let (mut world, worker) = World::new(1);
    let thread = std::thread::spawn(move || worker.run());
    let stranger = socket();
    world.serve(&stranger);
    // The next packet arrives at once, so later ones gather. On a slow machine it may count as a first packet again.
    let gathered = (0..10).any(|_| {
        let began = Instant::now();
        world.serve(&stranger);
        began.elapsed() >= LONG / 2
    });
    assert!(gathered, "each was served at once");
    world.tell(WorkerCommand::Stop);
    thread.join().unwrap().unwrap();
}

#[test]
fn full_event_batch_is_followed_without_a_pause() {
    let (world, mut worker) = World::new(150);
    let stranger = socket();
    for listener in &world.listeners {
        stranger.send_to(&PACKET, listener).unwrap();
    }
    assert_eq!((worker.turn(), worker.has_unread()), (EVENTS_MAX, true));
    assert_eq!((worker.turn(), worker.has_unread()), (300 - EVENTS_MAX, false));
    assert_eq!(world.reports.len(), 300);
}

#[test]
fn edge_triggered_port_is_read_to_its_end() {
    let (world, mut worker) = World::new(0);
    let (port, node) = (socket(), socket());
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    let ports = Some(Box::new(SessionPorts::new(port, None).unwrap()));
    let install = Install { ports, ..install(ClientAddressing::Stun, Srtp::Plain, 0) };
    let home = install.home;
    world.tell(WorkerCommand::Install(Box::new(install)));
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    world.tell(WorkerCommand::Attach { home, hop, leg });
    worker.turn();
    for _ in 0..40 {
        node.send_to(&PACKET, to).unwrap();
    }
    assert_eq!(worker.turn(), 1);
    while worker.has_unread() {
        assert_eq!(worker.turn(), 0, "not reported again");
    }
    assert_eq!(world.received(), 40);
}

#[test]
fn packets_are_read_between_many_commands() {
    let (world, mut worker) = World::new(1);
    for _ in 0..3_000 {
        world.tell(WorkerCommand::SendSigned {
            node: NodeId(0),
            message: Box::default(),
            sealed: true,
        });
    }
    let mut turns = 0;
    loop {
        worker.turn();
        turns += 1;
        if !worker.has_unread() {
            break;
        }
    }
    assert_eq!((turns, world.commands.len()), (3, 0));
}

#[test]
fn client_packet_panic_costs_no_other_packet() {
    let (mut world, mut worker, node) = World::with_node();
    let phones = [0, 1, 2].map(|slot| world.enter(slot));
    world.tell(WorkerCommand::Panic(phones[1].home));
    worker.turns();
    assert_eq!(world.panicked(), [0; 0], "not before a packet comes");
    for sequence in 10..20 {
        phones.iter().for_each(|phone| phone.speak(sequence));
    }
    worker.turns();
    assert_eq!(world.panicked(), [1]);
    let expected = (10..20).flat_map(|number| [(tag(0, 7), number), (tag(2, 7), number)]);
    assert_eq!(came(&node), expected.collect::<Vec<_>>(), "each once, and in order");
    assert_eq!(world.stats.drops(DropReason::UnknownSource), 10, "packets of the removed session");
}

#[test]
fn node_packet_panic_spares_rest_of_the_bundle() {
    assert_panic_spares_bundle(None, <[u8]>::to_vec);
}

#[test]
fn node_packet_panic_spares_encrypted_bundle() {
    let (secret, at) =
        (NodeSecret::new(b"a secret of many bytes", "n").unwrap(), ([127, 0, 0, 1], 1).into());
    let mut gateway = seal::GatewaySeal::new(secret.clone(), 1);
    let mut node = seal::NodeSeal::new(secret.clone(), 2);
    let mut first = gateway.seal(b"first").to_vec();
    let (_, sender) = node.open(&mut first, at).unwrap();
    node.learn(sender);
    let mut answer = Vec::new();
    TrunkAnswer::Close { tag: Tag(1), status: OpenStatus::Ok }.write(&secret, 1, 0, &mut answer);
    let mut answer = node.seal(at, &answer).unwrap().to_vec();
    assert!(gateway.open(&mut answer, || 0).is_ok());
    let sealed = |bundle: &[u8]| node.seal(at, bundle).unwrap().to_vec();
    assert_panic_spares_bundle(Some(Box::new(gateway)), sealed);
}

fn assert_panic_spares_bundle(
    seal: Option<Box<seal::GatewaySeal>>,
    mut sealed: impl FnMut(&[u8]) -> Vec<u8>,
) {
    let (mut world, mut worker, node) = World::with_trunk(seal);
    let phones = [0, 1, 2].map(|slot| world.enter(slot));
    world.tell(WorkerCommand::Panic(phones[1].home));
    worker.turns();
    for first in [10, 12] {
        let mut bundle = Bundle::new(1_200);
        for sequence in first..first + 2 {
            assert!((0..3).all(|slot| bundle.push(tag(slot, 7), &video(sequence))));
        }
        node.send(&sealed(bundle.as_bytes())).unwrap();
    }
    worker.turns();
    assert_eq!(world.panicked(), [1]);
    let heard = phones.map(|phone| phone.heard());
    assert_eq!(heard, [vec![10, 11, 12, 13], vec![], vec![10, 11, 12, 13]]);
    assert_eq!(world.stats.drops(DropReason::UnknownTag), 4);
}

/// A bundle with one packet.
fn bundle(tag: Tag, sequence: u16) -> Bundle {
    let mut bundle = Bundle::new(1_200);
    assert!(bundle.push(tag, &video(sequence)));
    bundle
}

/// A report that five of a hundred bundles were lost.
fn loss_report(Tag(tag): Tag) -> Vec<u8> {
    [&[0xE6][..], &tag.to_be_bytes(), &[0, 100, 0, 5]].concat()
}

/// Takes the first byte of each datagram that reached the node, and its number if it is a numbered bundle.
fn marks(node: &UdpSocket) -> Vec<(u8, Option<u16>)> {
    let mut bytes = [0; 2_048];
    let came =
        std::iter::from_fn(|| node.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec()));
    came.map(|datagram| (datagram[0], trunk::number(&datagram))).collect()
}

#[test]
fn bundles_are_numbered_for_node_that_proves_to_read() {
    let (world, mut worker, node) = World::with_node();
    let phone = world.enter(0);
    worker.turns();
    let mut sequence = 0;
    let mut form_after = |datagram: &[u8]| {
        node.send(datagram).unwrap();
        worker.turns();
        sequence += 1;
        phone.speak(sequence);
        worker.turns();
        let mut marks = marks(&node);
        marks.retain(|(mark, _)| *mark != 0xE6);
        marks
    };
    let (open, guessed) = (tag(0, 7), tag(0, 8));
    let plain = (0xE0, None);
    assert_eq!(form_after(bundle(open, 1).as_bytes()), [plain]);
    assert_eq!(form_after(bundle(guessed, 1).numbered(1)), [plain]);
    assert_eq!(form_after(bundle(open, 2).numbered(1)), [(0xE4, Some(FIRST_NUMBER))]);
    assert_eq!(form_after(bundle(guessed, 1).as_bytes()), [(0xE4, Some(u16::MAX))]);
    assert_eq!(form_after(bundle(open, 3).as_bytes()), [plain], "another version");
    assert_eq!(form_after(&loss_report(guessed)), [plain]);
    assert_eq!(form_after(&loss_report(open)), [(0xE4, Some(FIRST_NUMBER))]);
}

#[test]
fn silent_node_gets_plain_bundles() {
    let (world, mut worker, node) = World::with_node();
    let phone = world.enter(0);
    worker.turns();
    node.send(bundle(tag(0, 7), 1).numbered(1)).unwrap();
    worker.turns();
    // The end of this pass is more than three seconds later.
    worker.egress.flush(Instant::now() + Duration::from_secs(4));
    marks(&node);
    phone.speak(1);
    worker.turns();
    assert_eq!(marks(&node), [(0xE0, None)]);
}

#[test]
fn lost_bundle_of_the_node_reaches_the_client() {
    let (world, mut worker, node) = World::with_node();
    let phone = world.enter(0);
    worker.turns();
    let mut repair = TrunkRepair::new(0);
    repair.handle_repair(&loss_report(tag(0, 7)), Instant::now()).unwrap();
    // The worker keeps bundles from the first gap on, and the last repair datagram covers the last 20.
    for sequence in 10..35 {
        repair.send(&mut bundle(tag(0, 7), sequence), |datagram| {
            if ![11, 22].contains(&sequence) {
                node.send(datagram).unwrap();
            }
        });
    }
    worker.turns();
    let mut heard = phone.heard();
    heard.sort_unstable();
    assert_eq!(heard, (10..35).filter(|sequence| *sequence != 11).collect::<Vec<_>>());
    assert_eq!(world.received(), 24);
    assert_eq!(marks(&node), [(0xE6, None)], "the report to the node");
}

#[test]
fn parity_follows_bundles_to_a_node_that_misses_some() {
    let (world, mut worker, node) = World::with_node();
    let phone = world.enter(0);
    worker.turns();
    node.send(&loss_report(tag(0, 7))).unwrap();
    worker.turns();
    for sequence in 10..15 {
        phone.speak(sequence);
        worker.turns();
    }
    let bundles = (0..5).map(|number| (0xE4, Some(FIRST_NUMBER.wrapping_add(number))));
    assert_eq!(marks(&node), bundles.chain([(0xE5, None)]).collect::<Vec<_>>());
}

#[test]
fn invalid_repair_datagrams_are_counted() {
    let (world, mut worker, node) = World::with_node();
    let _phone = world.enter(0);
    worker.turns();
    let report = loss_report(tag(0, 7));
    for datagram in [&loss_report(tag(0, 8))[..], &report, &report[..12]] {
        node.send(datagram).unwrap();
    }
    node.send(bundle(tag(0, 7), 1).numbered(1)).unwrap();
    node.send(&[0xE5, 0, 1, 5, 0]).unwrap();
    worker.turns();
    assert_eq!(world.stats.drops(DropReason::UnknownTag), 1);
    assert_eq!(world.stats.drops(DropReason::Malformed), 2);
}

#[test]
fn port_is_read_after_a_panic_before_it() {
    let (mut world, mut worker, _node) = World::with_node();
    let doomed = world.enter(0);
    world.tell(WorkerCommand::Panic(doomed.home));
    let (port, node) = (socket(), socket());
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    let ports = Some(Box::new(SessionPorts::new(port, None).unwrap()));
    let install = Install { ports, ..install(ClientAddressing::Stun, Srtp::Plain, 1) };
    let home = install.home;
    world.tell(WorkerCommand::Install(Box::new(install)));
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    world.tell(WorkerCommand::Attach { home, hop: NODE, leg });
    worker.turns();
    // Epoll reports the sources in this order.
    doomed.speak(10);
    node.send_to(&PACKET, to).unwrap();
    assert_eq!((worker.turn(), world.panicked(), world.received()), (2, vec![0], 0));
    worker.turns();
    assert_eq!(world.received(), 1);
}

#[test]
fn active_session_is_summarised_after_a_panic() {
    let (mut world, mut worker, _node) = World::with_node();
    let phones = [0, 1].map(|slot| world.enter(slot));
    worker.turns();
    phones[0].speak(10);
    worker.turns();
    world.tell(WorkerCommand::Panic(phones[1].home));
    phones[1].speak(10);
    worker.turns();
    let summed_up = std::iter::from_fn(|| {
        worker.turn();
        match world.reports.try_recv() {
            Ok(WorkerReport::Summaries(all)) => {
                Some(all.iter().any(|of| of.session == SessionId(0)))
            }
            Ok(_) | Err(_) => Some(false),
        }
    });
    let until = Instant::now() + SOON;
    assert!(summed_up.take_while(|_| Instant::now() < until).any(|is| is));
}

#[test]
fn learned_address_is_free_after_a_panic() {
    let (mut world, mut worker, _node) = World::with_node();
    let phone = socket();
    phone.connect(world.listeners[0]).unwrap();
    let address = phone.local_addr().unwrap();
    let install = install(ClientAddressing::DeclaredIp { listener: 0 }, Srtp::Plain, 0);
    let home = install.home;
    world
        .flows
        .insert(FlowKey::DeclaredIp { listener: 0, ip: address.ip() }, FlowEntry::of(home))
        .unwrap();
    world.tell(WorkerCommand::Install(Box::new(install)));
    phone.send(&video(10)).unwrap();
    worker.turns();
    let learned = FlowKey::Udp { listener: 0, address };
    assert_eq!(world.flows.home(&learned), Some(home));
    world.tell(WorkerCommand::Panic(home));
    worker.turns();
    phone.send(&video(11)).unwrap();
    worker.turns();
    assert_eq!((world.panicked().len(), world.flows.home(&learned)), (1, None));
}

#[test]
fn panic_outside_of_a_session_is_resumed() {
    let (_world, mut worker) = World::new(1);
    worker.mark_unread(PacketSource::Listener(9, RtpSide::Rtp));
    let panic = catch_unwind(AssertUnwindSafe(|| worker.turn()));
    assert!(panic.is_err(), "there is no such listener");
}

#[test]
fn any_number_of_panics_ends_only_their_sessions() {
    let (mut world, mut worker, node) = World::with_node();
    let phones: Vec<Phone> = (0..40).map(|slot| world.enter(slot)).collect();
    phones[1..].iter().for_each(|phone| world.tell(WorkerCommand::Panic(phone.home)));
    worker.turns();
    phones.iter().for_each(|phone| phone.speak(10));
    worker.turns();
    assert_eq!(world.panicked(), (1..40).collect::<Vec<_>>());
    assert_eq!(came(&node), [(tag(0, 7), 10)]);
}

/// Closes the node's port and sends a packet with this tag on the trunk. Returns whether the worker reports it.
fn trunk_is_reported_closed(tag: Tag) -> bool {
    let (trunk, node) = (socket(), socket());
    trunk.connect(node.local_addr().unwrap()).unwrap();
    let sender = trunk.try_clone().unwrap();
    let trunk = TrunkSocket { socket: trunk, seal: None, first_number: 0 };
    let (mut world, mut worker) = World::with(1, Some(trunk));
    world.enter(0);
    worker.turns();
    drop(node);
    let mut bundle = Bundle::new(1_200);
    assert!(bundle.push(tag, &video(1)));
    sender.send(bundle.as_bytes()).unwrap();
    worker.turns();
    matches!(world.reports.try_recv(), Ok(WorkerReport::Refused(NodeId(0))))
}

#[test]
fn trunk_refusal_must_quote_a_session_tag() {
    assert!(trunk_is_reported_closed(tag(0, 7)));
    assert!(!trunk_is_reported_closed(tag(0, 8)), "a guessed tag");
}

const US: Duration = Duration::from_micros(1);

/// Returns whether the thread pauses after passes that read these numbers of packets, each after this wait.
fn pauses<const N: usize>(gather: Duration, wait: Duration, packets: [usize; N]) -> [bool; N] {
    let mut gather = Gather::new(gather);
    packets.map(|packets| {
        let began = gather.ended + wait;
        gather.ends(began, began, packets)
    })
}

#[test]
fn first_two_packets_after_a_pause_are_read_at_once() {
    assert_eq!(pauses(200 * US, 200 * US, [1]), [false]);
}

#[test]
fn packets_gather_while_they_keep_coming() {
    assert_eq!(pauses(200 * US, 199 * US, [1, 7, 0]), [true, true, false]);
}

#[test]
fn zero_gather_time_reads_at_once() {
    assert_eq!(pauses(Duration::ZERO, Duration::ZERO, [1]), [false]);
}

#[test]
fn ended_sessions_leave_the_active_ones() {
    let (_world, mut worker) = World::new(1);
    worker.egress.active = (0..10).map(|slot| Home { worker: 0, slot, generation: 1 }).collect();
    let start = Instant::now();
    (1..20).for_each(|round| worker.summarise(start + round * Duration::from_millis(100)));
    assert_eq!(worker.egress.active, []);
}
