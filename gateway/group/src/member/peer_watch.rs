//! Signs of the other members: their beats, the agent beside the peer, and the program that fences it.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::PeerSettings;
use evenkeel_control::Handle;
use evenkeel_ownership::{BeatRole, PeerId};

use crate::address::RouterCheck;
use crate::fence::Fence;
use crate::peer_agent::PeerAgent;
use crate::refusals::RefusalLog;

/// The next beat of a peer that runs comes sooner.
const MISSED_AFTER: Duration = Duration::from_millis(7);

pub(super) struct PeerWatch {
    /// The last beat of each other member.
    heard: Vec<Option<Instant>>,
    /// The last beat of an owner.
    owner_heard: Option<Instant>,
    /// The agent beside the peer, if it has one.
    agent: Option<PeerAgent>,
    /// The program that fences the peer, if there is one.
    fence: Option<Fence>,
    refusals: RefusalLog,
}

pub(super) enum PeerSign {
    /// The agent reports that no process has the peer's port.
    Closed,
    /// The program that makes sure that the peer is down has ended.
    Fenced(Result<(), String>),
}

impl PeerWatch {
    pub(super) fn new(others: usize, refusals: RefusalLog) -> PeerWatch {
        PeerWatch {
            heard: vec![None; others],
            owner_heard: None,
            agent: None,
            fence: None,
            refusals,
        }
    }

    /// Asks the agent beside this peer from now on, and fences this peer. Must be called in an event loop.
    pub(super) fn set_peer(&mut self, peer: &PeerSettings) -> io::Result<()> {
        self.fence = peer.fence.clone().map(|words| Fence::new(words, Arc::clone(&peer.name)));
        self.agent = None;
        self.agent = PeerAgent::start(peer, self.refusals.clone())?;
        Ok(())
    }

    pub(super) fn note_beat(&mut self, from: PeerId, role: BeatRole, now: Instant) {
        self.heard[from.0] = Some(now);
        if role == BeatRole::Owner {
            self.owner_heard = Some(now);
        }
    }

    /// The last beat of a member.
    pub(super) fn heard(&self, member: PeerId) -> Option<Instant> {
        self.heard[member.0]
    }

    /// The last beat of an owner.
    pub(super) fn owner_heard(&self) -> Option<Instant> {
        self.owner_heard
    }

    /// Asks the agent if a beat of the peer is missed.
    pub(super) fn ask_if_missed(&mut self, peer: PeerId) {
        let is_missed = self.heard(peer).is_none_or(|heard| heard.elapsed() >= MISSED_AFTER);
        if let Some(agent) = self.agent.as_mut().filter(|_| is_missed) {
            agent.ask();
        }
    }

    /// Asks the agent: one that does not answer is noticed before it is needed.
    pub(super) fn check_agent(&mut self, is_peer_heard: bool) {
        if let Some(agent) = &mut self.agent {
            agent.report_silence(is_peer_heard);
            agent.ask();
        }
    }

    pub(super) fn fence(&mut self, handle: &Handle, router_check: &RouterCheck, now: Instant) {
        if let Some(fence) = &mut self.fence {
            fence.begin(handle, router_check, now);
        }
    }

    /// Returns the next sign of the peer's end. May be cancelled without a loss.
    pub(super) async fn sign(&mut self, peer: PeerId) -> PeerSign {
        let heard = self.heard(peer);
        let closed = async {
            match &mut self.agent {
                Some(agent) => agent.closed(heard).await,
                None => pending().await,
            }
        };
        let fenced = async {
            match &mut self.fence {
                Some(fence) => fence.ended().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = closed => PeerSign::Closed,
            fenced = fenced => PeerSign::Fenced(fenced),
        }
    }
}
