//! The agent beside the group's other gateway, which sees whether a process of its host has the port of beats.
//!
//! It shows the end of the peer's process where ICMP does not pass between the gateways. An answer is evidence as a port
//! unreachable is: about a question of this gateway, believed once, and withdrawn by the next beat. An agent that such a
//! beat contradicts, such as one in the network namespace of a former container, must see the process again first.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use evenkeel_config::PeerSettings;
use evenkeel_media::trunk::message::{
    ClockRefusal, MessageError, NodeSecret, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_process::random::draw;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::refusals::RefusalLog;
use super::votes::{self, now_us};

/// An answer that took longer says too little about the present.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

/// Questions that may still be answered: those of [`ANSWERED_WITHIN`], at one each millisecond.
const ASKED_MAX: usize = 256;

/// An agent beside a gateway that is heard answers some twenty questions in this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct PeerAgent {
    address: SocketAddr,
    secret: NodeSecret,
    socket: UdpSocket,
    next_nonce: u64,
    /// Questions without an answer.
    unanswered: VecDeque<OutstandingQuery>,
    /// The last answer that was believed, or the start.
    answered: Instant,
    /// The first answer of a closed port since the last other state.
    closed_since: Option<Instant>,
    mute: bool,
    refusals: RefusalLog,
}

struct OutstandingQuery {
    nonce: u64,
    at: Instant,
}

impl PeerAgent {
    /// `None` without an agent. Must be called in an event loop.
    pub(super) fn start(
        peer: &PeerSettings,
        refusals: RefusalLog,
    ) -> io::Result<Option<PeerAgent>> {
        let Some(agent) = &peer.agent else { return Ok(None) };
        let any = match agent.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let secret = NodeSecret::new(agent.secret.bytes(), &peer.name);
        Ok(Some(PeerAgent {
            address: agent.address,
            secret: secret.expect("the settings refuse a short secret"),
            socket: votes::socket(any)?,
            next_nonce: draw(),
            unanswered: VecDeque::with_capacity(ASKED_MAX),
            answered: Instant::now(),
            closed_since: None,
            mute: false,
            refusals,
        }))
    }

    /// A question that cannot be sent is lost.
    pub(super) fn ask(&mut self) {
        let nonce = self.next_nonce;
        self.next_nonce = nonce.wrapping_add(1);
        let mut question = Vec::with_capacity(128);
        TrunkQuestion::Probe.write(&self.secret, nonce, now_us(), &mut question);
        if self.unanswered.len() == ASKED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(OutstandingQuery { nonce, at: Instant::now() });
        let _lost_at_worst = SockRef::from(&self.socket).send_to(&question, &self.address.into());
    }

    /// Returns once the agent shows that no process has the port of beats. `heard`: the last beat. May be cancelled
    /// without a loss.
    pub(super) async fn closed(&mut self, heard: Option<std::time::Instant>) {
        loop {
            let (answer, source) = votes::receive(Some(&self.socket)).await;
            if source != self.address {
                continue;
            }
            match self.read(&answer) {
                Ok(Some((asked, state))) => {
                    if self.shows_end(&asked, state, heard.map(Instant::from_std)) {
                        return;
                    }
                }
                // The state of a notice is asked for again.
                Ok(None) => {}
                Err(refused) => self.refusals.note_agent(refused),
            }
        }
    }

    /// The question and the state, if this is the answer to a question.
    fn read(
        &mut self,
        answer: &[u8],
    ) -> Result<Option<(OutstandingQuery, ServingState)>, MessageError> {
        if let Some(refusal) = ClockRefusal::read(answer) {
            let ahead_us = refusal.sent_us.wrapping_sub(now_us()).cast_signed();
            return Err(MessageError::Time { ahead_us });
        }
        let answered = TrunkAnswer::read(answer, &self.secret, now_us())?;
        let TrunkAnswer::Probe(load) = answered.message else { return Ok(None) };
        let place = self.unanswered.iter().position(|asked| asked.nonce == answered.nonce);
        let asked = place.and_then(|place| self.unanswered.remove(place));
        let in_time = asked.filter(|asked| asked.at.elapsed() < ANSWERED_WITHIN);
        Ok(Some((in_time.ok_or(MessageError::Replayed)?, load.state)))
    }

    /// An end is believed if the question came after the last beat, and no beat came since the agent first told the end.
    fn shows_end(
        &mut self,
        asked: &OutstandingQuery,
        state: ServingState,
        heard: Option<Instant>,
    ) -> bool {
        let now = Instant::now();
        self.closed_since = (state == ServingState::Gone).then(|| self.closed_since.unwrap_or(now));
        if self
            .closed_since
            .is_some_and(|gone| heard.is_some_and(|heard| heard >= gone.min(asked.at)))
        {
            return false;
        }
        self.answered = now;
        if std::mem::take(&mut self.mute) {
            tracing::info!(agent = %self.address, "agent beside the peer answers");
        }
        self.closed_since.is_some()
    }

    /// Reports an agent without an answer that can be believed while the peer is heard.
    pub(super) fn report_silence(&mut self, peer_is_heard: bool) {
        let silent = self.answered.elapsed() >= ANSWERS_WITHIN;
        if peer_is_heard && silent && !std::mem::replace(&mut self.mute, true) {
            let why = match self.closed_since {
                Some(_) => {
                    "sees no process of the peer, which is heard: it is not believed; run it in the peer's network namespace"
                }
                None => "does not answer; only ICMP shows the end of the peer's process",
            };
            tracing::warn!(agent = %self.address, "agent beside the peer {why}");
        }
    }
}

#[cfg(test)]
mod tests;
