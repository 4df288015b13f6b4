//! The store of a world, and the connections of members to it.

use std::time::Duration;

use super::{Event, RETRANSMITTED_AFTER, World};
use crate::group::network::Way;
use crate::group::store::{StoreRequest, StoreResult, StoreVoterOutput, VOTES_WITHIN};

impl World {
    /// A store that ends does nothing for the requests that wait; one that was stopped does.
    pub(in crate::group) fn stop_store(&mut self, stopped: bool) {
        self.say(|| format!("store stopped: {stopped}"));
        if stopped {
            self.store_stopped.get_or_insert_default();
            return;
        }
        let waiting = self.store_stopped.take().unwrap_or_default();
        if self.rng.bool() {
            waiting.into_iter().for_each(|event| self.handle(event));
        }
    }

    pub(in crate::group) fn slow_store(&mut self, latency: Duration) {
        self.say(|| format!("store takes up to {latency:?}"));
        if let Some(store) = &mut self.store {
            store.latency = latency;
        }
    }

    pub(in crate::group) fn store_latency(&self) -> Duration {
        self.store.as_ref().map_or(Duration::ZERO, |store| store.latency)
    }

    /// The store goes back to former contents, older than those that each process knows, so that each one notices. A
    /// standby could otherwise take over despite a forgotten hold of the owner.
    pub(in crate::group) fn forget_writes(&mut self) {
        let processes = self.members.iter().filter_map(|member| member.process.as_ref());
        let known = processes.map(|process| process.store_voter.newest).min().unwrap_or(0);
        let Some(store) = &mut self.store else { return };
        let revision = store.forget_writes(known, &mut self.rng);
        self.say(|| format!("store is back at revision {revision:?}"));
    }

    /// As [`Self::send`], over a connection that repeats what was lost, or breaks.
    fn send_store(&mut self, way: Way, event: Event) {
        let takes = self.store_latency().mul_f64(self.rng.f64());
        if let Some(delay) = self.network.carry(way, &mut self.rng) {
            self.put(self.now + delay + takes, event);
        } else if !self.network.is_cut(way) && self.rng.bool() {
            let repeated = RETRANSMITTED_AFTER * self.rng.u32(1..10);
            self.put(self.now + repeated + takes, event);
        }
    }

    /// The request of a member arrived.
    pub(super) fn answer_from_store(
        &mut self,
        member: usize,
        number: u64,
        request: StoreRequest,
        incarnation: u64,
    ) {
        self.instances += 1;
        let store = self.store.as_mut().expect("it votes");
        let result = store.handle(request, self.instances, &mut self.rng);
        let stored = store.stored();
        let is_changed = matches!(result, StoreResult::Written { revision: Some(_), .. });
        let event = Event::StoreResult { to: member, number, result, incarnation };
        self.send_store(Way::Down(member, self.agents.len()), event);
        for at in (0..self.members.len()).filter(|at| is_changed && *at != member) {
            let Some(process) = &self.members[at].process else { continue };
            let (incarnation, result) = (process.incarnation, StoreResult::Changed(stored));
            let event = Event::StoreResult { to: at, number, result, incarnation };
            self.send_store(Way::Down(at, self.agents.len()), event);
        }
    }

    /// Takes the next step of the member's question to the store.
    pub(super) fn ask_store(&mut self, at: usize) -> bool {
        let Some(process) = &mut self.members[at].process else { return false };
        let (now, incarnation) = (process.clock.at(self.now), process.incarnation);
        if process.store_voter.begin(self.questions, now) {
            let (number, result) = (self.questions, StoreResult::Late);
            let event = Event::StoreResult { to: at, number, result, incarnation };
            self.put(self.now + VOTES_WITHIN, event);
            self.questions += 1;
        }
        let Some(process) = &mut self.members[at].process else { return false };
        match process.store_voter.poll_output() {
            Some(StoreVoterOutput::Answer(witness)) => process.handle_witness(&witness, now),
            Some(StoreVoterOutput::Request { number, request }) => {
                let event = Event::StoreRequest { from: at, number, request, incarnation };
                self.send_store(Way::Up(at, self.agents.len()), event);
            }
            None => return false,
        }
        true
    }
}
