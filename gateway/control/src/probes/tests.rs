use std::net::UdpSocket;

use evenkeel_config::GatewayConfig;
use evenkeel_media::trunk::message::NodeSecret;
use tempfile::tempdir;
use tokio::task::LocalSet;

use super::*;
use crate::prober::ProbedEnd;

#[test]
fn agent_decides_on_process_and_node_on_sessions() {
    let scope = |beside, has_agent, speaks| {
        let ReportScope { process, sessions } = ReportScope::of(beside, has_agent, speaks);
        (process, sessions)
    };
    assert_eq!(scope(true, true, true), (true, false));
    assert_eq!(scope(false, true, true), (false, true));
    assert_eq!(scope(true, true, false), (true, true), "the node does not report");
    assert_eq!(scope(false, false, true), (true, true), "no agent");
}

fn probes() -> Probes {
    Probes::new(mpsc::channel(8).0, Arc::default())
}

fn secret() -> NodeSecret {
    NodeSecret::new(b"a secret of some length", "a").unwrap()
}

#[test]
fn process_is_taken_from_answers_to_own_questions() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    let node = "[[region]]\nname = \"east\"\n[[node]]\nname = \"a\"\naddress = \"192.0.2.1:4000\"\n\
        region = \"east\"\nzone = \"a\"\ndriver = \"plain\"\ncapacity = \"1 Mbit/s\"\n";
    std::fs::write(&file, node).unwrap();
    let settings = GatewayConfig::load(
        Some(file.as_path()),
        None,
        &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS),
    )
    .unwrap();
    let now = Instant::now() + Duration::from_secs(60);
    let (mut gateway, probes) = (Gateway::new(settings.core(), now), probes());
    let report = ProcessReport { memory_permille: 420, age_s: 7 };
    let process = |gateway: &Gateway| gateway.views().nodes().next().unwrap().process;
    let other = probes.process_nonce.wrapping_add(1);
    probes.handle_process(NodeId(0), other, report, &mut gateway, now);
    assert_eq!(process(&gateway), None, "another gateway's question");
    probes.handle_process(NodeId(0), probes.process_nonce, report, &mut gateway, now);
    let started = now - Duration::from_secs(7);
    assert_eq!(process(&gateway), Some(ProcessState { memory_permille: 420, started }));
}

/// The questions about the process that wait in the socket.
fn process_questions(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 512];
    let datagrams = std::iter::from_fn(|| {
        let length = socket.recv(&mut buffer).ok()?;
        TrunkQuestion::read(&buffer[..length], &secret(), Clock::read().unix_us).ok()
    });
    datagrams.filter(|question| question.message == TrunkQuestion::Process).count()
}

#[tokio::test]
async fn agent_is_asked_for_process_before_its_node() {
    let bound = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (node, agent) = (bound(), bound());
    let of = |socket: &UdpSocket, end| {
        Some((socket.local_addr().unwrap(), ProbeMethod::Signed(secret(), end)))
    };
    let asked = async {
        let mut probes = probes();
        probes.set_prober(NodeId(0), of(&node, ProbedEnd::Node));
        // The event loop does not know at first that the socket takes a datagram.
        while process_questions(&node) == 0 {
            probes.watches = PROCESS_WATCHES - 1;
            probes.ask_agents();
            tokio::task::yield_now().await;
        }
        probes.set_agent(NodeId(0), of(&agent, ProbedEnd::Beside));
        while process_questions(&agent) == 0 {
            probes.watches = PROCESS_WATCHES - 1;
            probes.ask_agents();
            tokio::task::yield_now().await;
        }
        process_questions(&node);
        probes.watches = PROCESS_WATCHES - 1;
        probes.ask_agents();
        for _ in 1..WATCHES {
            probes.ask_agents();
        }
        assert_eq!((process_questions(&node), process_questions(&agent)), (0, 1));
    };
    LocalSet::new().run_until(asked).await;
}
