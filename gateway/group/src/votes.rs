//! Votes of the nodes' agents and of witnesses, which decide between members that do not hear each other.
//!
//! They have sockets of their own: a vote is on the critical path of a takeover, and must not wait for control.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Instant, SystemTime};

use evenkeel_config::{GatewayConfig, SecretFile};
use evenkeel_media::trunk::Vote;
use evenkeel_media::trunk::message::{NodeSecret, TrunkAnswer, TrunkQuestion};
use evenkeel_ownership::{AgentVote, WitnessId};
use evenkeel_process::random::draw;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::store_vote::StoreVoter;

/// Questions that wait for their answers: a second of five voters every 5 ms.
const ASKED_MAX: usize = 1_024;

/// Longest answer that is read; a vote's answer has 80 bytes.
const ANSWER_MAX: usize = 512;

/// An agent or a witness.
#[derive(Clone, Debug)]
pub(crate) struct VotingAgent {
    pub(crate) id: WitnessId,
    pub(crate) address: SocketAddr,
    pub(crate) secret: NodeSecret,
}

impl VotingAgent {
    /// The agents of the nodes, or beside them, and the witnesses.
    pub(crate) fn all(settings: &GatewayConfig) -> Vec<VotingAgent> {
        let agents = settings.nodes.iter().filter_map(|node| {
            let (address, secret) = node.voter()?;
            VotingAgent::new(&node.name, address, secret)
        });
        let witnesses = settings.witnesses.iter();
        let witnesses =
            witnesses.filter_map(|it| VotingAgent::new(&it.name, it.address, &it.secret));
        agents.chain(witnesses).collect()
    }

    fn new(name: &str, address: SocketAddr, secret: &SecretFile) -> Option<VotingAgent> {
        let digest = evenkeel_process::sha256(format!("{name} {address}").as_bytes());
        let id = WitnessId(u64::from_be_bytes(*digest.first_chunk()?));
        Some(VotingAgent { id, address, secret: NodeSecret::new(secret.bytes(), name).ok()? })
    }
}

pub(crate) struct Votes {
    group: u32,
    voters: Vec<VotingAgent>,
    v4: UdpSocket,
    /// `None` on a host without IPv6.
    v6: Option<UdpSocket>,
    /// `None` unless the store of the index votes.
    store: Option<StoreVoter>,
    next_nonce: u64,
    unanswered: VecDeque<VoteRequest>,
}

struct VoteRequest {
    nonce: u64,
    id: WitnessId,
    at: Instant,
    vote: Vote,
}

impl Votes {
    /// Must be called in an event loop.
    pub(crate) fn new(
        group: u32,
        voters: Vec<VotingAgent>,
        store: Option<StoreVoter>,
    ) -> io::Result<Votes> {
        Ok(Votes {
            group,
            voters,
            v4: socket((Ipv4Addr::UNSPECIFIED, 0).into())?,
            v6: socket((Ipv6Addr::UNSPECIFIED, 0).into()).ok(),
            store,
            next_nonce: draw(),
            unanswered: VecDeque::new(),
        })
    }

    pub(crate) fn has_voters(&self) -> bool {
        !self.voters.is_empty() || self.store.is_some()
    }

    /// Replaces the voters. Returns those that are none any more.
    pub(crate) fn set_voters(&mut self, voters: Vec<VotingAgent>) -> Vec<WitnessId> {
        let before = std::mem::replace(&mut self.voters, voters);
        let stays = |id| self.voters.iter().any(|voter| voter.id == id);
        before.into_iter().map(|voter| voter.id).filter(|&id| !stays(id)).collect()
    }

    /// Asks this voter, or every voter. A question that cannot be sent is lost.
    pub(crate) fn ask(&mut self, to: Option<WitnessId>, vote: Vote) {
        self.store.iter().for_each(|store| store.ask(to, vote));
        let mut question = Vec::with_capacity(128);
        for voter in self.voters.iter().filter(|voter| to.is_none_or(|id| id == voter.id)) {
            let nonce = self.next_nonce;
            self.next_nonce = self.next_nonce.wrapping_add(1);
            // Before the message is signed: a lease counts from here.
            let at = Instant::now();
            question.clear();
            let message = TrunkQuestion::Vote { group: self.group, vote };
            message.write(&voter.secret, nonce, now_us(), &mut question);
            let socket = if voter.address.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
            let Some(socket) = socket else { continue };
            if self.unanswered.len() == ASKED_MAX {
                self.unanswered.pop_front();
            }
            self.unanswered.push_back(VoteRequest { nonce, id: voter.id, at, vote });
            let _lost_at_worst = SockRef::from(socket).send_to(&question, &voter.address.into());
        }
    }

    /// Returns the next answer. May be cancelled without a loss.
    pub(crate) async fn recv(&mut self) -> AgentVote {
        loop {
            let (answer, source) = tokio::select! {
                received = receive(Some(&self.v4)) => received,
                received = receive(self.v6.as_ref()) => received,
                answer = receive_from(&mut self.store) => return answer,
            };
            if let Some(witness) = self.read(&answer, source) {
                return witness;
            }
        }
    }

    fn read(&mut self, answer: &[u8], source: SocketAddr) -> Option<AgentVote> {
        let mut at_source = self.voters.iter().filter(|voter| voter.address == source);
        let (id, answered) = at_source.find_map(|voter| {
            let answered = TrunkAnswer::read(answer, &voter.secret, now_us());
            Some((voter.id, answered.ok()?))
        })?;
        let TrunkAnswer::Vote(voted) = answered.message else { return None };
        let is_it = |asked: &VoteRequest| asked.nonce == answered.nonce && asked.id == id;
        let place = self.unanswered.iter().position(is_it)?;
        let VoteRequest { at: asked, vote, .. } = self.unanswered.remove(place)?;
        Some(AgentVote { id, asked, vote, voted })
    }
}

/// Must be called in an event loop.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Returns the next answer and its source. May be cancelled without a loss.
pub(super) async fn receive(socket: Option<&UdpSocket>) -> (Vec<u8>, SocketAddr) {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut buffer = [0; ANSWER_MAX];
    loop {
        // An error belongs to an earlier question.
        if let Ok((length, source)) = socket.recv_from(&mut buffer).await {
            return (buffer[..length].to_vec(), source);
        }
    }
}

async fn receive_from(store: &mut Option<StoreVoter>) -> AgentVote {
    match store {
        Some(store) => store.recv().await,
        None => std::future::pending().await,
    }
}

/// Microseconds since the Unix epoch.
pub(super) fn now_us() -> u64 {
    evenkeel_process::unix_us(SystemTime::now())
}

#[cfg(test)]
mod tests;
