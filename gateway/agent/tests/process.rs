//! Runs an agent as a process between a gateway and a media server played by the test.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel_agent::{Config, run};
use evenkeel_media::trunk::message::{
    NodeFault, NodeLoad, NodeSecret, OpenStatus, OrderOutcome, ServingState, TrunkAnswer,
    TrunkQuestion,
};
use evenkeel_media::trunk::{Bundle, Tag, entries};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SECRET: &str = "what both ends know of each other";
const PATIENCE: Duration = Duration::from_secs(20);
const CONFIG: &str = "EVENKEEL_TEST_AGENT";

/// Runs the agent in a separate process: this test binary, started again.
#[test]
#[ignore = "started by the other tests"]
fn agent_process() {
    if let Some(path) = std::env::var_os(CONFIG) {
        let config = Config::load(Path::new(&path)).unwrap_or_else(|wrong| panic!("{wrong}"));
        run(config, true).unwrap();
    }
}

struct Scene {
    agent: Child,
    said: Lines<BufReader<ChildStdout>>,
    gateway: UdpSocket,
    folder: PathBuf,
    nonce: u64,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The first SIGTERM drains, the second ends the agent at once. SIGKILL would orphan the process that the agent
        // started.
        while let Ok(None) = self.agent.try_wait() {
            self.signal(Signal::SIGTERM);
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn secret() -> NodeSecret {
    NodeSecret::new(SECRET.as_bytes(), "east-a1").unwrap()
}

fn voice(number: u8) -> Vec<u8> {
    [&[0x80, 111, 0, number][..], &[0; 8], b"voice"].concat()
}

/// A receiver report without a block.
const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 7];

impl Scene {
    fn new(name: &str, config: &str) -> Scene {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("secret"), SECRET).unwrap();
        let file = folder.join("agent.toml");
        let head = "name = \"east-a1\"\nlisten = \"127.0.0.1:0\"\nsecret_file = \"secret\"\n";
        std::fs::write(&file, format!("{head}{config}")).unwrap();
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent_process", "--ignored", "--nocapture"])
            .env(CONFIG, &file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(agent.stdout.take().unwrap()).lines();
        let address = said.by_ref().map(Result::unwrap).find_map(|line| {
            let (_, address) = line.split_once("\"listening\":\"")?;
            Some(address.trim_end_matches(['"', '}']).parse::<SocketAddr>().unwrap())
        });
        let gateway = socket();
        gateway.connect(address.unwrap()).unwrap();
        Scene { agent, said, gateway, folder, nonce: 0 }
    }

    fn send_question(&mut self, question: &TrunkQuestion) {
        self.nonce += 1;
        let mut bytes = Vec::new();
        question.write(&secret(), self.nonce, now_us(), &mut bytes);
        self.gateway.send(&bytes).unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2_000];
        let length = self.gateway.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    /// Waits for the first answer that `see` accepts.
    fn receive_answer<T>(&self, mut see: impl FnMut(TrunkAnswer) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = TrunkAnswer::read(&self.receive(), &secret(), now_us());
            if let Some(found) = answer.ok().and_then(|answer| see(answer.message)) {
                return found;
            }
            assert!(Instant::now() < until, "no such answer");
        }
    }

    /// Probes until the agent reports this state.
    fn wait_for(&mut self, state: ServingState) -> NodeLoad {
        let until = Instant::now() + PATIENCE;
        loop {
            self.send_question(&TrunkQuestion::Probe);
            let load = self.receive_answer(|answer| match answer {
                TrunkAnswer::Probe(load) => Some(load),
                _ => None,
            });
            if load.state == state {
                return load;
            }
            assert!(Instant::now() < until, "{load:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn notice(&mut self) -> ServingState {
        let (number, state) = self.receive_answer(|answer| match answer {
            TrunkAnswer::Notice { number, load } => Some((number, load.state)),
            _ => None,
        });
        self.send_question(&TrunkQuestion::Noted { number });
        state
    }

    fn order(&mut self, how: NodeFault) -> OrderOutcome {
        self.send_question(&TrunkQuestion::Break(how));
        self.receive_answer(|answer| match answer {
            TrunkAnswer::Break(outcome) => Some(outcome),
            _ => None,
        })
    }

    fn open(&mut self, tag: u64) -> OpenStatus {
        self.send_question(&TrunkQuestion::Open {
            room: 5,
            session: 6,
            tag: Tag(tag),
            lease_s: 30,
            numbered: false,
        });
        self.receive_answer(|answer| match answer {
            TrunkAnswer::Open { status, .. } => Some(status),
            _ => None,
        })
    }

    fn send(&self, tag: u64, packet: &[u8]) {
        let mut bundle = Bundle::new(1_472);
        assert!(bundle.push(Tag(tag), packet));
        self.gateway.send(bundle.as_bytes()).unwrap();
    }

    fn packet(&self) -> (Tag, Vec<u8>) {
        let bytes = self.receive();
        let (tag, packet) = entries(&bytes).next().unwrap().unwrap();
        (tag, packet.to_vec())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.agent.id().cast_signed()), signal).unwrap();
    }
}

/// Sends the server's next packet back to its source.
fn reflect(server: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2_000];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..length], from).unwrap();
    buffer[..length].to_vec()
}

const PROCESS: &str = "[process]\ncommand = [\"/bin/sleep\", \"600\"]\nrestart_after = \"50ms\"\n";

#[test]
fn packets_pass_both_ways_and_exit_is_notified() {
    let server = socket();
    let media = format!("[media]\nserver = \"{}\"\n", server.local_addr().unwrap());
    let mut scene = Scene::new("media", &format!("drills = true\n{PROCESS}{media}"));
    scene.wait_for(ServingState::Serving);
    assert_eq!(scene.open(7), OpenStatus::Ok);
    for packet in [&voice(1)[..], &REPORT] {
        scene.send(7, packet);
        assert_eq!(reflect(&server), packet);
        assert_eq!(scene.packet(), (Tag(7), packet.to_vec()));
    }
    assert_eq!(scene.wait_for(ServingState::Serving).sessions, 1);

    assert_eq!(scene.order(NodeFault::Kill), OrderOutcome::Done);
    assert_eq!(scene.notice(), ServingState::Gone);
    assert_eq!(scene.notice(), ServingState::Serving, "restarted");
    assert_eq!(scene.wait_for(ServingState::Serving).sessions, 0);
    scene.send_question(&TrunkQuestion::Keep {
        lease_s: 30,
        numbered: false,
        tags: [Tag(7)].into(),
    });
    let unknown = scene.receive_answer(|answer| match answer {
        TrunkAnswer::Keep { unknown } => Some(unknown),
        _ => None,
    });
    assert_eq!(*unknown, [Tag(7)]);
}

#[test]
fn end_of_a_gateway_is_answered() {
    let (beats, peer) = (socket(), socket());
    let [at, to] = [&beats, &peer].map(|socket| socket.local_addr().unwrap());
    beats.connect(to).unwrap();
    let config = format!("[gateway]\naddress = \"{at}\"\npeer = \"{to}\"\n");
    let mut scene = Scene::new("gateway", &config);
    assert!(scene.wait_for(ServingState::Serving).vouched);
    drop(beats);
    assert!(!scene.wait_for(ServingState::Gone).vouched);
    let _started_again = UdpSocket::bind(at).unwrap();
    scene.wait_for(ServingState::Serving);
}

#[test]
fn open_command_gives_each_session_its_address() {
    let (one, rtcp) = loop {
        let one = socket();
        let next = SocketAddr::new([127, 0, 0, 1].into(), one.local_addr().unwrap().port() + 1);
        if let Ok(rtcp) = UdpSocket::bind(next) {
            rtcp.set_read_timeout(Some(PATIENCE)).unwrap();
            break (one, rtcp);
        }
    };
    let at = one.local_addr().unwrap();
    let config = format!(
        "{PROCESS}[media]\nrtcp = \"next-port\"\nopen = [\"/bin/sh\", \"-c\", \
         \"test $EVENKEEL_ROOM = 5 && test $EVENKEEL_PORT -gt 0 && echo {at}\"]\n\
         close = [\"/bin/sh\", \"-c\", \"echo $EVENKEEL_SESSION > closed\"]\n"
    );
    let mut scene = Scene::new("command", &config);
    scene.wait_for(ServingState::Serving);
    assert_eq!(scene.open(7), OpenStatus::Ok);
    scene.send(7, &voice(1));
    assert_eq!(reflect(&one), voice(1));
    assert_eq!(scene.packet(), (Tag(7), voice(1)));
    scene.send(7, &REPORT);
    assert_eq!(reflect(&rtcp), REPORT);
    assert_eq!(scene.packet(), (Tag(7), REPORT.to_vec()));

    let failing = format!("{PROCESS}[media]\nopen = [\"/bin/false\"]\n");
    let mut scene = Scene::new("failing", &failing);
    scene.wait_for(ServingState::Serving);
    assert_eq!(scene.open(7), OpenStatus::Failed);
    let garbled = format!("{PROCESS}[media]\nopen = [\"/bin/echo\", \"over there\"]\n");
    let mut scene = Scene::new("garbled", &garbled);
    scene.wait_for(ServingState::Serving);
    assert_eq!(scene.open(7), OpenStatus::Failed);
}

#[test]
fn signals_drain_and_end_the_agent() {
    let server = socket();
    let media = format!("[media]\nserver = \"{}\"\n", server.local_addr().unwrap());
    let mut scene = Scene::new("signals", &format!("{PROCESS}{media}"));
    scene.wait_for(ServingState::Serving);
    assert_eq!(scene.open(7), OpenStatus::Ok);
    scene.signal(Signal::SIGUSR1);
    assert_eq!(scene.notice(), ServingState::Draining);
    scene.signal(Signal::SIGUSR2);
    assert_eq!(scene.notice(), ServingState::Serving);
    assert_eq!(scene.order(NodeFault::Kill), OrderOutcome::Forbidden);

    scene.signal(Signal::SIGTERM);
    assert_eq!(scene.notice(), ServingState::Draining);
    assert_eq!(scene.open(8), OpenStatus::Draining);
    scene.send(7, &voice(1));
    assert_eq!(reflect(&server), voice(1), "open sessions continue");
    scene.send_question(&TrunkQuestion::Close { tag: Tag(7) });
    let counters = scene.said.by_ref().map(Result::unwrap).find(|line| line.contains("opened"));
    let counters = counters.unwrap();
    // An acknowledgement read after the signal is not included.
    let noted = !counters.contains("\"noted\":0");
    assert!(noted && counters.contains("\"turned_away\":1"), "{counters}");
    assert!(scene.agent.wait().unwrap().success());
}

#[test]
fn cold_process_starts_on_request() {
    let config = PROCESS.replace("restart_after = \"50ms\"", "cold = true");
    let mut scene = Scene::new("cold", &config);
    scene.wait_for(ServingState::Gone);
    scene.send_question(&TrunkQuestion::Start);
    let outcome = scene.receive_answer(|answer| match answer {
        TrunkAnswer::Start(outcome) => Some(outcome),
        _ => None,
    });
    assert_eq!(outcome, OrderOutcome::Done);
    assert_eq!(scene.notice(), ServingState::Serving);
}
