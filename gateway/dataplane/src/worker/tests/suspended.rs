//! Workers that hand out their sessions, and those that continue them.

use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::MediaDescription;

use super::super::session::tests::handed_over;
use super::*;

mod leased;

/// A worker on its own thread, with a node.
struct Running {
    world: World,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

/// Sockets that two workers share.
struct Shared {
    listener: (UdpSocket, UdpSocket),
    trunk: UdpSocket,
    node: UdpSocket,
}

impl Shared {
    fn new() -> Shared {
        let (trunk, node) = (socket(), socket());
        trunk.connect(node.local_addr().unwrap()).unwrap();
        node.connect(trunk.local_addr().unwrap()).unwrap();
        node.set_nonblocking(true).unwrap();
        Shared { listener: (socket(), socket()), trunk, node }
    }

    fn parts(&self, seal: Option<Box<seal::GatewaySeal>>) -> (World, WorkerParts) {
        let copy = |socket: &UdpSocket| socket.try_clone().unwrap();
        let listener = (copy(&self.listener.0), copy(&self.listener.1));
        let trunk = TrunkSocket { socket: copy(&self.trunk), seal, first_number: 0 };
        World::parts(vec![listener], Some(trunk))
    }

    fn start(&self, suspended: bool) -> Running {
        self.start_with(None, suspended)
    }

    fn start_with(&self, seal: Option<Box<seal::GatewaySeal>>, suspended: bool) -> Running {
        let (world, parts) = self.parts(seal);
        Running::start(world, WorkerParts { suspended, gather: Duration::ZERO, ..parts })
    }
}

impl Running {
    fn start(world: World, parts: WorkerParts) -> Running {
        let worker = PacketWorker::new(parts, Instant::now()).unwrap();
        Running { world, thread: std::thread::spawn(move || worker.run()) }
    }

    fn suspend(&self) -> Vec<SessionState> {
        self.hand_out().0
    }

    fn hand_out(&self) -> (Vec<SessionState>, Vec<TrunkState>) {
        let (to, mut parts) = room();
        self.world.tell(WorkerCommand::Suspend(to));
        all_parts(&mut parts)
    }

    fn duplicate(&self) -> Duplicate {
        let (done, duplicates) = crossbeam_channel::bounded(1);
        self.world.tell(WorkerCommand::Duplicate {
            slots: 0..8,
            all: false,
            for_standby: false,
            done,
        });
        duplicates.recv_timeout(SOON).unwrap().unwrap().sessions.remove(0)
    }

    /// Waits until all commands have run.
    fn confirm(&self) {
        let (done, confirmed) = crossbeam_channel::bounded(1);
        self.world.tell(WorkerCommand::Confirm(done));
        confirmed.recv_timeout(SOON).unwrap();
    }

    fn stop(self) -> World {
        self.world.tell(WorkerCommand::Stop);
        self.thread.join().unwrap().unwrap();
        self.world
    }

    /// Adds the phone's session in this state.
    fn continue_with(&self, phone: &Phone, state: &SessionState) {
        let (_, install) = self.world.phone(phone.home.slot);
        let state = Some(Box::new(handed_over(state)));
        let install = Install { home: phone.home, state, ..install };
        self.world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
        self.world.tell(WorkerCommand::Install(Box::new(install)));
        self.confirm();
    }
}

type HandingOut = mpsc::Receiver<HandedOut>;

fn room() -> (mpsc::Sender<HandedOut>, HandingOut) {
    mpsc::channel(HandedOut::parts(1_024))
}

/// Waits for all that one worker hands out.
fn all_parts(parts: &mut HandingOut) -> (Vec<SessionState>, Vec<TrunkState>) {
    let mut sessions = Vec::new();
    loop {
        match until(|| parts.try_recv().ok()) {
            HandedOut::Sessions(some) => sessions.extend(some),
            HandedOut::Trunks { trunks, .. } => return (sessions, trunks),
        }
    }
}

fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        if let Some(found) = found() {
            return found;
        }
        std::thread::yield_now();
    }
    panic!("it did not happen");
}

/// Waits until the node has these packets of the phone, each once and in order.
fn reach_node(node: &UdpSocket, phone: &Phone, expected: Range<u16>) {
    let mut all = Vec::new();
    until(|| {
        all.extend(came(node));
        (all.len() >= expected.len()).then_some(())
    });
    let tag = tag(phone.home.slot, 7);
    assert_eq!(all, expected.map(|number| (tag, number)).collect::<Vec<_>>());
}

/// Sends a packet for the phone from its node.
fn answer(node: &UdpSocket, phone: &Phone, sequence: u16) {
    let mut bundle = Bundle::new(1_200);
    assert!(bundle.push(tag(phone.home.slot, 7), &video(sequence)));
    node.send(bundle.as_bytes()).unwrap();
}

fn reach_phone(phone: &Phone, expected: impl Iterator<Item = u16> + Clone) {
    let mut all = Vec::new();
    until(|| {
        all.extend(phone.heard());
        (all.len() >= expected.clone().count()).then_some(())
    });
    assert!(all.iter().copied().eq(expected), "{all:?}");
}

#[test]
fn packets_wait_for_a_suspended_worker() {
    let shared = Shared::new();
    let running = shared.start(false);
    let phone = running.world.enter(0);
    running.confirm();
    (10..20).for_each(|number| phone.speak(number));
    (10..20).for_each(|number| answer(&shared.node, &phone, number));
    reach_node(&shared.node, &phone, 10..20);
    reach_phone(&phone, 10..20);

    let states = running.suspend();
    let suspended = Instant::now();
    assert_eq!((states.len(), states[0].session), (1, SessionId(0)));
    (20..30).for_each(|number| phone.speak(number));
    (20..30).for_each(|number| answer(&shared.node, &phone, number));
    running.confirm();
    assert!(came(&shared.node).is_empty() && phone.heard().is_empty());
    // Commands run as always.
    running.world.tell(WorkerCommand::KeyFrame(phone.home));
    running.confirm();
    let mut request = [0; 64];
    until(|| phone.socket.recv(&mut request).ok());

    running.world.stats.take_lateness(Instant::now());
    let lasted = suspended.elapsed();
    running.world.tell(WorkerCommand::Resume);
    reach_node(&shared.node, &phone, 20..30);
    reach_phone(&phone, 20..30);
    assert!(running.world.stats.take_lateness(Instant::now()) >= lasted, "so long packets waited");
    running.stop();
}

#[test]
fn many_sessions_are_handed_out_in_parts() {
    let shared = Shared::new();
    let running = shared.start(false);
    let count = HandedOut::PART as u32 + 1;
    for slot in 0..count {
        running.world.tell(WorkerCommand::Install(Box::new(running.world.phone(slot).1)));
    }
    running.confirm();
    let (to, mut parts) = room();
    running.world.tell(WorkerCommand::Suspend(to));
    let mut next = || until(|| parts.try_recv().ok());
    let sizes = [next(), next(), next()].map(|part| match part {
        HandedOut::Sessions(sessions) => sessions.len(),
        HandedOut::Trunks { trunks, .. } => usize::MAX - trunks.len(),
    });
    assert_eq!(sizes, [HandedOut::PART, 1, usize::MAX - 1]);
    running.stop();
}

#[test]
fn many_commands_run_during_a_suspension() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let (to, mut suspended) = room();
    let (confirms, confirmed) = crossbeam_channel::bounded(1);
    // More than a turn's, and no other wakes the worker.
    world.commands.send(WorkerCommand::Suspend(to)).unwrap();
    for _ in 0..3_000 {
        let message = Box::default();
        world
            .commands
            .send(WorkerCommand::SendSigned { node: NodeId(0), message, sealed: true })
            .unwrap();
    }
    world.tell(WorkerCommand::Confirm(confirms));
    let running = Running::start(world, parts);
    all_parts(&mut suspended);
    confirmed.recv_timeout(SOON).unwrap();
    running.stop();
}

#[test]
fn second_worker_continues_without_loss() {
    let shared = Shared::new();
    let (old, new) = (shared.start(false), shared.start(true));
    let phone = old.world.enter(0);
    old.confirm();
    let (speaker, talker) = (phone.socket.try_clone().unwrap(), shared.node.try_clone().unwrap());
    let slot = phone.home.slot;
    // Packets never stop, but as many wait as fit into a socket.
    let seen = Arc::new(AtomicUsize::new(0));
    let arrived = Arc::clone(&seen);
    let sender = std::thread::spawn(move || {
        for number in 0..3_000_u16 {
            while usize::from(number) > arrived.load(Ordering::Relaxed) + 100 {
                std::thread::yield_now();
            }
            let mut bundle = Bundle::new(1_200);
            assert!(bundle.push(tag(slot, 7), &video(number)));
            talker.send(bundle.as_bytes()).unwrap();
            speaker.send(&video(number)).unwrap();
        }
    });
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut collect = |count: usize| {
        until(|| {
            up.extend(came(&shared.node).into_iter().map(|(_, number)| number));
            down.extend(phone.heard());
            seen.store(up.len().min(down.len()), Ordering::Relaxed);
            (up.len() >= count && down.len() >= count).then_some(())
        });
        (up.clone(), down.clone())
    };
    collect(200);
    // The first attempt fails: the old worker resumes, and the new one has read nothing.
    drop(old.suspend());
    old.world.tell(WorkerCommand::Resume);
    collect(600);
    let state = old.suspend().remove(0);
    new.continue_with(&phone, &state);
    new.world.tell(WorkerCommand::Resume);
    let old = old.stop();
    let (up, down) = collect(3_000);
    sender.join().unwrap();
    let expected: Vec<u16> = (0..3_000).collect();
    assert!(up == expected && down == expected, "each once, and in order");
    let passed = |world: &World| world.stats.packets(MediaDirection::ToNode);
    let new = new.stop();
    assert_eq!(passed(&old) + passed(&new), 3_000);
    assert!(passed(&old) >= 600 && passed(&new) > 0);
}

#[test]
fn encrypted_trunk_continues_unnoticed() {
    let secret = NodeSecret::new(b"a secret of many bytes", "n").unwrap();
    let shared = Shared::new();
    let gateway = |salt| Some(Box::new(seal::GatewaySeal::new(secret.clone(), salt)));
    let (old, new) = (shared.start_with(gateway(1), false), shared.start_with(gateway(2), true));
    let phone = old.world.enter(0);
    old.confirm();
    let (mut node, at) =
        (seal::NodeSeal::new(secret.clone(), 2), shared.trunk.local_addr().unwrap());
    let receive = |node: &mut seal::NodeSeal| {
        let mut bytes = [0; 2_048];
        let length = until(|| shared.node.recv(&mut bytes).ok());
        let (content, sender) = node.open(&mut bytes[..length], at).unwrap();
        (content.to_vec(), sender)
    };
    // The node learns the socket from a message, and the socket the node from its answer.
    old.world.tell(WorkerCommand::SendSigned {
        node: NodeId(0),
        message: Box::from(&b"m"[..]),
        sealed: true,
    });
    let (_, sender) = receive(&mut node);
    node.learn(sender);
    let mut message = Vec::new();
    TrunkAnswer::Close { tag: Tag(1), status: OpenStatus::Ok }.write(
        &secret,
        1,
        unix_us(),
        &mut message,
    );
    let answer = |node: &mut seal::NodeSeal, content: &[u8]| {
        shared.node.send(node.seal(at, content).unwrap()).unwrap();
    };
    answer(&mut node, &message);
    let bundle = |number| {
        let mut bundle = Bundle::new(1_200);
        assert!(bundle.push(tag(0, 7), &video(number)));
        bundle.as_bytes().to_vec()
    };
    let mut exchange = |number| {
        phone.speak(number);
        let (content, sender) = receive(&mut node);
        assert_eq!((content, sender.is_new()), (bundle(number), false));
        answer(&mut node, &bundle(number));
        reach_phone(&phone, number..=number);
    };
    exchange(10);
    old.world.tell(WorkerCommand::LimitBundles { node: NodeId(0), size_max: 1_200 });
    let (mut states, trunks) = old.hand_out();
    let state = states.remove(0);
    for trunk in trunks {
        assert_eq!((trunk.node, trunk.size_max), (NodeId(0), 1_200));
        new.world.tell(WorkerCommand::ContinueTrunk(Box::new(handed_over(&trunk))));
    }
    new.continue_with(&phone, &state);
    old.stop();
    new.world.tell(WorkerCommand::Resume);
    exchange(11);
    assert_eq!(new.hand_out().1[0].size_max, 1_200);
    new.stop();
}

fn unix_us() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64
}

#[test]
fn port_leg_continues_with_duplicates() {
    let shared = Shared::new();
    let (old, new) = (shared.start(false), shared.start(true));
    let (phone, session) = old.world.phone(0);
    let (port, rtcp, node) = (socket(), socket(), socket());
    node.set_nonblocking(true).unwrap();
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    let ports = Some(Box::new(SessionPorts::new(port, Some(rtcp)).unwrap()));
    old.world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
    old.world.tell(WorkerCommand::Install(Box::new(Install { ports, ..session })));
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    old.world.tell(WorkerCommand::Attach { home: phone.home, hop: NODE, leg });
    old.confirm();
    let from_node = |number| _ = node.send_to(&video(number), to).unwrap();
    let numbers = || {
        let mut bytes = [0; 64];
        let (length, from) = until(|| node.recv_from(&mut bytes).ok());
        assert_eq!(from, to);
        rtp::RtpHeader::parse(&bytes[..length]).unwrap().sequence
    };
    (1..=40).for_each(from_node);
    phone.speak(1);
    reach_phone(&phone, 1..=40);
    assert_eq!(numbers(), 1);

    let Duplicate { state: _, ports } = old.duplicate();
    // Packets go on until the worker is suspended.
    from_node(41);
    reach_phone(&phone, 41..=41);
    let state = old.suspend().remove(0);
    // Epoll reported this port before. Its packets arrive in vain for the old worker.
    (42..=80).for_each(from_node);
    phone.speak(2);
    let (rtp, rtcp) = ports.unwrap();
    let ports = SessionPorts::new(rtp.into(), rtcp.map(UdpSocket::from)).unwrap();
    assert_eq!(ports.numbers().0, to.port());
    let (_, session) = new.world.phone(0);
    new.world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
    let (home, state) = (phone.home, Some(Box::new(handed_over(&state))));
    let install = Install { home, ports: Some(Box::new(ports)), state, ..session };
    new.world.tell(WorkerCommand::Install(Box::new(install)));
    new.confirm();
    old.stop();
    new.world.tell(WorkerCommand::Resume);
    reach_phone(&phone, 42..=80);
    assert_eq!(numbers(), 2);
    (81..=120).for_each(from_node);
    reach_phone(&phone, 81..=120);
    new.stop();
}

#[test]
fn suspended_worker_reads_its_ports_after_resume() {
    let shared = Shared::new();
    let running = shared.start(false);
    let (phone, session) = running.world.phone(0);
    let (port, node) = (socket(), socket());
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    let ports = Some(Box::new(SessionPorts::new(port, None).unwrap()));
    running.world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
    running.world.tell(WorkerCommand::Install(Box::new(Install { ports, ..session })));
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    running.world.tell(WorkerCommand::Attach { home: phone.home, hop: NODE, leg });
    drop(running.suspend());
    (1..=40).for_each(|number| _ = node.send_to(&video(number), to).unwrap());
    running.confirm();
    assert!(phone.heard().is_empty());
    running.world.tell(WorkerCommand::Resume);
    reach_phone(&phone, 1..=40);
    running.stop();
}

#[test]
fn port_read_in_part_is_read_on_after_resume() {
    let (world, mut worker) = World::new(0);
    let (port, node) = (socket(), socket());
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    let ports = Some(Box::new(SessionPorts::new(port, None).unwrap()));
    let install = Install { ports, ..install(ClientAddressing::Stun, Srtp::Plain, 0) };
    let home = install.home;
    world.tell(WorkerCommand::Install(Box::new(install)));
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    world.tell(WorkerCommand::Attach { home, hop: NODE, leg });
    worker.turn();
    (0..100).for_each(|number| _ = node.send_to(&video(number), to).unwrap());
    let (to, mut suspended) = room();
    world.tell(WorkerCommand::Suspend(to));
    let running = Running { world, thread: std::thread::spawn(move || worker.run()) };
    all_parts(&mut suspended);
    assert!((1..100).contains(&running.world.received()));
    running.world.tell(WorkerCommand::Resume);
    until(|| (running.world.received() == 100).then_some(()));
    running.stop();
}

fn packets_up(state: SessionState) -> u64 {
    let install = install(ClientAddressing::Stun, Srtp::Plain, 0);
    let session = WorkerSession::new(Install { state: Some(Box::new(state)), ..install });
    session.totals(Instant::now()).packets_up
}

/// Starts two workers, each with a ring to the other. The first has the listener, the second the phone's session.
fn pair() -> (Running, Running, Phone, UdpSocket) {
    let (one, other) = (Shared::new(), Shared::new());
    let ((world, parts), (home, home_parts)) = (one.parts(None), other.parts(None));
    let (to_home, from_first) = ring::channel(1_024).unwrap();
    let (to_first, from_home) = ring::channel(1_024).unwrap();
    let first = WorkerParts {
        from_workers: vec![from_home],
        to_workers: vec![None, Some(to_home)],
        gather: Duration::ZERO,
        ..parts
    };
    let second = WorkerParts {
        number: 1,
        from_workers: vec![from_first],
        to_workers: vec![Some(to_first), None],
        gather: Duration::ZERO,
        flows: Arc::clone(&world.flows),
        ..home_parts
    };
    let (mut phone, install) = world.phone(0);
    phone.home = Home { worker: 1, ..phone.home };
    world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
    home.tell(WorkerCommand::Install(Box::new(Install { home: phone.home, ..install })));
    let listener = one.listener.0;
    listener.set_nonblocking(true).unwrap();
    (Running::start(world, first), Running::start(home, second), phone, listener)
}

#[test]
fn packets_between_workers_are_handled_first() {
    let (first, second, phone, listener) = pair();
    second.confirm();
    // The session has no leg.
    let handled = || second.world.stats.drops(DropReason::NotOpened);
    let (mut sent, mut left) = (0, 0);
    while sent < 2_000 {
        let before = handled();
        (0..40).for_each(|number| phone.speak(sent + number));
        sent += 40;
        until(|| (handled() > before).then_some(()));
        let (to, mut states) = room();
        second.world.tell(WorkerCommand::Suspend(to.clone()));
        first.world.tell(WorkerCommand::Suspend(to));
        let states = [(); 2].map(|()| all_parts(&mut states).0);
        let state = states.into_iter().flatten().next().unwrap();
        while listener.recv(&mut [0; 64]).is_ok() {
            left += 1;
        }
        assert_eq!(packets_up(state) + left, u64::from(sent), "handled, or not read");
        for worker in [&first, &second] {
            worker.world.tell(WorkerCommand::Resume);
        }
    }
    first.stop();
    second.stop();
}

#[test]
fn suspension_does_not_wait_for_a_dead_worker() {
    let (first, second, phone, _listener) = pair();
    phone.speak(1);
    until(|| (second.world.stats.drops(DropReason::NotOpened) > 0).then_some(()));
    first.stop();
    assert_eq!(second.suspend().len(), 1);
    second.stop();
}

#[test]
fn early_packets_are_counted_at_the_end() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let early_limits = EarlyLimits { packets: 4, wait: SOON };
    let running = Running::start(world, WorkerParts { early_limits, ..parts });
    let (phone, install) = running.world.phone(0);
    running.world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
    running.world.tell(WorkerCommand::Install(Box::new(install)));
    (1..=3).for_each(|number| phone.speak(number));
    until(|| {
        let up = packets_up(running.suspend().remove(0));
        running.world.tell(WorkerCommand::Resume);
        (up == 3).then_some(())
    });
    assert_eq!(running.world.stats.drops(DropReason::NotOpened), 0, "they wait for the leg");
    let world = running.stop();
    assert_eq!(world.stats.drops(DropReason::NotOpened), 3);
}

#[test]
fn srtp_is_sent_only_with_the_counters_of_another_process() {
    let offered = ["1 AEAD_AES_128_GCM inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==".parse()];
    let keys = Arc::new(SrtpKeys::accept(offered, |bytes| bytes.fill(9)).unwrap());
    for suspended in [false, true] {
        let shared = Shared::new();
        let running = shared.start(suspended);
        let (phone, plain) = running.world.phone(0);
        let media = MediaDescription { srtp: Srtp::Terminated, ..(*plain.media).clone() };
        let (media, srtp) = (Arc::new(media), Some(SrtpKeying::Sdes(Arc::clone(&keys))));
        let phone = running.world.admit(phone, Install { media, srtp, ..plain });
        running.world.tell(WorkerCommand::Resume);
        running.confirm();
        answer(&shared.node, &phone, 1);
        let refused = || running.world.stats.drops(DropReason::SrtpIndex);
        until(|| (refused() > 0 || phone.socket.recv(&mut [0; 256]).is_ok()).then_some(()));
        assert_eq!(refused(), u64::from(suspended));
        let mut world = running.stop();
        let reports = std::iter::from_fn(|| world.reports.try_recv().ok());
        let is_end =
            |report: &_| matches!(report, WorkerReport::Ended(_, CloseReason::SrtpCountersLost));
        assert_eq!(reports.filter(is_end).count(), usize::from(suspended));
    }
}

#[test]
fn forgotten_session_reports_no_end() {
    let offered = ["1 AEAD_AES_128_GCM inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==".parse()];
    let keys = Arc::new(SrtpKeys::accept(offered, |bytes| bytes.fill(9)).unwrap());
    for forgets in [false, true] {
        let running = Shared::new().start(true);
        let (phone, plain) = running.world.phone(0);
        let media = MediaDescription { srtp: Srtp::Terminated, ..(*plain.media).clone() };
        let (media, srtp) = (Arc::new(media), Some(SrtpKeying::Sdes(Arc::clone(&keys))));
        running.world.admit(phone, Install { media, srtp, ..plain });
        if forgets {
            running.world.tell(WorkerCommand::ForgetRestored);
        }
        running.world.tell(WorkerCommand::Resume);
        running.confirm();
        let mut world = running.stop();
        let ended = std::iter::from_fn(|| world.reports.try_recv().ok())
            .any(|report| matches!(report, WorkerReport::Ended(..)));
        assert_eq!(ended, !forgets, "the owner goes on with it");
    }
}
