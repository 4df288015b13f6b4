use evenkeel_config::WatchingAgent;
use evenkeel_media::trunk::message::{NodeLoad, Replays, SKEW_MAX_US};
use tokio::time::advance;

use super::*;
use crate::beats::tests::{Counted, LOOPBACK, member};

const SECRET: &[u8] = b"a secret of the agent alone";

/// The agent beside `edge-2`, played by the test.
struct Host {
    socket: std::net::UdpSocket,
    secret: NodeSecret,
    replays: Replays,
}

impl Host {
    fn new() -> Host {
        let secret = NodeSecret::new(SECRET, "edge-2").unwrap();
        let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
        Host { socket, secret, replays: Replays::default() }
    }

    fn agent(&self, refusals: RefusalLog) -> PeerAgent {
        let mut peer = member(["edge-1", "edge-2"], [LOOPBACK; 2], &["a"]).peers.remove(0);
        let secret = evenkeel_config::SecretFile::new(SECRET.to_vec());
        peer.agent = Some(WatchingAgent { address: self.socket.local_addr().unwrap(), secret });
        PeerAgent::start(&peer, refusals).unwrap().unwrap()
    }

    /// The nonce of the next question, and its source.
    fn asked(&mut self) -> (u64, SocketAddr) {
        let mut bytes = [0; 512];
        let (length, source) = self.socket.recv_from(&mut bytes).unwrap();
        let replays = &mut self.replays;
        let asked =
            TrunkQuestion::read_once(&bytes[..length], &self.secret, now_us(), replays).unwrap();
        assert_eq!(asked.message, TrunkQuestion::Probe);
        (asked.nonce, source)
    }

    fn send(&self, message: &TrunkAnswer, (nonce, to): (u64, SocketAddr)) {
        let answer = answer(message, &self.secret, nonce, now_us());
        self.socket.send_to(&answer, to).unwrap();
    }

    /// Answers a new question.
    fn tell(&mut self, agent: &mut PeerAgent, state: ServingState) {
        agent.ask();
        let asked = self.asked();
        self.send(&TrunkAnswer::Probe(load(state)), asked);
    }
}

/// The time, a moment after all that came before.
async fn later() -> Instant {
    advance(Duration::from_millis(1)).await;
    Instant::now()
}

fn load(state: ServingState) -> NodeLoad {
    NodeLoad { permille: 0, state, sessions: 0, vouched: state == ServingState::Serving }
}

fn answer(message: &TrunkAnswer, secret: &NodeSecret, nonce: u64, now_us: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(secret, nonce, now_us, &mut bytes);
    bytes
}

#[tokio::test(start_paused = true)]
async fn only_the_answer_of_a_closed_port_counts() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    for state in [ServingState::Serving, ServingState::Draining, ServingState::Gone] {
        agent.ask();
        let asked = host.asked();
        host.send(&TrunkAnswer::Notice { number: 1, load: load(ServingState::Gone) }, asked);
        host.send(&TrunkAnswer::Probe(load(state)), asked);
    }
    agent.closed(None).await;
    assert_eq!(agent.unanswered.len(), 0, "the other states were read before");
    assert_eq!(counted.count(""), 0);
}

#[tokio::test(start_paused = true)]
async fn forged_old_and_repeated_answers_are_refused() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    agent.ask();
    let (nonce, to) = host.asked();
    let now_us = now_us();
    let gone = TrunkAnswer::Probe(load(ServingState::Gone));
    let mut changed = answer(&gone, &host.secret, nonce, now_us);
    changed[20] ^= 1;
    let other_gateway = NodeSecret::new(SECRET, "edge-1").unwrap();
    let other_secret = NodeSecret::new(b"a secret of another agent", "edge-2").unwrap();
    let mut refusal = Vec::new();
    ClockRefusal { nonce, sent_us: now_us + 2 * SKEW_MAX_US }.write(&mut refusal);
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
    agent.closed(None).await;
    for (reason, count) in
        [("forged", 2), ("secret", 1), ("clock", 2), ("replayed", 1), ("malformed", 1)]
    {
        assert_eq!(counted.count(reason), count, "{reason}");
    }

    host.socket.send_to(&first, to).unwrap();
    agent.ask();
    let asked = host.asked();
    host.send(&gone, asked);
    agent.closed(None).await;
    assert_eq!(counted.count("replayed"), 2, "the first answer counted once");
    assert_eq!(agent.unanswered.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn oldest_questions_are_forgotten() {
    let (host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    let first = agent.next_nonce;
    (0..=ASKED_MAX).for_each(|_| agent.ask());
    assert_eq!(agent.unanswered.len(), ASKED_MAX);
    assert!(agent.unanswered.iter().all(|asked| asked.nonce != first));
}

#[tokio::test(start_paused = true)]
async fn mute_agent_of_a_heard_peer_is_reported() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    agent.report_silence(true);
    assert!(!agent.mute, "too early");
    advance(ANSWERS_WITHIN).await;
    agent.report_silence(false);
    assert!(!agent.mute, "its gateway may not run");
    agent.report_silence(true);
    assert!(agent.mute);
    host.tell(&mut agent, ServingState::Gone);
    agent.closed(None).await;
    agent.report_silence(true);
    assert!(!agent.mute);
}

#[tokio::test(start_paused = true)]
async fn late_answer_is_refused() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    let almost = ANSWERED_WITHIN - Duration::from_millis(1);
    for after in [ANSWERED_WITHIN, almost] {
        agent.ask();
        let asked = host.asked();
        advance(after).await;
        host.send(&TrunkAnswer::Probe(load(ServingState::Gone)), asked);
    }
    agent.closed(None).await;
    assert_eq!(counted.count("replayed"), 1, "the first answer is late, the second in time");
}

#[tokio::test(start_paused = true)]
async fn contradicted_agent_must_see_the_process() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    host.tell(&mut agent, ServingState::Gone);
    agent.closed(None).await;
    let heard = later().await.into_std();
    later().await;
    for state in [ServingState::Gone, ServingState::Gone, ServingState::Serving, ServingState::Gone]
    {
        host.tell(&mut agent, state);
    }
    agent.closed(Some(heard)).await;
    assert_eq!(agent.unanswered.len(), 0, "believed before it saw the process");
}

#[tokio::test(start_paused = true)]
async fn question_before_the_last_beat_shows_no_end() {
    let (mut host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    agent.ask();
    let asked = host.asked();
    let heard = later().await.into_std();
    later().await;
    host.send(&TrunkAnswer::Probe(load(ServingState::Gone)), asked);
    host.tell(&mut agent, ServingState::Gone);
    agent.closed(Some(heard)).await;
    assert_eq!(agent.unanswered.len(), 0, "the first answer was believed");
}

#[tokio::test(start_paused = true)]
async fn agent_that_misses_a_heard_peer_is_reported() {
    let (host, counted) = (Host::new(), Counted::default());
    let mut agent = host.agent(counted.refusals.clone());
    let mut look = |state, heard| {
        let asked = OutstandingQuery { nonce: 0, at: Instant::now() };
        let shown = agent.shows_end(&asked, state, heard);
        agent.report_silence(true);
        (shown, agent.mute)
    };
    assert_eq!(look(ServingState::Gone, None), (true, false));
    let heard = Some(later().await);
    later().await;
    assert_eq!(look(ServingState::Gone, heard), (false, false), "it may just have started");
    advance(ANSWERS_WITHIN).await;
    assert_eq!(look(ServingState::Gone, heard), (false, true));
    assert_eq!(look(ServingState::Serving, heard), (false, false));
    assert_eq!(look(ServingState::Gone, heard), (true, false));
}

#[tokio::test(start_paused = true)]
async fn peer_without_an_agent_is_not_asked() {
    let peer = member(["edge-1", "edge-2"], [LOOPBACK; 2], &["a"]).peers.remove(0);
    let started = PeerAgent::start(&peer, Counted::default().refusals).unwrap();
    assert!(started.is_none());
}
