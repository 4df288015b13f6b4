//! Workers whose lease ends.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

impl PacketWorker {
    /// Runs a pass that began while the lease was held, in a process that was stopped before it sent.
    fn late_turn(&mut self, lease: &SendLease) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        self.wait(&mut events, Duration::ZERO).unwrap();
        let began = Instant::now();
        lease.renew(began + Duration::from_nanos(1));
        assert!(lease.is_held(|| began));
        self.guarded_pass(&events, began);
    }
}

/// Adds a phone whose session has a port of its own towards a node, and returns that node and the port's address.
fn enter_with_port(world: &World, slot: u32) -> (Phone, UdpSocket, SocketAddr) {
    let (port, node) = (socket(), socket());
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    node.set_nonblocking(true).unwrap();
    let (phone, install) = world.phone(slot);
    let ports = Some(Box::new(SessionPorts::new(port, None).unwrap()));
    world.flows.insert(phone.key(), FlowEntry::of(phone.home)).unwrap();
    world.tell(WorkerCommand::Install(Box::new(Install { ports, ..install })));
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    world.tell(WorkerCommand::Attach { home: phone.home, hop: NODE, leg });
    (phone, node, to)
}

#[test]
fn packets_wait_for_a_renewed_lease() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let lease = Arc::clone(&parts.lease);
    let running = Running::start(world, WorkerParts { gather: Duration::ZERO, ..parts });
    let phone = running.world.enter(0);
    let (port_phone, port_node, port) = enter_with_port(&running.world, 1);
    running.confirm();
    lease.renew(Instant::now() + HOUR);
    phone.speak(9);
    reach_node(&shared.node, &phone, 9..10);

    lease.end();
    for number in 10..20 {
        phone.speak(number);
        answer(&shared.node, &phone, number);
        port_phone.speak(number);
        port_node.send_to(&video(number), port).unwrap();
    }
    // Commands run, and their packets wait as well.
    let message = Box::from(*b"signed");
    running.world.tell(WorkerCommand::SendSigned { node: NodeId(0), message, sealed: true });
    running.confirm();
    running.confirm();
    let waiting = Instant::now();
    let nothing = |node: &UdpSocket| node.recv(&mut [0; 64]).is_err();
    assert!(nothing(&shared.node) && nothing(&port_node));
    assert!(phone.heard().is_empty() && port_phone.heard().is_empty());
    until(|| (running.world.stats.take_lateness(Instant::now()) > Duration::ZERO).then_some(()));

    let lasted = waiting.elapsed();
    lease.renew(Instant::now() + HOUR);
    let mut message = [0; 64];
    until(|| shared.node.recv(&mut message).ok());
    assert_eq!(&message[..6], b"signed");
    reach_node(&shared.node, &phone, 10..20);
    reach_phone(&phone, 10..20);
    reach_phone(&port_phone, 10..20);
    let mut came = 0;
    until(|| {
        came += usize::from(port_node.recv(&mut message).is_ok());
        (came == 10).then_some(())
    });
    running.confirm();
    assert!(running.world.stats.take_lateness(Instant::now()) >= lasted, "so long packets waited");
    let world = running.stop();
    assert_eq!(world.stats.drops(DropReason::Fenced), 0);
}

#[test]
fn stopped_worker_sends_nothing_after_its_lease() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let lease = Arc::clone(&parts.lease);
    let mut worker = PacketWorker::new(parts, Instant::now()).unwrap();
    let phone = world.enter(0);
    let (port_phone, port_node, _) = enter_with_port(&world, 1);
    worker.turns();
    // More than a queue holds, and more than a port's.
    (0..100).for_each(|number| phone.speak(number));
    (0..100).for_each(|number| answer(&shared.node, &phone, number));
    (0..20).for_each(|number| port_phone.speak(number));
    worker.late_turn(&lease);
    worker.late_turn(&lease);
    assert!(came(&shared.node).is_empty() && phone.heard().is_empty());
    assert!(port_node.recv(&mut [0; 64]).is_err());
    assert!(worker.egress.permit.held_back.get());

    lease.renew(Instant::now() + HOUR);
    worker.turns();
    reach_node(&shared.node, &phone, 0..100);
    reach_phone(&phone, 0..100);
    let mut bytes = [0; 64];
    let numbers = std::iter::from_fn(|| {
        let length = port_node.recv(&mut bytes).ok()?;
        Some(rtp::RtpHeader::parse(&bytes[..length]).unwrap().sequence)
    });
    assert!(numbers.eq(0..20));
    assert!(!worker.egress.permit.held_back.get());
}

#[test]
fn suspended_worker_without_a_lease_drops_its_output() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let lease = Arc::clone(&parts.lease);
    let parts = WorkerParts { gather: Duration::ZERO, ..parts };
    let mut worker = PacketWorker::new(parts, Instant::now()).unwrap();
    let phone = world.enter(0);
    let (port_phone, port_node, port) = enter_with_port(&world, 1);
    worker.turns();
    // Four packets are handled and not sent.
    phone.speak(0);
    answer(&shared.node, &phone, 0);
    port_phone.speak(0);
    port_node.send_to(&video(0), port).unwrap();
    worker.late_turn(&lease);
    worker.late_turn(&lease);
    lease.end();
    let running = Running { world, thread: std::thread::spawn(move || worker.run()) };
    assert_eq!(running.suspend().len(), 2);
    until(|| (running.world.stats.drops(DropReason::Fenced) == 4).then_some(()));

    lease.renew(Instant::now() + HOUR);
    running.world.tell(WorkerCommand::Resume);
    phone.speak(50);
    answer(&shared.node, &phone, 50);
    reach_node(&shared.node, &phone, 50..51);
    reach_phone(&phone, std::iter::once(50));
    assert!(port_phone.heard().is_empty() && port_node.recv(&mut [0; 64]).is_err());
    let world = running.stop();
    assert_eq!(world.stats.drops(DropReason::Fenced), 4);
}

#[test]
fn signed_messages_without_a_lease_are_bounded() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let lease = Arc::clone(&parts.lease);
    let mut worker = PacketWorker::new(parts, Instant::now()).unwrap();
    lease.end();
    for _ in 0..100 {
        let message = Box::from(*b"signed");
        world.tell(WorkerCommand::SendSigned { node: NodeId(0), message, sealed: true });
    }
    worker.turns();
    let sent = 100 - world.stats.drops(DropReason::Fenced);
    assert!((1..100).contains(&sent));
    lease.renew(Instant::now() + HOUR);
    worker.turn();
    let arrived = std::iter::from_fn(|| shared.node.recv(&mut [0; 64]).ok()).count();
    assert_eq!(arrived as u64, sent);
}

#[test]
fn worker_of_a_standby_is_late_only_since_it_resumed() {
    let shared = Shared::new();
    let (world, parts) = shared.parts(None);
    let lease = Arc::clone(&parts.lease);
    lease.end();
    let stands_by = Instant::now();
    let running =
        Running::start(world, WorkerParts { suspended: true, gather: Duration::ZERO, ..parts });
    std::thread::sleep(Duration::from_millis(300));
    running.confirm();
    let stood_by = stands_by.elapsed();
    running.world.tell(WorkerCommand::Resume);
    let late = || {
        let late = running.world.stats.take_lateness(Instant::now());
        assert!(late < stood_by / 2, "{late:?}");
        late
    };
    until(|| (late() > Duration::ZERO).then_some(()));
    lease.renew(Instant::now() + HOUR);
    until(|| late().is_zero().then_some(()));
    running.stop();
}
