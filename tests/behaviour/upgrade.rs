//! Upgrades in place: a new process takes over sockets and sessions while clients talk.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_client::{ApiCall, ClientError};
use evenkeel_contract::offers::OfferIngress;
use evenkeel_lab::TestHeader;
use evenkeel_lab::client::{ClientFleet, ClientPath, Persona, QuicProtocol, QuicWay};
use evenkeel_lab::ledger::Books;
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::{demux, roq, rtp};
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{
    GatewayProcess, Node, Phone, TIMEOUT, Track, World, assert_complete, assert_continuous, talk,
    talk_for, wait_until,
};
use crate::relay::metric;
use crate::roq::{Line, connect};

/// Packets of each phone between upgrades.
const PACKETS: u64 = 25;

/// Phones in pairs that share a room, and talk from the first call to the last.
pub(crate) struct Calls(Vec<Phone>);

impl Calls {
    pub(crate) fn open(gateway: &mut GatewayProcess, pairs: u64) -> Calls {
        Calls::of(gateway, (1..=2 * pairs).map(Phone::new).collect())
    }

    /// Calls of these phones, two to a room.
    pub(crate) fn of(gateway: &mut GatewayProcess, mut phones: Vec<Phone>) -> Calls {
        for (number, phone) in phones.iter_mut().enumerate() {
            gateway.open(&format!("room-{}", number / 2), phone);
        }
        let mut calls = Calls(phones);
        calls.talk(PACKETS);
        calls
    }

    pub(crate) fn phones(&mut self) -> Vec<&mut Phone> {
        self.0.iter_mut().collect()
    }

    pub(crate) fn talk(&mut self, packets: u64) {
        talk_for(&mut self.phones(), packets);
    }

    /// Talks while the gateway answers an upgrade.
    pub(crate) fn talk_over(
        &mut self,
        gateway: &mut GatewayProcess,
        request: Value,
    ) -> Result<Value, ClientError> {
        let upgrading = gateway.upgrade(request);
        talk(&mut self.phones(), "the upgrade is answered", |_| upgrading.is_finished());
        let answer = upgrading.join().unwrap();
        if let Ok(upgraded) = &answer {
            gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
        }
        self.talk(PACKETS);
        answer
    }

    /// Talks until each phone hears packets that its partner sends from now on, each as one stream.
    pub(crate) fn assert_heard_again(&mut self) {
        let sent: Vec<u64> = self.0.iter().map(|phone| phone.voice.sent).collect();
        let partner = |number: usize| number ^ 1;
        talk(&mut self.phones(), "each hears the other again", |phones| {
            (0..sent.len()).all(|number| {
                let (from, sent) = (phones[partner(number)].number, sent[partner(number)]);
                let mut heard = phones[number].heard.iter().rev();
                heard.any(|heard| heard.mark.session == from && heard.mark.number > sent)
            })
        });
        for (number, phone) in self.0.iter().enumerate() {
            assert_continuous(&phone.heard_from(self.0[partner(number)].number, 0));
        }
    }

    /// Asserts that each phone heard every packet of its partner once, as one stream.
    pub(crate) fn assert_whole(mut self) {
        let sent: Vec<u64> = self.0.iter().map(|phone| phone.voice.sent).collect();
        let partner = |number: usize| number ^ 1;
        wait_until("the last packets are heard", || {
            self.0.iter_mut().for_each(Phone::listen);
            let last = |number: usize| last_heard(&self.0, number, partner(number));
            (0..sent.len()).all(|number| last(number) == sent[partner(number)].checked_sub(1))
        });
        // A duplicate would follow.
        self.0.iter_mut().for_each(Phone::listen);
        for (number, phone) in self.0.iter().enumerate() {
            let other = partner(number);
            let heard = phone.heard_from(self.0[other].number, 0);
            // A plain node knows a client from its first packet on, and drops earlier ones of others.
            let first = heard.first().map_or(0, |heard| heard.mark.number);
            assert!(first < PACKETS, "{first}");
            assert_complete(&heard, first, sent[other]);
            assert_eq!(assert_continuous(&heard), 0);
        }
    }
}

/// The number of the last packet that a phone heard from another.
fn last_heard(phones: &[Phone], number: usize, other: usize) -> Option<u64> {
    let from = phones[other].number;
    let mut heard = phones[number].heard.iter().rev();
    heard.find(|heard| heard.mark.session == from).map(|heard| heard.mark.number)
}

/// The sessions without what grows.
fn sessions(gateway: &mut GatewayProcess) -> Vec<Value> {
    let mut sessions = gateway.ask(async |client| client.list("sessions").await).unwrap();
    for session in &mut sessions {
        let fields = session.as_object_mut().unwrap();
        fields.remove("age_ms");
        fields.remove("measures");
        fields.remove("impairment");
        fields.remove("totals");
        // Incarnations belong to a process.
        if let Some(Value::Object(hop)) = fields.get_mut("hop") {
            hop.remove("incarnation");
        }
    }
    sessions
}

fn packets_up(gateway: &mut GatewayProcess) -> u64 {
    let sessions = gateway.ask(async |client| client.list("sessions").await).unwrap();
    let totals = sessions.iter().map(|session| session["totals"]["packets_up"].as_u64());
    totals.map(Option::unwrap).sum()
}

fn own_binary() -> Value {
    json!({})
}

fn is_running(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

fn three_upgrades(node: &Node, limits: &str) {
    let mut world = World::of(&[node]);
    world.limits = limits.into();
    let mut gateway = GatewayProcess::start(&world);
    let mut calls = Calls::open(&mut gateway, 3);
    let before = sessions(&mut gateway);
    for _ in 0..3 {
        let (old, counted) = (gateway.pid(), packets_up(&mut gateway));
        let upgraded = calls.talk_over(&mut gateway, own_binary()).unwrap();
        assert_eq!(upgraded["sessions"], 6, "{upgraded}");
        assert!(upgraded["paused_us"].as_u64().unwrap() > 0, "{upgraded}");
        wait_until("the old process ends", || !is_running(old));
        assert!(is_running(gateway.pid()));
        assert_eq!(sessions(&mut gateway), before);
        wait_until("totals go on", || packets_up(&mut gateway) > counted);
    }
    calls.assert_whole();
    let ended = gateway.process.wait(TIMEOUT).unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn trunk_calls_survive_three_upgrades() {
    three_upgrades(&Node::agent("east-a1"), "workers = 2\n");
}

#[test]
fn encrypted_calls_survive_three_upgrades() {
    three_upgrades(&Node::agent("east-a1").encrypted(), "workers = 1\n");
}

#[test]
fn port_calls_survive_three_upgrades() {
    three_upgrades(&Node::plain("east-a1", "echo", PlainRoom::Shared), "workers = 1\n");
}

#[test]
fn new_keys_take_effect_without_a_restart() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    let mut gateway = GatewayProcess::start(&world);
    let mut calls = Calls::open(&mut gateway, 1);
    world.listens += "[[listen]]\nudp = \"[::1]:0\"\nidentity = [\"declared\"]\n";
    world.admin = "drills = true\n".into();
    let config = world.write(gateway.folder());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("admin.sock", "other.sock")).unwrap();
    let reloaded = gateway.post("/v1/configuration:reload", &json!({}));
    assert!(!reloaded["requires_restart"].as_array().unwrap().is_empty(), "{reloaded}");

    calls.talk_over(&mut gateway, own_binary()).unwrap();
    gateway.move_api("other.sock");
    wait_until("the old socket is gone", || !gateway.folder().join("admin.sock").exists());
    let reloaded = gateway.post("/v1/configuration:reload", &json!({}));
    assert_eq!(reloaded["requires_restart"], json!([]));
    let mut bob = Phone::on("[::1]:0", 9);
    gateway.open("room-6", &mut bob);
    talk(&mut [&mut bob], "the new listener serves", |phones| phones[0].heard.len() >= 5);
    calls.assert_whole();
}

#[test]
fn listener_that_the_configuration_drops_is_closed() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    let address = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    let before = world.listens.clone();
    world.listens += &format!("[[listen]]\nudp = \"{address}\"\nidentity = [\"declared\"]\n");
    let mut gateway = GatewayProcess::start(&world);
    let mut calls = Calls::open(&mut gateway, 1);
    let mut bob = Phone::on("[::1]:0", 9);
    gateway.open("room-6", &mut bob);
    talk(&mut [&mut bob], "the second listener serves", |phones| phones[0].heard.len() >= 5);
    world.listens = before;
    world.write(gateway.folder());
    let refused = calls.talk_over(&mut gateway, own_binary()).unwrap_err().to_string();
    assert!(refused.contains(&format!("sessions use the listener {address}")), "{refused}");
    let id = sessions(&mut gateway).last().unwrap()["id"].as_str().unwrap().to_owned();
    gateway.ask(async |client| client.close(&id).await).unwrap();
    calls.talk_over(&mut gateway, own_binary()).unwrap();
    wait_until("its socket is closed", || UdpSocket::bind(address).is_ok());
    calls.assert_whole();
}

/// Sets the soft limit of descriptors of a running process.
fn limit_descriptors(process: Pid, limit: usize) {
    let mut command = Command::new("prlimit");
    command.arg("--pid").arg(process.to_string()).arg(format!("--nofile={limit}:"));
    assert!(command.status().unwrap().success());
}

#[required(Prlimit)]
#[test]
fn too_few_descriptors_fail_the_upgrade() {
    let node = Node::plain("east-a1", "echo", PlainRoom::Shared);
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let mut calls = Calls::open(&mut gateway, 15);
    let used = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    // Enough for a new process, too few for duplicates of 30 ports.
    limit_descriptors(gateway.pid(), used + 10);
    let refused = calls.talk_over(&mut gateway, own_binary()).unwrap_err().to_string();
    assert!(refused.contains("own port cannot be duplicated"), "{refused}");
    limit_descriptors(gateway.pid(), used + 100);
    calls.talk_over(&mut gateway, own_binary()).unwrap();
    calls.assert_whole();
}

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\necho $$ > {}/pid\n{text}\n", folder.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// Shell functions that speak the messages between two processes.
const MESSAGES: &str = r#"
receive() {
    set -- $(head -c 20 | od -An -v -tu1)
    message=$(((($5 * 256 + $6) * 256 + $7) * 256 + $8))
    attachment=$((((${13} * 256 + ${14}) * 256 + ${15}) * 256 + ${16}))
    descriptors=$(((${19} * 256 + ${20} + 252) / 253))
    received=$(head -c $message)
    head -c $((attachment + descriptors)) > /dev/null
}
state() {
    ready 1
    until receive; [ "$received" = '{"message":"state"}' ]; do :; done
}
media() {
    state
    send '{"message":"restored","sessions":4}'
    until receive; [ "$received" = '{"message":"media"}' ]; do :; done
}
frame() {
    printf "evkl\0\0\0\\$(printf %03o ${#1})\0\0\0\0\0\0\0\0\0\0\0\0%s" "$1"
}
send() {
    frame "$1" >&0
}
ready() {
    send '{"message":"ready","version":{"protocol":'$1',"program":"9.9.9"}}'
}
receive
"#;

/// Programs that take nothing over, each with the words of the answer.
fn unfit_programs(folder: &Path) -> Vec<(PathBuf, &'static [&'static str])> {
    let speaks = |name, text: &str| script(folder, name, &format!("{MESSAGES}{text}"));
    let unreadable = folder.join("not-executable");
    fs::write(&unreadable, "#!/bin/sh\n").unwrap();
    let foreign = folder.join("foreign");
    fs::write(&foreign, b"\x7fELF of another machine").unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o700)).unwrap();
    vec![
        (folder.join("missing"), &["No such file"]),
        (unreadable, &["Permission denied"]),
        (foreign, &["Exec format error"]),
        (script(folder, "ends", "exit 7"), &["ended with status 7 before it answered"]),
        (script(folder, "hangs", "exec sleep 600"), &["did not answer within"]),
        (
            script(folder, "chats", "echo Welcome to another program >&0; exec sleep 600"),
            &["other bytes"],
        ),
        (speaks("older", "ready 0; exec sleep 600"), &["version 0", "version 1", "9.9.9"]),
        (speaks("newer", "ready 2; exec sleep 600"), &["version 2", "version 1", "9.9.9"]),
        (speaks("crashes", "media; kill -9 $$"), &["signal: 9"]),
        (speaks("stalls", "media; exec sleep 600"), &["did not answer within"]),
        (speaks("closes", "media; exec sleep 600 < /dev/null"), &["closed its standard input"]),
        (
            speaks("refuses", "state; send '{\"message\":\"failed\",\"reason\":\"no memory\"}'"),
            &["no memory"],
        ),
        (
            speaks("hurries", "state; send '{\"message\":\"continued\"}'; exec sleep 600"),
            &["unexpected `continued`"],
        ),
        (
            speaks("skips", "send '{\"message\":\"continued\"}'; exec sleep 600"),
            &["unexpected `continued`"],
        ),
        (speaks("repeats", "media; ready 1; exec sleep 600"), &["unexpected `ready`"]),
        (
            // Both messages arrive at once.
            speaks(
                "withdraws",
                "media; { frame '{\"message\":\"continued\"}'; \
                 frame '{\"message\":\"failed\",\"reason\":\"told to end\"}'; } > \"$0.all\"; \
                 cat \"$0.all\" >&0; exec sleep 600",
            ),
            &["told to end"],
        ),
    ]
}

#[test]
fn failed_upgrade_leaves_calls_unharmed() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let mut calls = Calls::open(&mut gateway, 2);
    let (pid, before) = (gateway.pid(), sessions(&mut gateway));
    for (program, words) in unfit_programs(gateway.folder()) {
        // The others answer, however slow the machine is.
        let deadline = if program.ends_with("hangs") { "1s" } else { "40s" };
        let request = json!({"binary": program, "deadline": deadline});
        let refused = calls.talk_over(&mut gateway, request).unwrap_err().to_string();
        for word in words {
            assert!(refused.contains(word), "{}: {refused}", program.display());
        }
        let started = fs::read_to_string(gateway.folder().join("pid")).unwrap_or_default();
        if let Ok(started) = started.trim().parse() {
            wait_until("its process has ended", || !is_running(Pid::from_raw(started)));
        }
        assert_eq!(sessions(&mut gateway), before);
    }
    assert!(is_running(pid));
    calls.talk_over(&mut gateway, own_binary()).unwrap();
    calls.assert_whole();
}

#[test]
fn unfit_configuration_is_refused_with_its_errors() {
    let node = Node::agent("east-a1");
    let world = World::of(&[&node]);
    let mut gateway = GatewayProcess::start(&world);
    let mut calls = Calls::open(&mut gateway, 1);
    for (key, value, told) in [
        ("workers = 1", "workers = 3", "found 3 workers, the running gateway has 1"),
        ("workers = 1", "workers = \"many\"", "evenkeel.toml"),
        ("region = \"east\"\npolicies", "region = \"east\"\ncache = 7\npolicies", "cache"),
    ] {
        let config = world.write(gateway.folder());
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains(key), "{key}");
        fs::write(&config, text.replace(key, value)).unwrap();
        let refused = calls.talk_over(&mut gateway, own_binary()).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
    world.write(gateway.folder());
    calls.talk_over(&mut gateway, own_binary()).unwrap();
    calls.assert_whole();
}

#[test]
fn second_upgrade_is_refused_while_one_runs() {
    let node = Node::agent("east-a1");
    let gateway = GatewayProcess::start(&World::of(&[&node]));
    let end = gateway.folder().join("end");
    let waits = format!("until [ -e {} ]; do sleep 0.01; done; exit 7", end.display());
    let first = gateway.upgrade(json!({"binary": script(gateway.folder(), "waits", &waits)}));
    wait_until("it is under way", || gateway.folder().join("pid").exists());
    let second = gateway.upgrade(own_binary()).join().unwrap().unwrap_err();
    assert!(second.to_string().contains("under way"), "{second}");
    fs::write(end, "").unwrap();
    let first = first.join().unwrap().unwrap_err();
    assert!(first.to_string().contains("ended with status 7"), "{first}");
}

#[test]
fn sigterm_ends_an_upgrade_and_drains() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let mut calls = Calls::open(&mut gateway, 1);
    let slow = script(gateway.folder(), "slow", "exec sleep 600");
    let upgrading = gateway.upgrade(json!({"binary": slow}));
    let pid = gateway.folder().join("pid");
    talk(&mut calls.phones(), "it is under way", |_| pid.exists());
    gateway.process.signal(Signal::SIGTERM).unwrap();
    talk(&mut calls.phones(), "the upgrade ends", |_| upgrading.is_finished());
    let refused = upgrading.join().unwrap().unwrap_err();
    assert!(refused.to_string().contains("shutting down"), "{refused}");
    let started = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    wait_until("its process has ended", || !is_running(Pid::from_raw(started)));
    calls.talk(PACKETS);
    assert_eq!(gateway.read("/v1/status")["state"], "draining");
    calls.assert_whole();
    let refused = gateway.upgrade(own_binary()).join().unwrap().unwrap_err();
    assert!(refused.to_string().contains("shutting down"), "{refused}");
    gateway.process.signal(Signal::SIGTERM).unwrap();
    assert!(gateway.process.wait(TIMEOUT).unwrap().success());
}

/// Opens a session of RTP over QUIC.
fn roq_session(gateway: &mut GatewayProcess, room: &str) -> QuicWay {
    let offer = GatewayProcess::offer(room, OfferIngress::quic());
    let opened = gateway.ask(async |client| client.open(&offer).await).unwrap().quic.unwrap();
    QuicWay {
        protocol: QuicProtocol::Roq,
        gateway: opened.addresses[0],
        certificate_sha256: opened.certificate().unwrap(),
        flow_to_gateway: opened.flow_to_gateway.parse().unwrap(),
        flow_from_gateway: opened.flow_from_gateway.parse().unwrap(),
    }
}

/// A client that hears itself over one QUIC connection.
struct QuicEcho {
    line: Line,
    voice: Track,
    /// The numbers of its packets.
    heard: Vec<u64>,
}

impl QuicEcho {
    /// Connects, and talks until it hears itself.
    fn begin(gateway: &mut GatewayProcess, number: u64) -> QuicEcho {
        let way = roq_session(gateway, &format!("room-{number}"));
        let line = gateway.ask(async |_| connect(way).await);
        let mut echo = QuicEcho { line, voice: Phone::new(number).voice, heard: Vec::new() };
        gateway.ask(async |_| echo.talk(|echo| !echo.heard.is_empty()).await);
        echo
    }

    async fn talk(&mut self, until: impl Fn(&QuicEcho) -> bool) {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while !until(self) {
            let connection = self.line.connection.clone();
            tokio::select! {
                _ = pace.tick() => {
                    let mut datagram = Vec::new();
                    roq::write_datagram(self.line.to, &self.voice.packet(1), &mut datagram);
                    connection.send_datagram(datagram.into()).unwrap();
                }
                datagram = connection.read_datagram() => {
                    self.heard.extend(voice_number(&datagram.unwrap()));
                }
            }
        }
    }

    /// Talks until it has heard packets that it sends from now on, and has heard each packet once, in order.
    fn assert_whole(&mut self, gateway: &mut GatewayProcess) {
        let goal = self.voice.sent + PACKETS;
        let is_heard = |echo: &QuicEcho| {
            echo.voice.sent >= goal && echo.heard.last() == Some(&(echo.voice.sent - 1))
        };
        gateway.ask(async |_| self.talk(is_heard).await);
        // The first packets may come before the leg is open.
        let expected: Vec<u64> = (self.heard[0]..self.voice.sent).collect();
        assert_eq!(self.heard, expected);
        assert_eq!(self.line.connection.close_reason(), None);
    }

    /// Talks while the gateway answers an upgrade.
    fn talk_over(
        &mut self,
        gateway: &mut GatewayProcess,
        request: Value,
    ) -> Result<Value, ClientError> {
        let upgrading = gateway.upgrade(request);
        gateway.ask(async |_| self.talk(|_| upgrading.is_finished()).await);
        let answer = upgrading.join().unwrap();
        if let Ok(upgraded) = &answer {
            gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
        }
        answer
    }

    /// Closes the connection, and waits until the process that keeps it has ended.
    fn end(self, gateway: &mut GatewayProcess, process: Pid) {
        self.line.connection.close(0_u32.into(), b"");
        gateway.ask(async |_| {
            while is_running(process) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
}

/// The number of a packet of voice in a datagram; `None` for a report.
fn voice_number(datagram: &[u8]) -> Option<u64> {
    let (_, packet) = roq::read_datagram(datagram).unwrap();
    if demux::classify(packet) != demux::DatagramKind::Rtp {
        return None;
    }
    let header = rtp::RtpHeader::parse(packet).unwrap();
    Some(TestHeader::read(header.payload(packet)).unwrap().number)
}

#[test]
fn quic_connections_survive_two_upgrades() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]).with_quic());
    wait_until("the end of the certificate is known", || {
        let left = metric(&mut gateway, "evenkeel_credential_expiry", "quic-certificate");
        left.is_some_and(|seconds| seconds > 365 * 86_400)
    });
    let first = gateway.pid();
    let mut ann = QuicEcho::begin(&mut gateway, 1);
    ann.talk_over(&mut gateway, own_binary()).unwrap();
    ann.assert_whole(&mut gateway);
    // Of the second process.
    let (second, mut bob) = (gateway.pid(), QuicEcho::begin(&mut gateway, 2));
    ann.assert_whole(&mut gateway);
    bob.talk_over(&mut gateway, own_binary()).unwrap();
    ann.assert_whole(&mut gateway);
    bob.assert_whole(&mut gateway);
    let sessions = gateway.ask(async |client| client.list("sessions").await).unwrap();
    assert_eq!(sessions.len(), 2);
    assert!(is_running(first) && is_running(second));
    ann.end(&mut gateway, first);
    assert!(gateway.process.wait(TIMEOUT).unwrap().success());
    bob.assert_whole(&mut gateway);
    bob.end(&mut gateway, second);
    assert!(is_running(gateway.pid()));
}

#[test]
fn failed_upgrade_leaves_quic_unharmed() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]).with_quic());
    let mut ann = QuicEcho::begin(&mut gateway, 1);
    let crashes = script(gateway.folder(), "crashes", &format!("{MESSAGES}media; kill -9 $$"));
    let refused = ann.talk_over(&mut gateway, json!({"binary": crashes})).unwrap_err();
    assert!(refused.to_string().contains("signal: 9"), "{refused}");
    ann.assert_whole(&mut gateway);
    ann.talk_over(&mut gateway, own_binary()).unwrap();
    ann.assert_whole(&mut gateway);
}

#[test]
fn webtransport_session_survives_an_upgrade() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]).with_quic());
    let offer = GatewayProcess::offer("room", OfferIngress::webtransport());
    let opened = gateway.ask(async |client| client.open(&offer).await).unwrap();
    let opened = opened.webtransport.unwrap();
    let way = QuicWay {
        protocol: QuicProtocol::Webtransport,
        gateway: opened.address().unwrap(),
        certificate_sha256: opened.certificate().unwrap(),
        flow_to_gateway: opened.flow_to_gateway.parse().unwrap(),
        flow_from_gateway: opened.flow_from_gateway.parse().unwrap(),
    };
    let fleet = ClientFleet::start(&Books::default()).unwrap();
    let persona = Persona { session: 1, seed: 1, voice: true, video: false };
    fleet.join(persona, ClientPath::Quic(way));
    let mut bob = Phone::new(2);
    gateway.open("room", &mut bob);
    talk(&mut [&mut bob], "the page is heard", |phones| phones[0].audio_from(1) >= 20);
    let upgrading = gateway.upgrade(own_binary());
    talk(&mut [&mut bob], "the upgrade is answered", |_| upgrading.is_finished());
    let upgraded = upgrading.join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    let heard = || fleet.state(1).unwrap().tally.packets_received;
    let (before, known) = (heard(), bob.audio_from(1));
    talk(&mut [&mut bob], "both hear on", |phones| {
        heard() >= before + 100 && phones[0].audio_from(1) >= known + 50
    });
    assert_eq!(assert_continuous(&bob.heard_from(1, 0)), 0);
    // Over the connection that the replaced process keeps.
    let counts = gateway.read("/v1/status")["quic_counts"].take();
    assert_eq!(counts["webtransport-opened"], 0, "{counts}");
    assert!(counts["received-by-predecessors"].as_u64() > Some(50), "{counts}");
}

#[test]
fn api_answers_throughout_an_upgrade() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let mut events = gateway.ask(async |client| client.events().await).unwrap();
    let upgrading = gateway.upgrade(own_binary());
    let (mut asked, mut opened) = (0, Vec::new());
    while !upgrading.is_finished() || asked < 20 {
        let status = gateway.ask(async |client| client.another().read("/v1/status").await);
        assert_eq!(status.unwrap()["state"], "serving");
        let phone = Phone::new(100 + asked);
        let ingress = OfferIngress::declared(phone.address());
        let offer = GatewayProcess::offer(&format!("room-{asked}"), ingress);
        match gateway.ask(async |client| client.another().open(&offer).await) {
            Ok(answer) => opened.push((answer.id, phone)),
            // With a time for the next attempt.
            Err(ClientError::Refused { status: 503, .. }) => {}
            Err(error) => panic!("{error}"),
        }
        asked += 1;
    }
    let upgraded = upgrading.join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    let listed = gateway.ask(async |client| client.list("sessions").await).unwrap();
    let listed: Vec<&str> = listed.iter().map(|session| session["id"].as_str().unwrap()).collect();
    let answered: Vec<&str> = opened.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(listed, answered, "each answered offer is a session, once");
    // The stream of the old process ends; the new one has its own.
    gateway.ask(async |_| while let Ok(Some(_)) = events.next().await {});
    let mut events = gateway.ask(async |client| client.events().await).unwrap();
    let mut bob = Phone::new(2);
    gateway.open("last", &mut bob);
    let mut next = || gateway.ask(async |_| events.next().await).unwrap().unwrap();
    // The new process may first warn of losses that it could not bear.
    let event = std::iter::repeat_with(&mut next).find(|event| event.name == "opened").unwrap();
    assert_eq!(event.data["room"], json!("last"));
}

#[test]
fn offer_with_key_is_answered_once_over_an_upgrade() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let phone = Phone::new(1);
    let ingress = OfferIngress::declared(phone.address());
    let offer = GatewayProcess::offer("room", ingress);
    let body = serde_json::to_vec(&offer).unwrap();
    let open = |gateway: &mut GatewayProcess| {
        let call = ApiCall {
            method: hyper::Method::POST,
            path: "/v1/sessions",
            headers: &[("idempotency-key", "once")],
            body: body.clone().into(),
        };
        gateway.ask(async |client| client.ask(call).await).unwrap()
    };
    let first = open(&mut gateway);
    assert_eq!(first.status, 201);
    let upgraded = gateway.upgrade(own_binary()).join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    let again = open(&mut gateway);
    assert_eq!((again.status, &again.body), (201, &first.body));
    // The answer ends with its session, and the key opens no second one.
    let opened: Value = serde_json::from_slice(&first.body).unwrap();
    let id = opened["id"].as_str().unwrap();
    gateway.ask(async |client| client.close(id).await).unwrap();
    wait_until("the answer is dropped", || open(&mut gateway).status == 409);
    assert_eq!(gateway.read("/v1/status")["sessions"], 0);
}

#[test]
fn service_manager_learns_the_new_process() {
    let node = Node::agent("east-a1");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    let told = || {
        let mut buffer = [0; 128];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = Command::new(evenkeel());
    command.env("NOTIFY_SOCKET", &path);
    let mut gateway = GatewayProcess::start_by(&World::of(&[&node]), command);
    assert_eq!(told(), "READY=1");
    let unfit = gateway.folder().join("missing");
    gateway.upgrade(json!({"binary": unfit})).join().unwrap().unwrap_err();
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1", "the old process serves on");
    let upgraded = gateway.upgrade(own_binary()).join().unwrap().unwrap();
    let pid = upgraded["pid"].as_i64().unwrap() as i32;
    gateway.note_successor(pid);
    assert!(told().starts_with("RELOADING=1"));
    assert_eq!(told(), format!("MAINPID={pid}\nREADY=1"));
    assert_eq!(told(), "BARRIER=1");
}

#[test]
fn command_upgrades_and_names_failures() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let socket = gateway.folder().join("admin.sock");
    let upgrade = |arguments: &[&str]| {
        let mut command = Command::new(evenkeel());
        command.args(["upgrade", "--api"]).arg(&socket).args(arguments).output().unwrap()
    };
    let failed = upgrade(&["/nowhere/evenkeel"]);
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("the running process continues: cannot start /nowhere"), "{said}");
    let path = evenkeel().to_str().unwrap();
    let done = upgrade(&[path, "--deadline", "30s", "--json"]);
    let upgraded: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(done.status.success(), "{upgraded}");
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    assert_eq!(gateway.read("/v1/status")["state"], "serving");
}

/// The policies with an active revision.
fn active_policies(gateway: &mut GatewayProcess) -> Vec<String> {
    let policies = gateway.read("/v1/policies")["policies"].take();
    let active = policies.as_array().unwrap().iter();
    let active = active.filter(|policy| policy["revision"].is_string());
    let mut active: Vec<String> =
        active.map(|policy| policy["policy"].as_str().unwrap().to_owned()).collect();
    active.sort_unstable();
    active
}

/// New and removed sets and hooks, and other bit rates, are applied by the process that runs.
#[test]
fn policy_sets_are_reloaded_in_place() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let mut calls = Calls::open(&mut gateway, 1);
    let sets = gateway.folder().join("policies");
    let save = |name: &str, text: &str| fs::write(sets.join(name), text).unwrap();
    let admission = "[admission]\nplugin = \"admit-capacity\"\n";
    save("opera.toml", &format!("[scenario.opera]\n{admission}"));
    save("live.toml", &format!("[scenario.live]\ndscp = {{ voice = \"CS5\" }}\n{admission}"));
    let reloaded = gateway.post("/v1/configuration:reload", &json!({}));
    assert_eq!((&reloaded["requires_restart"], &reloaded["refused"]), (&json!([]), &json!([])));
    assert_eq!(active_policies(&mut gateway), ["live/admission", "opera/admission"]);
    let phone = Phone::new(9);
    let ingress = OfferIngress::declared(phone.address());
    let mut offer = GatewayProcess::offer("aria", ingress);
    offer.scenario = "opera".into();
    gateway.ask(async |client| client.open(&offer).await).unwrap();
    fs::remove_file(sets.join("opera.toml")).unwrap();
    save("live.toml", "[scenario.live]\n");
    let reloaded = gateway.post("/v1/configuration:reload", &json!({}));
    assert_eq!(reloaded["requires_restart"], json!([]));
    // The saved files may have been reloaded before.
    gateway.await_log("scenario `opera` is gone: open rooms (1) keep its settings until they end");
    let mut aria = |gateway: &mut GatewayProcess, port: u64| {
        let phone = Phone::new(port);
        offer.ingress = Some(OfferIngress::declared(phone.address()));
        gateway.ask(async |client| client.open(&offer).await)
    };
    let refused = aria(&mut gateway, 10);
    assert!(matches!(refused, Err(ClientError::Refused { status: 400, .. })), "{refused:?}");
    let rooms = gateway.read("/v1/rooms")["rooms"].take();
    let is_open = |room: &Value| room["room"] == "aria";
    assert!(rooms.as_array().unwrap().iter().any(is_open), "{rooms}");
    assert_eq!(active_policies(&mut gateway), [""; 0]);
    let tasks = format!("/proc/{}/task", gateway.pid());
    wait_until("the threads of the policies have ended", || {
        let mut names = fs::read_dir(&tasks).unwrap().filter_map(|task| {
            // A thread may end meanwhile.
            fs::read_to_string(task.ok()?.path().join("comm")).ok()
        });
        let of_sets = ["policy opera", "policy live"];
        !names.any(|name| of_sets.iter().any(|set| name.starts_with(set)))
    });

    // What comes back begins anew, and its rooms take sessions again.
    save("opera.toml", &format!("[scenario.opera]\n{admission}"));
    gateway.post("/v1/configuration:reload", &json!({}));
    wait_until("the policy is active again", || {
        active_policies(&mut gateway) == ["opera/admission"]
    });
    aria(&mut gateway, 11).unwrap();
    calls.talk(PACKETS);
    calls.assert_whole();
}

#[test]
fn reload_command_upgrades_for_keys_that_need_it() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    let mut gateway = GatewayProcess::start(&world);
    let socket = gateway.folder().join("admin.sock");
    let reload = |arguments: &[&str]| {
        let mut command = Command::new(evenkeel());
        command.args(["reload", "--json", "--api"]).arg(&socket).args(arguments);
        let done = command.output().unwrap();
        (done.status.code(), serde_json::from_slice::<Value>(&done.stdout).unwrap())
    };
    let (status, unchanged) = reload(&[]);
    assert_eq!((status, unchanged.get("upgraded")), (Some(0), None), "{unchanged}");
    world.admin = "drills = true\n".into();
    world.write(gateway.folder());
    let (status, kept) = reload(&["--keep-process"]);
    assert_eq!((status, &kept["requires_restart"]), (Some(0), &json!(["[admin]"])));
    let (status, reloaded) = reload(&[]);
    assert_eq!((status, &reloaded["requires_restart"]), (Some(0), &json!([])), "{reloaded}");
    assert_eq!(reloaded["upgraded"]["keys"], json!(["[admin]"]));
    gateway.note_successor(reloaded["upgraded"]["pid"].as_i64().unwrap() as i32);
    let (_, again) = reload(&[]);
    assert_eq!((&again["requires_restart"], again.get("upgraded")), (&json!([]), None));
}

/// Runs its arguments as process 1.
fn as_first_process() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command
}

/// Process 1 of the gateway's namespace.
fn first_process(gateway: &GatewayProcess) -> Pid {
    let outer = gateway.process.id();
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

#[required(UserNamespaces)]
#[test]
fn signal_to_the_first_process_is_passed_on_at_once() {
    let node = Node::agent("east-a1");
    let mut command = as_first_process();
    command.arg(evenkeel());
    let mut gateway = GatewayProcess::start_by(&World::of(&[&node]), command);
    let first = first_process(&gateway);
    // The first process answers, and then closes the API before it waits for the other.
    gateway.upgrade(own_binary()).join().unwrap().unwrap();
    kill(first, Signal::SIGTERM).unwrap();
    let status = gateway.process.wait(TIMEOUT).unwrap();
    assert!(status.success(), "{status}");
}

#[required(UserNamespaces)]
#[test]
fn first_process_signals_past_kept_connections() {
    let node = Node::agent("east-a1");
    let mut command = as_first_process();
    command.arg(evenkeel());
    let mut gateway = GatewayProcess::start_by(&World::of(&[&node]).with_quic(), command);
    let first = first_process(&gateway);
    let way = roq_session(&mut gateway, "room");
    gateway.upgrade(own_binary()).join().unwrap().unwrap();
    // The second process lives on with this connection after it is replaced.
    let line = gateway.ask(async |_| connect(way).await);
    let mut ann = QuicEcho { line, voice: Phone::new(1).voice, heard: Vec::new() };
    gateway.ask(async |_| ann.talk(|ann| !ann.heard.is_empty()).await);
    gateway.upgrade(own_binary()).join().unwrap().unwrap();
    // There is a session: the first signal drains, the second ends.
    kill(first, Signal::SIGTERM).unwrap();
    gateway.await_log("shutting down");
    kill(first, Signal::SIGTERM).unwrap();
    let status = gateway.process.wait(TIMEOUT).unwrap();
    assert!(status.success(), "{status}");
}

#[required(UserNamespaces)]
#[test]
fn first_process_stays_until_the_last_ends() {
    let node = Node::agent("east-a1");
    let mut command = as_first_process();
    command.arg(evenkeel());
    let mut gateway = GatewayProcess::start_by(&World::of(&[&node]), command);
    let mut calls = Calls::open(&mut gateway, 1);
    for _ in 0..3 {
        let upgrading = gateway.upgrade(own_binary());
        talk(&mut calls.phones(), "the upgrade is answered", |_| upgrading.is_finished());
        let upgraded = upgrading.join().unwrap().unwrap();
        assert!(upgraded["pid"].as_u64().unwrap() > 1, "a number of the namespace: {upgraded}");
        calls.talk(PACKETS);
    }
    calls.assert_whole();
    let first = first_process(&gateway);
    wait_until("ended processes are reaped", || {
        let serving = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        serving.split_whitespace().count() == 1
    });
    // It has sessions: the first signal drains, the second ends.
    kill(first, Signal::SIGTERM).unwrap();
    gateway.await_log("shutting down");
    kill(first, Signal::SIGTERM).unwrap();
    let status = gateway.process.wait(TIMEOUT).unwrap();
    assert!(status.success(), "{status}");
}
