//! Control: what it hears goes into the core, and what the core wants is done.

use std::time::Duration;

use evenkeel_core::{Health, Measures, Metric, Output, SessionId, WATCH_EVERY};

use super::{Event, SUMMARIES_EVERY, Word, World};
use crate::check::Checker;
use crate::fault::Fault;
use crate::node::Arrival;
use crate::worker::Home;

impl World<'_> {
    /// The law: after every change, what the core wants is done.
    pub(super) fn settle(&mut self) {
        if self.script.baseline.is_some() {
            return;
        }
        let mut spoke = false;
        while let Some(output) = self.gateway.poll_output() {
            spoke |= !matches!(output, Output::Probe { .. });
            self.checker.output(&output, self.now);
            self.outcome.digest.add_output(&output, self.now - self.began);
            self.obey(output);
        }
        if spoke || self.checker.is_due(self.now) {
            self.checker.settled(&self.gateway, self.now);
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Ask(ask) => self.ask(&ask),
            Output::Install { session, room, offer, route, plan } => {
                let client = self.by_offer[offer.id.0 as usize];
                let place = session.0 as usize;
                if self.homes.len() <= place {
                    self.homes.resize_with(place + 1, || None);
                }
                self.homes[place] = Some(Box::new(Home::new(session, room, client, route, plan)));
            }
            Output::Open { session, room, hop } => self.open(session, room, hop),
            Output::CloseAt { session, hop } => self.close_at(session, hop),
            Output::Reply { offer, result } => {
                let client = self.by_offer[offer.0 as usize];
                match result {
                    Ok(accepted) => self.accepted(client, accepted.session),
                    Err(_) => self.refused(client),
                }
            }
            Output::Plan { session, plan } => {
                if let Some(home) = self.home(session) {
                    home.plan = plan;
                }
            }
            Output::KeyFrame { .. } => {}
            Output::Canary { node, sequence } => {
                self.send(node.0 as usize, Arrival::Canary { sequence });
            }
            Output::End { session, .. } => self.end(session),
            Output::Probe { node, sequence } => {
                self.send(node.0 as usize, Arrival::Probe { sequence });
            }
            Output::Start { node } => self.start(node),
            Output::Forget { node } => self.forget(node),
            Output::Event(event) => {
                self.judge_death(&event);
                self.outcome.hear(&event, self.now - self.began);
                self.note_death(&event);
                self.trace.event(self.now, &event);
            }
            Output::Finished => {}
        }
    }

    fn judge_death(&mut self, event: &evenkeel_core::Event) {
        if let evenkeel_core::Event::Node { hop, .. } = event {
            let right = &self.nodes[hop.node.0 as usize].right;
            let found = self.checker.deaths.of_the_guilty(event, right, self.now);
            self.checker.note(found, self.now);
        }
    }

    fn note_death(&mut self, event: &evenkeel_core::Event) {
        if let evenkeel_core::Event::Node { hop, to: Health::Down, .. } = event {
            let node = hop.node.0 as usize;
            let after = self.nodes[node].dead_since.map(|since| self.now - since);
            let episode = (0..self.ended.len()).rev().find(|number| self.is_at(*number, node));
            self.outcome.death(episode, after);
        }
    }

    pub(super) fn hear(&mut self, word: Word) {
        let now = self.now;
        match word {
            Word::ProbeAnswered { node, sequence, willing } => {
                self.gateway.handle_probe_answered(node, sequence, now);
                self.gateway.handle_willing(node, willing, now);
                self.checked[node.0 as usize].1 = true;
            }
            Word::Refused(node) => self.gateway.handle_kernel_error(node, now),
            Word::PortClosed { session, hop } => {
                self.checker.flow.hindered(now);
                self.gateway.handle_port_closed(session, hop, now);
            }
            Word::Opened { tag, taken, full } => {
                if full {
                    let node = self.tags[tag as usize].hop.node;
                    self.checker.full(node);
                    self.gateway.handle_full(node, now);
                }
                self.opened(tag, taken);
            }
            Word::Load(node, permille) => self.gateway.handle_load(node, permille, now),
            Word::CanaryPassed { node, sequence } => {
                self.gateway.handle_canary_passed(node, sequence);
                self.checker.grays.passed(node.0 as usize);
            }
            Word::CanariesOpen(node) => self.gateway.handle_canary_open(node, now),
            Word::StartFailed(node) => self.gateway.handle_start_failed(node, now),
            Word::Unalike { session, hops } => {
                self.gateway.handle_unalike(session, hops, self.now);
            }
            Word::Agent(node, word) => self.gateway.handle_agent_word(node, word, now),
            Word::Answered(ask, said) => self.gateway.handle_answer(ask, said, now),
        }
    }

    /// Every 2 ms: what workers saw.
    pub(super) fn watch(&mut self) {
        if self.control_stalls_until.is_some() {
            return;
        }
        self.put_in(WATCH_EVERY, Event::Watch);
        let mut late = self.workers_late;
        if let Some((since, _)) = self.workers_stall {
            late = late.max(self.now - since);
        }
        self.workers_late = Duration::ZERO;
        let stamps = std::mem::take(&mut self.stamps);
        self.gateway.handle_stamps(&stamps, late, self.now);
        self.stamps = stamps;
        self.settle();
        self.look_for_late_deaths();
    }

    fn look_for_late_deaths(&mut self) {
        let patients = self.patients();
        let second = Duration::from_secs(1);
        let stalled = self.workers_stall.is_some()
            || self.stalled_lately.is_some_and(|at| self.now - at < second);
        let Checker { deaths, scene, .. } = &mut self.checker;
        let excused = (stalled, self.gateway.doubts_uplink());
        let found = deaths.in_time(&patients, scene, excused, self.now);
        let gray: Vec<_> = (0..self.nodes.len()).map(|node| self.is_plainly_gray(node)).collect();
        let late = self.checker.grays.in_time(&gray, &self.checker.scene, excused, self.now);
        let fell_alone = self.checker.deaths.fell_alone();
        for found in [found, late, fell_alone] {
            self.checker.note(found, self.now);
        }
    }

    /// Whether it forwards nothing, and nothing else is wrong with it or the way there.
    fn is_plainly_gray(&self, node: usize) -> bool {
        let here = &self.nodes[node];
        let others = (0..self.script.faults.len())
            .filter(|number| self.is_at(*number, node))
            .any(|number| !matches!(self.script.faults[number].fault, Fault::Gray(_)));
        self.keeps_canaries(node) && here.gray > 0 && here.runs() && !others
    }

    /// A hook is called.
    fn start(&mut self, node: evenkeel_core::NodeId) {
        let place = node.0 as usize;
        let Some(starting) = self.nodes[place].script.starts.filter(|_| !self.drivers.dead) else {
            return;
        };
        if self.rng.u8(0..100) < starting.fails {
            self.put_in(starting.takes, Event::Told(Word::StartFailed(node)));
        } else {
            self.put_in(starting.takes, Event::Started(place));
        }
    }

    /// The node runs from now on.
    pub(super) fn started(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].cold) {
            self.trace.say(self.now, || format!("-- n{node} runs"));
            self.outcome.started += 1;
            self.renewed();
        }
    }

    /// Workers tell of their sessions.
    pub(super) fn sum_up(&mut self) {
        self.put_in(SUMMARIES_EVERY, Event::Summaries);
        if self.script.thorough {
            self.everybody_is_heard();
            self.nothing_is_lost();
        }
        if self.control_stalls_until.is_some() || self.workers_stall.is_some() {
            return;
        }
        for place in 0..self.homes.len() {
            let Some(home) = &mut self.homes[place] else { continue };
            let lost = self.clients[home.client as usize].join.delay.as_millis() as u64 % 7 * 1_000;
            let flow = home.told_of();
            let down = lost.max(home.loss_ppm as u64);
            home.measures.set(Metric::LossDown, down).set(Metric::LossUp, lost);
            let (id, heard, measures): (SessionId, _, Measures) =
                (home.id, home.last_heard, home.measures);
            self.gateway.handle_summary(id, measures, heard);
            self.gateway.handle_flow(id, &flow, self.now);
        }
        self.settle();
    }
}
