//! The loop itself: a listener that is open to strangers tells of each packet.

use std::net::Ipv4Addr;

use super::*;

const LONG: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(60);

struct World {
    address: SocketAddr,
    commands: crossbeam_channel::Sender<Command>,
    bell: Arc<Bell>,
    reports: mpsc::Receiver<Report>,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl World {
    /// A worker with one listener.
    fn start() -> World {
        let now = Instant::now();
        let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = rtp.local_addr().unwrap();
        let (told, commands) = crossbeam_channel::bounded(1);
        let (says, reports) = mpsc::channel(16);
        let bell = Arc::new(Bell::new().unwrap());
        let parts = Parts {
            number: 0,
            listeners: vec![ListenerParts { rtp, rtcp: None, open: true }],
            trunks: Vec::new(),
            from_quic: None,
            to_quic: None,
            from_workers: Vec::new(),
            to_workers: vec![None],
            commands,
            bell: Arc::clone(&bell),
            reports: says,
            stamps: Arc::new(Stamps::new(now, 0)),
            flows: Arc::new(Flows::new(1)),
            board: Arc::new(Board::new(0)),
            patience: Patience { packets: 0, wait: Duration::ZERO },
            misses_per_prefix: u32::MAX,
            gather: LONG,
        };
        let worker = Worker::new(parts, now).unwrap();
        let thread = std::thread::spawn(move || worker.run());
        World { address, commands: told, bell, reports, thread }
    }

    /// A packet from a stranger, served.
    fn serve(&mut self, stranger: &UdpSocket) {
        let mut packet = [0; 12];
        packet[..2].copy_from_slice(&[0x80, 111]);
        stranger.send_to(&packet, self.address).unwrap();
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

    fn end(self) {
        self.commands.send(Command::Stop).unwrap();
        self.bell.ring();
        self.thread.join().unwrap().unwrap();
    }
}

#[test]
fn packets_that_keep_coming_gather() {
    let mut world = World::start();
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    world.serve(&stranger);
    // The next one comes at once: whatever comes after it gathers. On a machine that held us up it may be a first one
    // again.
    let gathered = (0..10).any(|_| {
        let began = Instant::now();
        world.serve(&stranger);
        began.elapsed() >= LONG / 2
    });
    assert!(gathered, "each was served at once");
    world.end();
}
