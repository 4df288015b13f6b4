//! Attacks on a witness by hosts that reach its port.

use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

use evenkeel_media::trunk::message::{
    NodeFault, NodeSecret, OpenStatus, OrderOutcome, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::{Hold, Tag, Vote, Voted};

use crate::harness::{AgentFiles, SECRET, Server, TIMEOUT};

const NAME: &str = "w1";
const GROUP: u32 = 7;

/// A host that reaches the witness.
struct Host(UdpSocket);

impl Host {
    fn before(witness: &Server) -> Host {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(witness.address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Host(socket)
    }

    fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).unwrap();
    }

    /// The next answer, and its length.
    fn answer(&self) -> (u64, TrunkAnswer, usize) {
        let mut bytes = [0; 2_048];
        let length = self.0.recv(&mut bytes).expect("the witness answers");
        let read = TrunkAnswer::read(&bytes[..length], &secret(), now_us()).unwrap();
        (read.nonce, read.message, length)
    }

    /// The state of the group. Nothing was answered before, since answers come in order.
    fn state(&self, nonce: u64) -> Voted {
        self.send(&signed(&vote(Vote::Standby), nonce));
        match self.answer() {
            (answered, TrunkAnswer::Vote(voted), _) if answered == nonce => voted,
            other => panic!("{other:?}"),
        }
    }
}

fn secret() -> NodeSecret {
    NodeSecret::new(SECRET, NAME).unwrap()
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn vote(vote: Vote) -> TrunkQuestion {
    TrunkQuestion::Vote { group: GROUP, vote }
}

fn signed(question: &TrunkQuestion, nonce: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    question.write(&secret(), nonce, now_us(), &mut bytes);
    bytes
}

/// The owner holds to the end of its epoch.
fn hold(host: &Host, nonce: u64) {
    host.send(&signed(&vote(Vote::Owner { epoch: 3, hold: Hold::Epoch }), nonce));
    assert!(matches!(host.answer(), (_, TrunkAnswer::Vote(Voted { epoch: 3, .. }), _)));
}

#[test]
fn forged_and_recorded_votes_do_not_count() {
    let files = AgentFiles::new();
    let witness = files.witness(NAME, "127.0.0.1:0");
    let host = Host::before(&witness);
    let claim = signed(&vote(Vote::Claim { base: 0, claim: 2 }), 1);
    host.send(&claim);
    assert!(matches!(host.answer(), (1, TrunkAnswer::Vote(Voted { promised: 2, .. }), _)));
    hold(&host, 2);
    // Recorded, changed, cut, of another secret, and of another name.
    host.send(&claim);
    let mut changed = signed(&vote(Vote::Claim { base: 3, claim: 4 }), 3);
    *changed.last_mut().unwrap() ^= 1;
    host.send(&changed);
    (0..claim.len()).for_each(|length| host.send(&claim[..length]));
    for stranger in [
        NodeSecret::new(b"the secret of a stranger", NAME).unwrap(),
        NodeSecret::new(SECRET, "w2").unwrap(),
    ] {
        let mut bytes = Vec::new();
        let newer = vote(Vote::Owner { epoch: 9, hold: Hold::Epoch });
        newer.write(&stranger, 4, now_us(), &mut bytes);
        host.send(&bytes);
    }
    let state = host.state(5);
    assert_eq!((state.epoch, state.promised), (3, 2));
}

#[test]
fn restarted_witness_takes_no_recorded_vote() {
    let files = AgentFiles::new();
    let witness = files.witness(NAME, "127.0.0.1:0");
    let host = Host::before(&witness);
    let recorded = signed(&vote(Vote::Claim { base: 0, claim: 2 }), 1);
    let address = witness.address.to_string();
    let before = host.state(2).instance;
    drop(witness);
    let _witness = files.witness(NAME, &address);
    host.send(&recorded);
    let state = host.state(3);
    assert_eq!(state.promised, 0);
    assert_ne!(state.instance, before, "its memory is another voter's");
}

/// A holder of its secret gets votes, and nothing else.
#[test]
fn witness_serves_no_session_and_amplifies_nothing() {
    let files = AgentFiles::new();
    let witness = files.witness(NAME, "127.0.0.1:0");
    let host = Host::before(&witness);
    let questions = [
        TrunkQuestion::Open { room: 1, session: 1, tag: Tag(1), lease_s: 30, numbered: false },
        TrunkQuestion::Probe,
        TrunkQuestion::Start,
        TrunkQuestion::Break(NodeFault::Kill),
        vote(Vote::Standby),
    ];
    for (nonce, question) in (1..).zip(questions) {
        let bytes = signed(&question, nonce);
        host.send(&bytes);
        let (answered, answer, length) = host.answer();
        assert_eq!(answered, nonce, "{question:?}: {answer:?}");
        assert!(length <= bytes.len(), "{question:?}: {length} of {}", bytes.len());
        match answer {
            TrunkAnswer::Open { status, .. } => assert_ne!(status, OpenStatus::Ok),
            TrunkAnswer::Start(outcome) | TrunkAnswer::Break(outcome) => {
                assert_ne!(outcome, OrderOutcome::Done, "{question:?}");
            }
            TrunkAnswer::Probe(_) | TrunkAnswer::Vote(_) => {}
            other => panic!("{question:?}: {other:?}"),
        }
    }
}
