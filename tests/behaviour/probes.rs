//! Probes of clients' paths: `evenkeel probe`, the packets of a probe, and the offer that carries its result.

use std::net::UdpSocket;
use std::process::{Command, Output};
use std::sync::{Arc, Weak};
use std::time::Duration;

use evenkeel_contract::offers::{OfferIngress, OfferRequest};
use evenkeel_contract::probes::{ProbeReport, ProbeRequest, ProbeRoundTrips};
use evenkeel_media::probe::transaction;
use evenkeel_media::stun::{Response, StunKey, Username, write_padded_request};
use evenkeel_testkit::binary::evenkeel;
use serde_json::{Value, json};

use crate::harness::{GatewayProcess, Node, Phone, TIMEOUT, World, wait_until};

/// Probes of which one meets no stall of a busy machine.
const ATTEMPTS: usize = 5;

fn probe(gateway: &GatewayProcess, options: &[&str]) -> Output {
    let mut command = Command::new(evenkeel());
    command.arg("probe").args(options).arg("--to").arg(gateway.folder().join("admin.sock"));
    command.output().unwrap()
}

fn measured(gateway: &GatewayProcess) -> ProbeReport {
    let output = probe(gateway, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first measurement without answers that were late.
fn measured_without_stall(gateway: &GatewayProcess) -> ProbeReport {
    let mut reports = (0..ATTEMPTS).map(|_| measured(gateway));
    reports.find(|report| report.loss_down_ppm == 0).expect("one probe meets no stall")
}

#[test]
fn loopback_has_no_loss_and_a_good_verdict() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let report = measured_without_stall(&gateway);
    assert_eq!((report.loss_up_ppm, report.mtu, report.refused), (0, 1_500, 0));
    assert!(report.verdict.starts_with("voice good, video "), "{report:?}");
    assert!(report.r_factor >= 8_000 && report.video_lines >= 180, "{report:?}");
    let sessions = gateway.read("/v1/status")["sessions"].take();
    assert_eq!(sessions, 0, "a probe opens none");

    let ann = Phone::new(1);
    let offer = OfferRequest {
        probe: Some(report.signed),
        ..GatewayProcess::offer("room", OfferIngress::declared(ann.address()))
    };
    let mut offered = || {
        let answer = gateway.ask(async |client| client.ask_to_open(&offer).await).unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body["error"]["field"].clone())
    };
    assert_eq!(offered(), (201, Value::Null));
    assert_eq!(offered(), (400, json!("probe")), "a result is for one offer");
}

#[test]
fn command_prints_verdict_and_figures() {
    let node = Node::agent("east-a1");
    let gateway = GatewayProcess::start(&World::of(&[&node]));
    let socket = gateway.folder().join("admin.sock");
    let output = probe(&gateway, &["--to", socket.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "one of each gateway: {text}");
    let begin = format!("{}: voice ", socket.display());
    for line in lines {
        assert!(line.starts_with(&begin) && line.ends_with("MTU 1500)"), "{line}");
    }
}

/// Carries packets between a client and a gateway while the path is `used`. Every tenth packet to the gateway is lost.
fn carry(near: &UdpSocket, far: &UdpSocket, used: &Weak<()>) {
    let (mut buffer, mut packets, mut client) = ([0; 2_048], 0_u32, None);
    while used.upgrade().is_some() {
        while let Ok((length, source)) = near.recv_from(&mut buffer) {
            client = Some(source);
            packets += 1;
            if !packets.is_multiple_of(10) {
                far.send(&buffer[..length]).unwrap();
            }
        }
        while let (Ok(length), Some(client)) = (far.recv(&mut buffer), client) {
            near.send_to(&buffer[..length], client).unwrap();
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
}

#[test]
fn lossy_path_shows_its_loss() {
    const GATEWAY: &str = "127.77.0.1:5004";
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (near, far) = (socket(), socket());
    for socket in [&near, &far] {
        socket.set_nonblocking(true).unwrap();
    }
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.listens = format!(
        "[[listen]]\nudp = \"{GATEWAY}\"\nadvertise = \"{}\"\nidentity = [\"declared\"]\n",
        near.local_addr().unwrap()
    );
    let gateway = GatewayProcess::start(&world);
    far.connect(GATEWAY).unwrap();
    let path = Arc::new(());
    let used = Arc::downgrade(&path);
    std::thread::spawn(move || carry(&near, &far, &used));
    let report = measured_without_stall(&gateway);
    // A tenth of 140 packets.
    assert!((90_000..=110_000).contains(&report.loss_up_ppm), "{report:?}");
    assert!(report.verdict.starts_with("voice poor, "), "{report:?}");
    drop(path);
}

#[test]
fn repeated_and_oversized_packets_are_counted() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let opened =
        gateway.ask(async |client| client.open_probe(ProbeRequest::default()).await).unwrap();
    let (key, id) = (StunKey::new(&opened.password), opened.id.clone());
    let packet = |number, length| {
        let mut packet = Vec::new();
        let username = Username { server_ufrag: &id, client_ufrag: "client" };
        write_padded_request(transaction(number, [7; 10]), username, &key, length, &mut packet);
        packet
    };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    for packet in [packet(0, 160), packet(0, 160), packet(1, 1_200), packet(2, 160)] {
        client.send_to(&packet, opened.addresses[0]).unwrap();
    }
    let mut drops =
        |reason: &str| gateway.read("/v1/status")["drops"][reason].as_u64().unwrap_or_default();
    wait_until("both are dropped", || drops("replayed") == 1 && drops("oversize") == 1);
    let mut buffer = [0; 2_048];
    for number in [0, 2] {
        let length = client.recv(&mut buffer).unwrap();
        let answer = Response::parse(&buffer[..length]).unwrap();
        assert_eq!(answer.message.transaction(), transaction(number, [7; 10]));
    }
    let round_trips = ProbeRoundTrips { round_trips_us: vec![Some(400), Some(400), Some(400)] };
    let asked = gateway.ask(async |client| client.measure_probe(&opened.id, &round_trips).await);
    let report = asked.unwrap();
    // Two of 140 arrived.
    assert_eq!((report.refused, report.loss_up_ppm, report.mtu), (2, 985_714, 188));
    assert_eq!((report.round_trip_us, report.loss_down_ppm), (400, 0));
}
