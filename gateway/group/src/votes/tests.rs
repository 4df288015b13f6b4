use std::time::Duration;

use evenkeel_media::trunk::message::Replays;
use evenkeel_media::trunk::{Ballots, Hold};

use super::*;

const GROUP: u32 = 9;

/// An agent that answers votes, one by one.
struct Agent {
    socket: std::net::UdpSocket,
    secret: NodeSecret,
    ballots: Ballots,
    replays: Replays,
}

impl Agent {
    fn new(name: &str, instance: u32) -> Agent {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let secret = NodeSecret::new(b"a secret of some length", name).unwrap();
        Agent { socket, secret, ballots: Ballots::new(instance), replays: Replays::default() }
    }

    fn voter(&self, id: u64) -> VotingAgent {
        let address = self.socket.local_addr().unwrap();
        VotingAgent { id: WitnessId(id), address, secret: self.secret.clone() }
    }

    fn read(&mut self) -> (Vec<u8>, SocketAddr) {
        let mut bytes = [0; 512];
        let (length, source) = self.socket.recv_from(&mut bytes).unwrap();
        let read =
            TrunkQuestion::read_once(&bytes[..length], &self.secret, now_us(), &mut self.replays);
        let asked = read.unwrap();
        let TrunkQuestion::Vote { group: GROUP, vote } = asked.message else { panic!("{asked:?}") };
        let voted = self.ballots.handle_vote(GROUP, vote, Instant::now()).unwrap();
        let mut answer = Vec::new();
        TrunkAnswer::Vote(voted).write(&self.secret, asked.nonce, now_us(), &mut answer);
        (answer, source)
    }

    fn answer(&mut self) {
        let (answer, source) = self.read();
        self.socket.send_to(&answer, source).unwrap();
    }
}

#[tokio::test]
async fn every_agent_answers_its_own_question() {
    let mut agents = [Agent::new("east-a1", 1), Agent::new("east-a2", 2)];
    let voters = vec![agents[0].voter(10), agents[1].voter(20)];
    let mut votes = Votes::new(GROUP, voters, None).unwrap();
    let vote = Vote::Owner { epoch: 3, hold: Hold::For(Duration::from_secs(60)) };
    let before = Instant::now();
    votes.ask(None, vote);
    agents.iter_mut().for_each(Agent::answer);
    let mut witnesses = [votes.recv().await, votes.recv().await];
    witnesses.sort_by_key(|witness| witness.id);
    for (witness, (id, instance)) in witnesses.iter().zip([(10, 1), (20, 2)]) {
        assert_eq!((witness.id, witness.vote), (WitnessId(id), vote));
        assert_eq!((witness.voted.instance, witness.voted.epoch), (instance, 3));
        assert!((before..=Instant::now()).contains(&witness.asked));
    }
    let claim = Vote::Claim { base: 3, claim: 4 };
    votes.ask(Some(WitnessId(20)), claim);
    agents[1].answer();
    let witness = votes.recv().await;
    assert_eq!((witness.id, witness.vote, witness.voted.promised), (WitnessId(20), claim, 0));
}

#[tokio::test]
async fn forged_and_repeated_answers_do_not_count() {
    let mut agent = Agent::new("east-a1", 1);
    let mut votes = Votes::new(GROUP, vec![agent.voter(10)], None).unwrap();
    votes.ask(None, Vote::Standby);
    let (answer, gateway) = agent.read();
    let mut changed = answer.clone();
    changed[31] ^= 1;
    let stranger = Agent::new("east-a1", 2);
    for (socket, bytes) in [
        (&agent.socket, &changed),
        (&stranger.socket, &answer),
        (&agent.socket, &answer),
        (&agent.socket, &answer),
    ] {
        socket.send_to(bytes, gateway).unwrap();
    }
    assert_eq!(votes.recv().await.voted.instance, 1);
    votes.ask(None, Vote::Claim { base: 0, claim: 1 });
    agent.answer();
    let witness = votes.recv().await;
    assert_eq!(witness.vote, Vote::Claim { base: 0, claim: 1 }, "no answer came twice");
}

#[tokio::test]
async fn removed_voters_are_named() {
    let agents = [Agent::new("east-a1", 1), Agent::new("east-a2", 2)];
    let voters = vec![agents[0].voter(10), agents[1].voter(20)];
    let mut votes = Votes::new(GROUP, voters, None).unwrap();
    assert_eq!(votes.set_voters(vec![agents[1].voter(20)]), [WitnessId(10)]);
}
