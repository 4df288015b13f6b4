use evenkeel_media::trunk::message::{Load, Replays, SKEW_MAX_US};

use super::*;
use crate::cluster::beats::tests::{Counted, LOOPBACK, member};
use crate::settings::{self, Agent};

const SECRET: &[u8] = b"a secret of the agent alone";

/// The agent beside `edge-2`, played by the test.
struct Host {
    socket: std::net::UdpSocket,
    secret: Secret,
    replays: Replays,
}

impl Host {
    fn new() -> Host {
        let secret = Secret::new(SECRET, "edge-2").unwrap();
        let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
        Host { socket, secret, replays: Replays::default() }
    }

    fn agent(&self, refusals: Refusals) -> PeerAgent {
        let mut peer = member(["edge-1", "edge-2"], [LOOPBACK; 2], &["a"]).peer;
        let secret = settings::Secret::new(SECRET.to_vec());
        peer.agent = Some(Agent { address: self.socket.local_addr().unwrap(), secret });
        PeerAgent::start(&peer, refusals).unwrap().unwrap()
    }

    /// The nonce of the next question, and its source.
    fn asked(&mut self) -> (u64, SocketAddr) {
        let mut bytes = [0; 512];
        let (length, source) = self.socket.recv_from(&mut bytes).unwrap();
        let (now_us, replays) = (votes::now_us(), &mut self.replays);
        let asked = Question::read_once(&bytes[..length], &self.secret, now_us, replays).unwrap();
        assert_eq!(asked.message, Question::Probe);
        (asked.nonce, source)
    }

    fn send(&self, message: &Answer, (nonce, to): (u64, SocketAddr)) {
        let answer = answer(message, &self.secret, nonce, votes::now_us());
        self.socket.send_to(&answer, to).unwrap();
    }
}

fn load(state: State) -> Load {
    Load { permille: 0, state, sessions: 0, vouched: state == State::Serving }
}

fn answer(message: &Answer, secret: &Secret, nonce: u64, now_us: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(secret, nonce, now_us, &mut bytes);
    bytes
}

#[tokio::test]
async fn only_the_answer_of_a_closed_port_counts() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    for state in [State::Serving, State::Draining, State::Gone] {
        agent.ask();
        let asked = host.asked();
        host.send(&Answer::Notice { number: 1, load: load(State::Gone) }, asked);
        host.send(&Answer::Probe(load(state)), asked);
    }
    agent.closed().await;
    assert_eq!(agent.asked.len(), 0, "the other states were read before");
    assert_eq!(counted.count(""), 0);
}

#[tokio::test]
async fn forged_old_and_repeated_answers_are_refused() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    agent.ask();
    let (nonce, to) = host.asked();
    let now_us = votes::now_us();
    let gone = Answer::Probe(load(State::Gone));
    let mut changed = answer(&gone, &host.secret, nonce, now_us);
    changed[20] ^= 1;
    let other_gateway = Secret::new(SECRET, "edge-1").unwrap();
    let other_secret = Secret::new(b"a secret of another agent", "edge-2").unwrap();
    let mut refusal = Vec::new();
    Refusal { nonce, sent_us: now_us + 2 * SKEW_MAX_US }.write(&mut refusal);
    for bytes in [
        changed,
        answer(&gone, &other_gateway, nonce, now_us),
        answer(&gone, &other_secret, nonce, now_us),
        answer(&gone, &host.secret, nonce, now_us - 2 * SKEW_MAX_US),
        refusal,
        answer(&gone, &host.secret, nonce.wrapping_add(1), now_us),
        b"what is this".to_vec(),
    ] {
        host.socket.send_to(&bytes, to).unwrap();
    }
    let stranger = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    stranger.send_to(&answer(&gone, &host.secret, nonce, now_us), to).unwrap();
    let first = answer(&gone, &host.secret, nonce, now_us);
    host.socket.send_to(&first, to).unwrap();
    agent.closed().await;
    for (reason, count) in
        [("forged", 2), ("secret", 1), ("clock", 2), ("replayed", 1), ("malformed", 1)]
    {
        assert_eq!(counted.count(reason), count, "{reason}");
    }

    host.socket.send_to(&first, to).unwrap();
    agent.ask();
    let asked = host.asked();
    host.send(&gone, asked);
    agent.closed().await;
    assert_eq!(counted.count("replayed"), 2, "the first answer counted once");
    assert_eq!(agent.asked.len(), 0);
}

#[tokio::test]
async fn oldest_questions_are_forgotten() {
    let (host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    let first = agent.next_nonce;
    (0..=ASKED_MAX).for_each(|_| agent.ask());
    assert_eq!(agent.asked.len(), ASKED_MAX);
    assert!(!agent.asked.contains(&first));
}

#[tokio::test]
async fn mute_agent_of_a_heard_peer_is_reported() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    agent.report_silence(true);
    assert!(!agent.mute, "too early");
    agent.answered = Instant::now().checked_sub(ANSWERS_WITHIN).unwrap();
    agent.report_silence(false);
    assert!(!agent.mute, "its gateway may not run");
    agent.report_silence(true);
    assert!(agent.mute);
    agent.ask();
    let asked = host.asked();
    host.send(&Answer::Probe(load(State::Gone)), asked);
    agent.closed().await;
    agent.report_silence(true);
    assert!(!agent.mute);
}

#[tokio::test]
async fn peer_without_an_agent_is_not_asked() {
    let peer = member(["edge-1", "edge-2"], [LOOPBACK; 2], &["a"]).peer;
    let started = PeerAgent::start(&peer, Counted::default().refusals).unwrap();
    assert!(started.is_none());
}
