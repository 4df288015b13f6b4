//! Agents beside nodes: asked how the nodes fare, and told unasked when that changes.

use std::time::Instant;

use evenkeel_core::{AgentWord, NodeId};
use evenkeel_media::trunk::message::{Load, State};

use super::driver::Clock;
use super::prober::{Prober, ToldOf, Unbelieved};
use super::thread::{Control, fill};

/// Each agent beside a node is asked once in so many watches: every 100 ms. Deaths are told unasked; this finds those whose
/// notice was lost, and that notices have a place to go to.
const WATCHES: u64 = 50;

impl Control {
    /// Asks those agents whose turn it is.
    pub(super) fn ask_agents(&mut self) {
        self.watches += 1;
        let turn = (self.watches % WATCHES) as usize;
        let clock = Clock::read();
        for agent in self.agents.iter().skip(turn).step_by(WATCHES as usize).flatten() {
            let mut token = [0; 12];
            fill(&self.random, &mut token);
            // What cannot be asked is not answered, which says nothing of the node.
            let _ = agent.probe(self.watches, token, clock);
        }
    }

    /// Why a node, or the agent beside it, is not believed.
    pub(super) fn unbelieved(&self, node: NodeId, now: Instant) -> Option<Unbelieved> {
        let of = |all: &[Option<Prober>]| all.get(node.0 as usize)?.as_ref()?.unbelieved(now);
        of(&self.probers).or_else(|| of(&self.agents))
    }

    /// Tells people of those who are not believed, with the turns in which agents are asked.
    pub(super) fn tell_of_unbelieved(&mut self, now: Instant) {
        if !self.watches.is_multiple_of(WATCHES) {
            return;
        }
        self.told_of.resize(self.listed.len(), ToldOf::default());
        for place in 0..self.listed.len() {
            let node = NodeId(place as u32);
            if let Some(unbelieved) = self.unbelieved(node, now)
                && self.told_of[place].is_news(unbelieved, now)
            {
                tracing::warn!(node = %self.node_name(node), "{unbelieved}");
            }
        }
    }

    /// How a node fares, as it says itself or the agent beside it. Where there is one, it has the word on the process and
    /// the load; whether the node takes sessions is the node's own to say, if it speaks.
    pub(super) fn fares(&mut self, node: NodeId, beside: bool, load: Load, at: Instant) {
        let place = node.0 as usize;
        let has_agent = self.agents[place].is_some();
        let prober = self.probers[place].as_ref();
        let speaks = prober.is_some_and(Prober::takes_orders);
        let heeded = Heeded::of(beside, has_agent, speaks);
        if heeded.process {
            let word = match load.state {
                State::Serving => AgentWord::Serving,
                State::Draining => AgentWord::Draining,
                State::Gone => AgentWord::Gone,
            };
            self.gateway.handle_agent_word(node, word, at);
            self.gateway.handle_load(node, load.permille, at);
        }
        if heeded.sessions {
            let willing = load.state == State::Serving && load.permille < 1_000;
            self.gateway.handle_willing(node, willing, at);
        }
    }
}

/// On what a word counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Heeded {
    /// Its process and its load.
    process: bool,
    /// Whether it takes sessions.
    sessions: bool,
}

impl Heeded {
    /// A word from `beside` a node, or of its own, where the node has an agent beside it, and speaks for itself.
    fn of(beside: bool, has_agent: bool, speaks: bool) -> Heeded {
        Heeded { process: beside == has_agent, sessions: !beside || !speaks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_the_word_on_the_process_and_the_node_on_sessions() {
        let heeded = |beside, has_agent, speaks| {
            let Heeded { process, sessions } = Heeded::of(beside, has_agent, speaks);
            (process, sessions)
        };
        assert_eq!(heeded(true, true, true), (true, false));
        assert_eq!(heeded(false, true, true), (false, true));
        assert_eq!(heeded(true, true, false), (true, true), "who else would");
        assert_eq!(heeded(false, false, true), (true, true), "it is alone");
    }
}
