//! A driver that the product does not have: its keys, its protocol and its records stand in this file.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use evenkeel_config::{
    DriverKey, DriverKeys, DriverKind, DriverSettings, GatewayConfig, NodeConfig, NodeProbe,
    NodeSrtp, Signalling,
};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::{NodeLeg, NodePort};
use evenkeel_drivers::{
    Clock, ContinuedSession, DRIVERS, Driver, DriverAction, DriverContext, Drivers, DriversRecord,
    LeaseRecord, LeaseState, LocalSource, NodeDriver, NodeInput, OpenRequest, RecordScope,
    Transport, kinds,
};
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_model::{Hop, Incarnation, NodeId, RoomId, SessionId, Srtp};

use crate::drivers::assert_two_clients_hear;
use crate::harness::{Node, World};

/// Requests are repeated at this interval until they are answered.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Sessions are refreshed at this interval.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// Lines of text as datagrams: `WORD open NONCE`, answered by `ok NONCE ADDRESS`; `WORD keep NONCE`; `WORD close NONCE`.
struct Lines;

impl DriverKind for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const { &[DriverKey::new("address"), DriverKey::only("word", "only lines begin with it")] }
    }

    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let word = keys.require::<String>("word", "`word`, which begins each line")?;
        if word.get_ref().contains(char::is_whitespace) {
            keys.refuse(word.span(), "a word with a space", "one word", None);
        }
        let word = word.into_inner();
        let settings = DriverSettings::new(self.name(), NodeProbe::Echo, Signalling::Datagrams);
        Some(DriverSettings { session_facts: word.clone(), ..settings }.showing("word", word))
    }
}

impl Driver for Lines {
    fn start(
        &self,
        node: NodeId,
        config: &NodeConfig,
        _context: &DriverContext,
    ) -> Box<dyn NodeDriver> {
        let word = config.driver.keys["word"].as_str().expect("the driver reads a text");
        let (word, leases) = (word.to_owned(), BTreeMap::new());
        Box::new(LinesNode { node, word, leases, actions: VecDeque::new() })
    }
}

struct LinesNode {
    node: NodeId,
    word: String,
    leases: BTreeMap<(SessionId, Hop), Lease>,
    actions: VecDeque<DriverAction>,
}

struct Lease {
    nonce: u64,
    /// Where the node takes its packets, once it has answered.
    port: Option<SocketAddr>,
    /// The next line about it.
    due: Instant,
}

impl LinesNode {
    fn send(&self, verb: &str, nonce: u64) -> DriverAction {
        let line = format!("{} {verb} {nonce:x}", self.word);
        let (node, transport) = (self.node, Transport::Datagram);
        DriverAction::Send { node, transport, bytes: line.into_bytes().into() }
    }

    fn answered(&mut self, line: &[u8], now: Instant) -> Option<DriverAction> {
        let rest = std::str::from_utf8(line).ok()?.strip_prefix("ok ")?;
        let (nonce, address) = rest.split_once(' ')?;
        let nonce = u64::from_str_radix(nonce, 16).ok()?;
        let address: SocketAddr = address.parse().ok()?;
        let mut leases = self.leases.iter_mut();
        let (&(session, hop), lease) = leases.find(|(_, lease)| lease.nonce == nonce)?;
        lease.due = now + REFRESH_EVERY;
        let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }));
        let opened = DriverAction::Opened { session, hop, leg };
        lease.port.replace(address).is_none().then_some(opened)
    }
}

impl NodeDriver for LinesNode {
    fn open(
        &mut self,
        request: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        let (nonce, due) = (draw(), clock.now + ASK_AGAIN);
        self.leases.insert((request.session, request.hop), Lease { nonce, port: None, due });
        Some(self.send("open", nonce))
    }

    fn close(&mut self, session: SessionId, hop: Hop, _clock: Clock) -> Option<DriverAction> {
        let lease = self.leases.remove(&(session, hop))?;
        Some(self.send("close", lease.nonce))
    }

    fn handle(
        &mut self,
        input: NodeInput,
        _draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        let NodeInput::Datagram(line) = input else { return None };
        self.answered(&line, clock.now)
    }

    fn poll(&mut self, clock: Clock) -> Option<DriverAction> {
        let mut due = Vec::new();
        for lease in self.leases.values_mut().filter(|lease| lease.due <= clock.now) {
            let is_open = lease.port.is_some();
            lease.due = clock.now + if is_open { REFRESH_EVERY } else { ASK_AGAIN };
            due.push((if is_open { "keep" } else { "open" }, lease.nonce));
        }
        let lines: Vec<_> = due.into_iter().map(|(verb, nonce)| self.send(verb, nonce)).collect();
        self.actions.extend(lines);
        self.actions.pop_front()
    }

    fn record(&self, scope: RecordScope, record: &mut DriversRecord) {
        for (&(session, hop), lease) in &self.leases {
            let is_named = match scope {
                RecordScope::All => true,
                RecordScope::Session { session: named, hop: at, .. } => {
                    (named, at) == (session, hop)
                }
            };
            if let Some(port) = lease.port.filter(|_| is_named) {
                let state = LeaseState::new(format!("{:x} {port}", lease.nonce).into_bytes());
                record.add(LeaseRecord { session, hop, has_ports: true, state });
            }
        }
    }

    fn restore(
        &mut self,
        record: DriversRecord,
        _known: &ContinuedSession<'_>,
        _draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        for lease in record.leases().iter().filter(|lease| lease.has_ports) {
            let state = std::str::from_utf8(lease.state.bytes()).unwrap_or_default();
            if let Some((nonce, port)) = state.split_once(' ')
                && let (Ok(nonce), Ok(port)) = (u64::from_str_radix(nonce, 16), port.parse())
            {
                let known = Lease { nonce, port: Some(port), due: now };
                self.leases.insert((lease.session, lease.hop), known);
            }
        }
    }
}

static WITH_LINES: [&dyn Driver; 2] = [DRIVERS[0], &Lines];

/// A media server that is told of sessions by lines; all send to this address. Returns its own one, and the lines.
fn server(media: SocketAddr) -> (SocketAddr, mpsc::Receiver<String>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (sender, lines) = mpsc::channel();
    // The thread ends with the process.
    std::thread::spawn(move || {
        let mut bytes = [0; 2_048];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            let text = std::str::from_utf8(&bytes[..length]).unwrap_or_default();
            let Some(line) = text.strip_prefix("please ") else {
                // A probe.
                socket.send_to(&bytes[..length], from).unwrap();
                continue;
            };
            let _no_receiver = sender.send(line.to_owned());
            if let Some(nonce) = line.strip_prefix("open ") {
                socket.send_to(format!("ok {nonce} {media}").as_bytes(), from).unwrap();
            }
        }
    });
    (address, lines)
}

fn world(address: SocketAddr, keys: &str) -> World {
    let mut world = World::of(&[]);
    world.drivers = &WITH_LINES;
    world.nodes = format!(
        "[[node]]\nname = \"east-a1\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"200 Mbit/s\"\n\
         driver = \"lines\"\naddress = \"{address}\"\n{keys}\n"
    );
    world
}

#[test]
fn driver_of_one_file_opens_sessions() {
    let node = Node::plain("media", "echo", PlainRoom::Shared);
    let (address, lines) = server(node.address);
    let mut gateway = world(address, "word = \"please\"").start();
    assert_two_clients_hear(&gateway);
    gateway.end();
    let lines: Vec<String> = lines.try_iter().collect();
    let nonces = |verb: &str| {
        let mut nonces: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(verb)).collect();
        nonces.sort_unstable();
        nonces.dedup();
        nonces
    };
    assert_eq!(nonces("open ").len(), 2, "{lines:?}");
    assert_eq!(nonces("open "), nonces("close "), "{lines:?}");
}

#[test]
fn keys_of_an_own_driver_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let load = |keys: &str| {
        let file = world(([127, 0, 0, 1], 9).into(), keys).write(folder.path());
        let loaded = GatewayConfig::load(Some(&file), None, &kinds(&WITH_LINES));
        loaded.map(|settings| settings.nodes).map_err(|invalid| {
            invalid.iter().map(|invalid| format!("{invalid}")).collect::<Vec<_>>().join("\n")
        })
    };
    assert_eq!(load("word = \"please\"").unwrap()[0].driver.name, "lines");
    for (keys, refused) in [
        ("", "found driver `lines` without `word`, expected `word`, which begins each line"),
        ("word = 1", "found integer `1`, expected a string"),
        ("word = \"a b\"", "found a word with a space, expected one word"),
        (
            "word = \"a\"\nprobe = \"stun\"",
            "found `probe` with driver `lines`, expected `probe` with driver `plain` only",
        ),
        ("wrod = \"a\"", "found unknown key `wrod`, expected one of `name`"),
    ] {
        let found = load(keys).unwrap_err();
        assert!(found.starts_with(refused), "{keys}: {found}");
    }
}

#[test]
fn sessions_of_an_own_driver_continue_in_another_process() {
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    let request = OpenRequest {
        session: SessionId(7),
        home: Home { worker: 0, slot: 0, generation: 1 },
        room: RoomId(1),
        hop,
        address: None,
        rtcp_apart: false,
        client_srtp: Srtp::Plain,
        srtp: NodeSrtp::Off,
        facts: None,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = world(([127, 0, 0, 1], 9).into(), "word = \"please\"").write(folder.path());
    let settings = GatewayConfig::load(Some(&file), None, &kinds(&WITH_LINES)).unwrap();
    let process = || {
        let source = LocalSource::Bound(IpAddr::from(Ipv4Addr::LOCALHOST));
        let mut drivers = Drivers::new(&WITH_LINES, source, Default::default());
        drivers.put(hop.node, Some(&settings.nodes[0]));
        drivers
    };
    let text = |action: Option<DriverAction>| match action {
        Some(DriverAction::Send { bytes, .. }) => String::from_utf8(bytes.to_vec()).unwrap(),
        action => panic!("{action:?}"),
    };
    let (mut before, clock) = (process(), Clock::read());
    assert_eq!(text(before.open(&request, &mut || 0xab, clock)), "please open ab");
    let answer = NodeInput::Datagram(b"ok ab 127.0.0.1:4000"[..].into());
    let opened = before.handle(hop.node, answer, &mut || 0, clock);
    assert!(matches!(opened, Some(DriverAction::Opened { session: SessionId(7), .. })));
    let record = serde_json::to_string(&before.record()).unwrap();
    let moved = Hop { node: NodeId(0), incarnation: Incarnation(5) };
    let known = ContinuedSession { hop: &|_, _| Some(moved), facts: &|_| None };
    let mut after = process();
    after.restore(serde_json::from_str(&record).unwrap(), &known, &mut || 0, clock.now);
    assert_eq!(text(after.poll(clock)), "please keep ab");
    assert!(after.poll(clock).is_none());
    assert_eq!(text(after.close(SessionId(7), moved, clock)), "please close ab");
}
