//! The loop itself, and what it does with what is ready.

use std::net::Ipv4Addr;

use evenkeel_core::{Hop, Incarnation, Srtp, Stamp};

use super::session::tests::install;
use super::*;

const LONG: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(60);

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// What others hold of a worker that has one node and these listeners, which are open to strangers: it tells of each
/// packet of theirs.
struct World {
    listeners: Vec<SocketAddr>,
    commands: crossbeam_channel::Sender<Command>,
    bell: Arc<Bell>,
    stamps: Arc<Stamps>,
    reports: mpsc::Receiver<Report>,
}

impl World {
    fn new(listeners: usize) -> (World, Worker) {
        let now = Instant::now();
        let (rtp, rtcp): (Vec<_>, Vec<_>) = (0..listeners).map(|_| (socket(), socket())).unzip();
        let addresses = rtp.iter().chain(&rtcp).map(|socket| socket.local_addr().unwrap());
        let addresses = addresses.collect();
        let listener = |(rtp, rtcp)| ListenerParts { rtp, rtcp: Some(rtcp), open: true };
        let (told, commands) = crossbeam_channel::bounded(COMMANDS_MAX);
        let (says, reports) = mpsc::channel(1_024);
        let bell = Arc::new(Bell::new().unwrap());
        let stamps = Arc::new(Stamps::new(now, 1));
        let parts = Parts {
            number: 0,
            listeners: rtp.into_iter().zip(rtcp).map(listener).collect(),
            trunks: vec![None],
            from_quic: None,
            to_quic: None,
            from_workers: Vec::new(),
            to_workers: vec![None],
            commands,
            bell: Arc::clone(&bell),
            reports: says,
            stamps: Arc::clone(&stamps),
            flows: Arc::new(Flows::new(1)),
            board: Arc::new(Board::new(1)),
            patience: Patience { packets: 0, wait: Duration::ZERO },
            misses_per_prefix: u32::MAX,
            gather: LONG,
        };
        let worker = Worker::new(parts, now).unwrap();
        (World { listeners: addresses, commands: told, bell, stamps, reports }, worker)
    }

    /// A packet from a stranger, served by the worker's thread.
    fn serve(&mut self, stranger: &UdpSocket) {
        stranger.send_to(&PACKET, self.listeners[0]).unwrap();
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            match self.reports.try_recv() {
                Ok(Report::Knock { .. }) => return,
                Ok(other) => panic!("{other:?}"),
                Err(_) => std::thread::yield_now(),
            }
        }
        panic!("nobody took it");
    }

    fn tell(&self, command: Command) {
        self.commands.send(command).unwrap();
        self.bell.ring();
    }

    /// Packets that came from the node.
    fn received(&self) -> u64 {
        let mut all = [Stamp::default()];
        self.stamps.merge_into(&mut all);
        all[0].received
    }
}

/// RTP of payload type 111.
const PACKET: [u8; 12] = [0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Worker {
    /// A pass over what is ready now; how much was.
    fn turn(&mut self) -> usize {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        self.wait(&mut events, Duration::ZERO).unwrap();
        self.pass(&events, Instant::now());
        events.len()
    }
}

#[test]
fn packets_that_keep_coming_gather() {
    let (mut world, worker) = World::new(1);
    let thread = std::thread::spawn(move || worker.run());
    let stranger = socket();
    world.serve(&stranger);
    // The next one comes at once: whatever comes after it gathers. On a machine that held us up it may be a first one
    // again.
    let gathered = (0..10).any(|_| {
        let began = Instant::now();
        world.serve(&stranger);
        began.elapsed() >= LONG / 2
    });
    assert!(gathered, "each was served at once");
    world.tell(Command::Stop);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_worker_does_not_pause_while_more_is_ready_than_it_is_told_of_at_a_time() {
    let (world, mut worker) = World::new(150);
    let stranger = socket();
    for listener in &world.listeners {
        stranger.send_to(&PACKET, listener).unwrap();
    }
    assert_eq!((worker.turn(), worker.left_some()), (EVENTS_MAX, true));
    assert_eq!((worker.turn(), worker.left_some()), (300 - EVENTS_MAX, false));
    assert_eq!(world.reports.len(), 300);
}

#[test]
fn a_port_that_tells_once_is_read_to_its_end() {
    let (world, mut worker) = World::new(0);
    let (port, node) = (socket(), socket());
    let (to, address) = (port.local_addr().unwrap(), node.local_addr().unwrap());
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    let ports = Some(Box::new(Ports::new(port, None).unwrap()));
    let install = Install { ports, ..install(Client::Stun, Srtp::Plain, 0) };
    let home = install.home;
    world.tell(Command::Install(Box::new(install)));
    let leg = Leg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
    world.tell(Command::Attach { home, hop, leg });
    worker.turn();
    for _ in 0..40 {
        node.send_to(&PACKET, to).unwrap();
    }
    assert_eq!(worker.turn(), 1);
    while worker.left_some() {
        assert_eq!(worker.turn(), 0, "it is not told of again");
    }
    assert_eq!(world.received(), 40);
}

#[test]
fn packets_have_their_turn_between_many_commands() {
    let (world, mut worker) = World::new(1);
    for _ in 0..3_000 {
        world.tell(Command::Sign { node: NodeId(0), message: Box::default() });
    }
    let mut turns = 0;
    loop {
        worker.turn();
        turns += 1;
        if !worker.left_some() {
            break;
        }
    }
    assert_eq!((turns, world.commands.len()), (3, 0));
}
