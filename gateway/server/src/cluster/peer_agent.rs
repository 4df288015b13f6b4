//! The agent beside the group's other gateway, which sees whether a process of its host has the port of beats.
//!
//! It shows the end of the peer's process where ICMP does not pass between the gateways. An answer is evidence as a port
//! unreachable is: about a question of this gateway, believed once, and withdrawn by the next beat.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{Answer, Question, Refusal, Refused, Secret, State};
use ring::rand::SystemRandom;
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::refusals::Refusals;
use super::votes;
use crate::control::draw;
use crate::settings::Peer;

/// Questions that may still be answered: those of a quarter of a second, at one each millisecond.
const ASKED_MAX: usize = 256;

/// An agent beside a gateway that is heard answers some twenty questions in this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct PeerAgent {
    address: SocketAddr,
    secret: Secret,
    socket: UdpSocket,
    next_nonce: u64,
    /// Nonces of questions without an answer.
    asked: VecDeque<u64>,
    /// The last answer, or the start.
    answered: Instant,
    /// Reported as mute.
    mute: bool,
    refusals: Refusals,
}

impl PeerAgent {
    /// `None` without an agent. Must be called in an event loop.
    ///
    /// # Errors
    /// Returns the error of the socket.
    pub(super) fn start(peer: &Peer, refusals: Refusals) -> io::Result<Option<PeerAgent>> {
        let Some(agent) = &peer.agent else { return Ok(None) };
        let any = match agent.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let secret = Secret::new(agent.secret.bytes(), &peer.name);
        Ok(Some(PeerAgent {
            address: agent.address,
            secret: secret.expect("the settings refuse a short secret"),
            socket: votes::socket(any)?,
            next_nonce: draw(&SystemRandom::new()),
            asked: VecDeque::with_capacity(ASKED_MAX),
            answered: Instant::now(),
            mute: false,
            refusals,
        }))
    }

    /// A question that cannot be sent is lost.
    pub(super) fn ask(&mut self) {
        let nonce = self.next_nonce;
        self.next_nonce = nonce.wrapping_add(1);
        let mut question = Vec::with_capacity(128);
        Question::Probe.write(&self.secret, nonce, votes::now_us(), &mut question);
        if self.asked.len() == ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(nonce);
        let _lost_at_worst = SockRef::from(&self.socket).send_to(&question, &self.address.into());
    }

    /// Returns once the agent answers that no process has the port of beats. May be cancelled without a loss.
    pub(super) async fn closed(&mut self) {
        loop {
            let (answer, source) = votes::receive(Some(&self.socket)).await;
            if source != self.address {
                continue;
            }
            match self.read(&answer) {
                Ok(state) => {
                    self.answered = Instant::now();
                    if std::mem::take(&mut self.mute) {
                        tracing::info!(agent = %self.address, "agent beside the peer answers");
                    }
                    if state == Some(State::Gone) {
                        return;
                    }
                }
                Err(refused) => self.refusals.note_agent(refused),
            }
        }
    }

    /// The state, if this is the answer to a question.
    fn read(&mut self, answer: &[u8]) -> Result<Option<State>, Refused> {
        if let Some(refusal) = Refusal::read(answer) {
            let ahead_us = refusal.sent_us.wrapping_sub(votes::now_us()).cast_signed();
            return Err(Refused::Time { ahead_us });
        }
        let answered = Answer::read(answer, &self.secret, votes::now_us())?;
        // The state of a notice is asked for again.
        let Answer::Probe(load) = answered.message else { return Ok(None) };
        let place = self.asked.iter().position(|nonce| *nonce == answered.nonce);
        let place = place.ok_or(Refused::Replayed)?;
        self.asked.remove(place);
        Ok(Some(load.state))
    }

    /// Reports an agent that does not answer while the peer is heard.
    pub(super) fn report_silence(&mut self, peer_is_heard: bool) {
        let silent = self.answered.elapsed() >= ANSWERS_WITHIN;
        if peer_is_heard && silent && !std::mem::replace(&mut self.mute, true) {
            tracing::warn!(
                agent = %self.address,
                "agent beside the peer does not answer; only ICMP shows the end of the peer's process"
            );
        }
    }
}

#[cfg(test)]
mod tests;
