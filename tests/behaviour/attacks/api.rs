//! Clients of the API that hold connections, headers and bodies, list many sessions, or bring much data.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_control::{ControlError, OfferedSession};
use evenkeel_lab::process::ChildProcess;
use evenkeel_model::{
    ClientIdentity, CoreEvent, Health, IngressProtocol, MediaDescription, SessionId,
};
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::http::HttpClient;

use super::{StopOnDrop, memory_kib};
use crate::harness::{
    Behaviour, Gateway, Node, Phone, SECRET, TIMEOUT, World, declared, offer, routing_plugin, talk,
    udp_of, wait_until,
};

/// The API of a gateway on a Unix socket and, with `TCP`, on TCP.
struct Api {
    socket: PathBuf,
    tcp: Option<SocketAddr>,
    thread: Option<evenkeel_api::ApiThread>,
}

/// Lines of `[admin]` for the API over TCP.
const TCP: &str = "tcp = \"127.0.0.1:0\"\ntoken_file = \"secret\"";

impl Api {
    fn of(gateway: &Gateway) -> Api {
        let settings = gateway.settings.admin.clone();
        let socket = settings.socket.clone();
        let thread =
            evenkeel_api::start(settings, gateway.handle.clone(), Box::new(|_| String::new()))
                .unwrap();
        Api { socket, tcp: thread.address, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp.unwrap()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    fn client(&self) -> ApiClient {
        ApiClient::new(ApiEndpoint::Unix(self.socket.clone()))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.thread.take().unwrap().shut_down();
    }
}

/// Asks for the status as an operator. Returns the status of the answer.
fn ask_as_owner(stream: &mut TcpStream) -> u16 {
    ask_with(stream, str::from_utf8(SECRET).unwrap())
}

fn ask_with(stream: &mut TcpStream, token: &str) -> u16 {
    let token = format!("authorization: Bearer {token}");
    let answer = HttpClient::over(stream).ask("GET /v1/status", &[&token], b"");
    answer.expect("the connection ended").status
}

/// True once the other end has closed the connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 64]);
    let is_open = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    !is_open && !read.is_ok_and(|length| length > 0)
}

#[test]
fn idle_connections_do_not_keep_the_owner_out() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.admin = TCP.into();
    let gateway = world.start();
    let api = Api::of(&gateway);
    let mut before = api.connect();
    assert_eq!(ask_as_owner(&mut before), 200);
    let idle: Vec<TcpStream> = (0..300).map(|_| api.connect()).collect();
    assert_eq!(ask_as_owner(&mut before), 200, "an accepted connection stays");
    assert_eq!(ask_as_owner(&mut api.connect()), 200);
    wait_until("idle connections end", || idle.iter().all(is_closed));
}

#[test]
fn readers_do_not_keep_the_owner_out() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.admin = format!("{TCP}\nread_token_file = \"cluster.secret\"");
    let gateway = world.start();
    let api = Api::of(&gateway);
    let readers = (0..200).map(|_| {
        let mut reader = api.connect();
        assert_eq!(ask_with(&mut reader, &"c".repeat(32)), 200);
        reader
    });
    let readers: Vec<TcpStream> = readers.collect();
    assert_eq!(ask_as_owner(&mut api.connect()), 200);
    drop(readers);
}

#[test]
fn slow_header_misses_its_deadline() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.admin = TCP.into();
    let gateway = world.start();
    let api = Api::of(&gateway);
    let mut slow = api.connect();
    let mut header = "GET /v1/status HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'x'));
    wait_until("the connection is closed", || {
        std::thread::park_timeout(Duration::from_millis(100));
        slow.write_all(&[header.next().unwrap()]).is_err() || is_closed(&slow)
    });
    assert_eq!(ask_as_owner(&mut api.connect()), 200);
}

/// Begins to push a plugin of 16 MiB and sends half of it.
fn hold_upload(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    HttpClient::over(&mut stream).send_head("PUT /v1/policies/call/routing", &[], 16 << 20);
    for _ in 0..8 {
        // Fails for an upload that has given way.
        let _ = stream.write_all(&[0; 1 << 20]);
    }
    stream.set_nonblocking(true).unwrap();
    stream
}

/// The status line of an answer that has arrived.
fn answered(mut stream: &UnixStream) -> Option<String> {
    let mut answer = [0; 1_024];
    let length = stream.read(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    Some(answer.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn held_uploads_beyond_the_budget_give_way() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).routed().start();
    let api = Api::of(&gateway);
    let plugin = routing_plugin(Behaviour::Places(0));
    let held: Vec<UnixStream> = (0..12).map(|_| hold_upload(&api.socket)).collect();
    let mut client = api.client();
    let pushed = gateway.ask(client.push("call", "routing", &plugin)).unwrap();
    assert_eq!(pushed["outcome"], "activated", "{pushed}");
    // The uploads hold 8 MiB each, of 64 MiB.
    let mut answers = vec![None; held.len()];
    wait_until("the oldest uploads are refused", || {
        for (answer, stream) in answers.iter_mut().zip(&held).filter(|(it, _)| it.is_none()) {
            *answer = answered(stream);
        }
        answers[..4].iter().all(Option::is_some)
    });
    let refused: Vec<String> = answers.into_iter().flatten().collect();
    assert!(refused.iter().all(|line| line.contains("503")), "{refused:?}");
    assert!(refused.len() < held.len(), "the newest uploads go on");
}

fn resident_kib(id: u32) -> u64 {
    memory_kib(id, "VmRSS:")
}

/// A gateway process with an API on a Unix socket.
struct OwnProcess {
    process: ChildProcess,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl OwnProcess {
    /// Starts it and waits until it is ready.
    fn start() -> OwnProcess {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("evenkeel.toml");
        let text = "[gateway]\ncache = \"none\"\npolicies = \"policies\"\n\
                    [admin]\nsocket = \"admin.sock\"\n\
                    [[listen]]\nudp = \"127.0.0.1:0\"\n[limits]\nworkers = 1\n";
        std::fs::write(&config, text).unwrap();
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        for set in ["call", "conference", "live"] {
            let file = folder.path().join(format!("policies/{set}.toml"));
            std::fs::write(file, format!("[scenario.{set}]\n")).unwrap();
        }
        let mut command = Command::new(evenkeel());
        command.args(["run", "--json", "--config"]).arg(&config);
        let mut process = ChildProcess::start("gateway", &mut command, folder.path()).unwrap();
        process.json_line(TIMEOUT).unwrap();
        let socket = folder.path().join("admin.sock");
        wait_until("the gateway is ready", || {
            let stream = UnixStream::connect(&socket).unwrap();
            let answer = HttpClient::over(stream).ask("GET /readyz", &[], b"");
            answer.is_some_and(|answer| answer.status == 200)
        });
        OwnProcess { process, socket, _folder: folder }
    }
}

#[test]
fn memory_of_ended_uploads_is_returned() {
    const KEPT_MAX_KIB: u64 = 16 << 10;
    let OwnProcess { process, socket, _folder } = OwnProcess::start();
    let id = process.id();
    let before = resident_kib(id);
    // By default the allocator often keeps memory of a size that was freed before.
    for _ in 0..20 {
        let held: Vec<UnixStream> = (0..4).map(|_| hold_upload(&socket)).collect();
        wait_until("the uploads are held", || resident_kib(id) > before + KEPT_MAX_KIB);
        drop(held);
        wait_until("their memory is returned", || resident_kib(id) < before + KEPT_MAX_KIB);
    }
}

/// Asks again and again whether the gateway lives, on one connection, and counts the answers.
fn ask_alive(socket: &Path, ended: &AtomicBool, answers: &AtomicUsize) {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut client = HttpClient::over(stream);
    while !ended.load(Ordering::Relaxed) {
        let answer = client.ask("GET /livez", &[], b"").expect("the connection ended");
        assert_eq!((answer.status, &*answer.body), (200, "alive\n"));
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn refused_pushes_take_little_memory_and_time() {
    // A body of 31 MiB while its buffer grows, and the largest value that is kept.
    const TAKEN_MAX_KIB: u64 = 192 << 10;
    // Of all pushes together. An answer takes a tenth of a millisecond, and each body a tenth of a second.
    const ANSWERS_MIN: usize = 200;
    let OwnProcess { process, socket, _folder } = OwnProcess::start();
    let before = memory_kib(process.id(), "VmHWM:");
    let many = |part: &str| part.repeat((31 << 20) / part.len());
    let bodies = [
        format!("{{\"settings\": [{}0]}}", many("0,")),
        format!("{{\"settings\": [{}0]}}", many("{\"\":0},")),
        format!("{{\"documents\": {{\"tenants\": [{}0]}}}}", many("[],")),
        format!("{{\"documents\": {{{}\"a\": 0}}}}", many("\"a\":0,")),
        format!("{{\"documents\": {{{}\"a\": 0}}}}", {
            (0..2_000_000).map(|number| format!("\"{number}\":0,")).collect::<String>()
        }),
        format!("{{\"plugin\": \"{}\"}}", many("A")),
    ];
    let (ended, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut answered = 0;
    std::thread::scope(|scope| {
        let _ending = StopOnDrop(&ended);
        scope.spawn(|| ask_alive(&socket, &ended, &answers));
        for body in bodies {
            let stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            let mut client = HttpClient::over(stream);
            let line = "PUT /v1/policies/call/routing";
            client.send(line, &["content-type: application/json"], body.as_bytes());
            let arrived = answers.load(Ordering::Relaxed);
            let answer = client.answer().expect("the push is answered");
            answered += answers.load(Ordering::Relaxed) - arrived;
            assert!((400..500).contains(&answer.status), "{answer}: {}", &body[..40]);
            let taken = memory_kib(process.id(), "VmHWM:") - before;
            assert!(taken < TAKEN_MAX_KIB, "{taken} KiB: {}", &body[..40]);
        }
    });
    assert!(answered >= ANSWERS_MIN, "{answered} answers while bodies were read");
}

/// A session with audio only and an address and room of its own.
fn audio(number: u16) -> OfferedSession {
    let address = SocketAddr::from(([127, 0, 0, 2], 10_000 + number));
    let identity = ClientIdentity::Declared { address, rtcp: None };
    let wanted = offer(&format!("room-{number}"), IngressProtocol::Udp(identity));
    let streams = wanted.media.streams[..1].to_vec();
    let media = MediaDescription { streams, ..(*wanted.media).clone() };
    OfferedSession { media: Arc::new(media), ..wanted }
}

#[test]
fn session_lists_do_not_delay_failover() {
    const SESSIONS: usize = 450;
    let mut nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let mut world = World::of(&nodes.each_ref());
    world.scenario += "close_after = \"1h\"\n";
    let gateway = world.start();
    let api = Api::of(&gateway);
    let mut ann = Phone::new(1);
    let call = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&call));
    (1..SESSIONS).for_each(|number| _ = gateway.open(audio(number as u16)));
    let last = gateway.open(audio(SESSIONS as u16));
    // A request that waits behind a list is served before the list is complete.
    gateway.ask(async {
        let suspended = gateway.handle.suspend().await.unwrap();
        let (list, close) = (gateway.handle.sessions(), gateway.handle.close(last.session));
        let (listed, closed, ()) = tokio::join!(list, close, async { drop(suspended) });
        closed.unwrap();
        assert_eq!(listed.unwrap().len(), SESSIONS, "the closed one is not listed");
    });
    let (ended, lists) = (AtomicBool::new(false), AtomicUsize::new(0));
    let list = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = api.client();
        while !ended.load(Ordering::Relaxed) {
            let listed = runtime.block_on(client.list("sessions")).unwrap();
            let id = |session: &serde_json::Value| {
                SessionId::parse(session["id"].as_str().unwrap()).unwrap()
            };
            let ids: Vec<SessionId> = listed.iter().map(id).collect();
            assert!(ids.is_sorted_by(|one, next| one < next) && ids.len() == SESSIONS);
            lists.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let ending = StopOnDrop(&ended);
        let clients: Vec<_> = (0..10).map(|_| scope.spawn(list)).collect();
        talk(&mut [&mut ann], "all clients list", |phones| {
            lists.load(Ordering::Relaxed) > 20 && phones[0].heard.len() > 10
        });
        nodes[call.route[0].node.0 as usize].kill();
        let second = nodes[call.route[1].node.0 as usize].number();
        talk(&mut [&mut ann], "media through the second hop", |phones| {
            phones[0].last_heard_via(second)
        });
        let down = |event: &CoreEvent| match event {
            CoreEvent::Node { hop, to: Health::Down, .. } if *hop == call.route[0] => Some(()),
            _ => None,
        };
        gateway.expect_event("the node is marked down", down);
        let before = lists.load(Ordering::Relaxed);
        wait_until("lists continue", || lists.load(Ordering::Relaxed) > before + 10);
        drop(ending);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn session_data_is_limited_beside_the_sessions() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.limits += "session_data_mib = 1\n";
    let gateway = world.start();
    let large = |number: u16| {
        let label = |at: usize| (format!("{number}-{at}").into(), "x".repeat(256).into());
        OfferedSession { labels: (0..32).map(label).collect(), ..audio(number) }
    };
    let mut opened = Vec::new();
    let refused = loop {
        match gateway.try_open(large(opened.len() as u16)) {
            Ok(answer) => opened.push(answer),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, ControlError::SessionDataFull);
    assert!((90..120).contains(&opened.len()), "{} sessions of 9 KiB", opened.len());
    gateway.open(audio(1_000));
    gateway.ask(gateway.handle.close(opened[0].session)).unwrap();
    gateway.open(large(1_001));
}
