//! Control: messages go into the core, and its outputs are executed.

use std::time::Duration;

use evenkeel_core::{GatewayEffect, InstalledSession};
use evenkeel_media::quality::{Codec, HeardLoss, r_factor};
use evenkeel_model::{EvidenceSource, Health, Hop, Measures, Metric, NodeProbing, SessionId};
use evenkeel_nodes::{NodeEffect, NodeEvidence, WATCH_EVERY};

use super::{Event, Message, SUMMARIES_EVERY, World};
use crate::check::Checker;
use crate::driver::Tag;
use crate::fault::Fault;
use crate::node::Arrival;
use crate::worker::SessionState;

/// The bit rate of a voice, as clients offer it.
const VOICE_KBPS: u32 = 64;

/// The delay of a receiver's jitter buffer.
const JITTER_BUFFER: Duration = Duration::from_millis(40);

impl World<'_> {
    /// Executes all outputs of the core; called after each input.
    pub(super) fn settle(&mut self) {
        if self.script.baseline.is_some() {
            return;
        }
        let mut has_output = false;
        while let Some(output) = self.gateway.poll_output() {
            has_output |= !matches!(output, GatewayEffect::Node(NodeEffect::Probe { .. }));
            self.checker.output(&output, self.now);
            self.outcome.digest.add_output(&output, self.now - self.began);
            self.execute(output);
        }
        if has_output || self.checker.is_due(self.now) {
            self.checker.settled(&self.gateway, self.now);
        }
    }

    fn execute(&mut self, output: GatewayEffect) {
        match output {
            GatewayEffect::Ask(ask) => self.ask(&ask),
            GatewayEffect::Install(
                InstalledSession { session, room, route, limits, .. },
                offer,
            ) => {
                let client = self.by_offer[offer.id.0 as usize];
                let place = session.0 as usize;
                if self.sessions.len() <= place {
                    self.sessions.resize_with(place + 1, || None);
                }
                self.sessions[place] =
                    Some(Box::new(SessionState::new(session, room, client, route, limits)));
            }
            GatewayEffect::Open { session, room, hop } => self.open(session, room, hop),
            GatewayEffect::CloseAt { session, hop } => self.close_at(session, hop),
            GatewayEffect::Reply { offer, result } => {
                let client = self.by_offer[offer.0 as usize];
                match result {
                    Ok(accepted) => self.accepted(client, accepted.session),
                    Err(_) => self.refused(client),
                }
            }
            GatewayEffect::Plan { session, limits, .. } => {
                if let Some(state) = self.session(session) {
                    state.limits = limits;
                }
            }
            GatewayEffect::KeyFrame(_)
            | GatewayEffect::Restore(_)
            | GatewayEffect::Node(NodeEffect::EndStart { .. })
            | GatewayEffect::Node(NodeEffect::Stop(_) | NodeEffect::EndStop(_))
            | GatewayEffect::Rollout(_)
            | GatewayEffect::PolicyChanged(_) => {}
            GatewayEffect::Unload { policy, revision } => {
                self.policies.unload(&policy, &revision);
                self.checker.decisions.set_canary(&policy, self.policies.canary(&policy));
            }
            GatewayEffect::Node(NodeEffect::Canary { node, sequence }) => {
                self.send(node.0 as usize, Arrival::Canary { sequence });
            }
            GatewayEffect::End { session, .. } => self.end(session),
            GatewayEffect::Node(NodeEffect::Probe { node, sequence }) => {
                self.send(node.0 as usize, Arrival::Probe { sequence });
            }
            GatewayEffect::Node(NodeEffect::Start(node)) => self.start(node),
            GatewayEffect::Node(NodeEffect::Forget(node)) => self.forget(node),
            GatewayEffect::Event(event) => {
                self.judge_death(&event);
                self.outcome.hear(&event, self.now - self.began);
                self.note_death(&event);
                self.trace.event(self.now, &event);
            }
            GatewayEffect::Finished => {}
        }
    }

    /// Notes the quality of a live session with this delay from mouth to ear, `None` without a node, and this loss.
    fn rate(&mut self, session: SessionId, delay: Option<Duration>, loss_ppm: u32) {
        let Some(standing) = self.gateway.views().session(session, self.now) else { return };
        let most = self.script.settings.scenarios.get(&standing.scenario);
        let most = most.map_or(0, |scenario| scenario.bounds.ceiling_kbps).max(1);
        let plan = standing.plan;
        let ceiling = standing.measures.measured(Metric::Ceiling).unwrap_or(most);
        let cap = Some(plan.cap_kbps()).filter(|&kbps| kbps > 0);
        // Other actions leave the voice.
        let reduced = plan.rung() > u8::from(cap.is_some());
        let voice = reduced.then_some(VOICE_KBPS);
        let allowed = [cap, voice].into_iter().flatten().fold(ceiling.min(most), u32::min);
        let rating = &mut self.outcome.rating;
        rating.samples += 1;
        rating.withheld_permille += u64::from(1_000 - allowed * 1_000 / most);
        let loss = HeardLoss::random(loss_ppm);
        rating.r_hundredths +=
            delay.map_or(0, |delay| u64::from(r_factor(delay + JITTER_BUFFER, loss, Codec::Opus)));
    }

    fn judge_death(&mut self, event: &evenkeel_model::CoreEvent) {
        if let evenkeel_model::CoreEvent::Node { hop, .. } = event {
            let mut right = self.nodes[hop.node.0 as usize].may_accuse;
            if self.has_forgotten(*hop) {
                right[EvidenceSource::Silence as usize] = Some(self.now + WATCH_EVERY);
            }
            let found = self.checker.deaths.check_down(event, &right, self.now);
            self.checker.note(found, self.now);
        }
    }

    /// True if media is the node's only sign of life, and its process knows none of the sessions whose packets it gets: it
    /// restarted, and the gateway did not notice.
    fn has_forgotten(&self, hop: Hop) -> bool {
        let node = hop.node.0 as usize;
        let carries = |tag: &&Tag| {
            let open = tag.hop == hop && tag.reported && !tag.closed;
            let state = open.then(|| self.sessions.get(tag.session.0 as usize)).flatten();
            state.and_then(Option::as_deref).is_some_and(|state| {
                self.checker.carriers.of(state.room).any(|(carrier, _)| carrier == hop)
            })
        };
        let mut carried = self.tags.iter().filter(carries).peekable();
        self.script.settings.nodes[node].probed == NodeProbing::No
            && carried.peek().is_some()
            && carried.all(|tag| tag.process != Some(self.nodes[node].process))
    }

    fn note_death(&mut self, event: &evenkeel_model::CoreEvent) {
        if let evenkeel_model::CoreEvent::Node { hop, to: Health::Down, .. } = event {
            let node = hop.node.0 as usize;
            let after = self.nodes[node].dead_since.map(|since| self.now - since);
            let episode = (0..self.ended.len()).rev().find(|number| self.is_at(*number, node));
            self.outcome.death(episode, after);
        }
    }

    pub(super) fn handle_message(&mut self, message: Message) {
        let now = self.now;
        match message {
            Message::ProbeAnswered { node, sequence, willing } => {
                self.gateway.handle_evidence(node, NodeEvidence::ProbeAnswered(sequence), now);
                self.gateway.handle_evidence(node, NodeEvidence::Willing(willing), now);
                self.checked[node.0 as usize].1 = true;
            }
            Message::Refused(node) => {
                self.gateway.handle_evidence(node, NodeEvidence::KernelError, now);
            }
            Message::PortClosed { session, hop } => {
                self.checker.flow.hindered(now);
                self.gateway.handle_port_closed(session, hop, now);
            }
            Message::Opened { tag, taken, full } => {
                if full {
                    let node = self.tags[tag as usize].hop.node;
                    self.checker.full(node);
                    self.gateway.change_nodes(now, |nodes| nodes.handle_full(node, now));
                }
                self.opened(tag, taken);
            }
            Message::Load(node, permille) => {
                self.gateway.change_nodes(now, |nodes| nodes.handle_load(node, permille, now));
            }
            Message::CanaryPassed { node, sequence } => {
                self.gateway.handle_evidence(node, NodeEvidence::CanaryPassed(sequence), now);
                self.checker.gray_nodes.passed(node.0 as usize);
            }
            Message::CanariesOpen(node) => {
                self.gateway.handle_evidence(node, NodeEvidence::CanaryOpen, now);
            }
            Message::StartFailed(node) => {
                self.gateway.change_nodes(now, |nodes| nodes.handle_start_failed(node, now));
            }
            Message::Unalike { session, hops } => {
                self.gateway.handle_unalike(session, hops, self.now);
            }
            Message::Agent(node, message) => {
                self.gateway.change_nodes(now, |nodes| nodes.handle_agent_word(node, message, now));
            }
            Message::Answered(ask, said) => self.gateway.handle_answer(ask, *said, now),
        }
    }

    /// The watch, every 2 ms.
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
        self.gateway.handle_watch(&stamps, late, self.now);
        self.stamps = stamps;
        self.settle();
        self.look_for_late_deaths();
    }

    fn look_for_late_deaths(&mut self) {
        let facts = self.node_facts();
        let second = Duration::from_secs(1);
        let stalled = self.workers_stall.is_some()
            || self.last_stall.is_some_and(|at| self.now - at < second);
        let Checker { deaths, scene, .. } = &mut self.checker;
        let excused = (stalled, self.gateway.node_table().doubts_uplink());
        let found = deaths.check_detection(&facts, scene, excused, self.now);
        let gray: Vec<_> = (0..self.nodes.len()).map(|node| self.is_plainly_gray(node)).collect();
        let late = self.checker.gray_nodes.check(&gray, &self.checker.scene, excused, self.now);
        let alleged = self.checker.deaths.check_alleged();
        for found in [found, late, alleged] {
            self.checker.note(found, self.now);
        }
    }

    /// True if the node forwards nothing and has no other fault.
    fn is_plainly_gray(&self, node: usize) -> bool {
        let here = &self.nodes[node];
        let others = (0..self.script.faults.len())
            .filter(|number| self.is_at(*number, node))
            .any(|number| !matches!(self.script.faults[number].fault, Fault::Gray(_)));
        self.keeps_canaries(node) && here.gray > 0 && here.runs() && !others
    }

    fn start(&mut self, node: evenkeel_model::NodeId) {
        let place = node.0 as usize;
        let Some(starting) = self.nodes[place].script.starts.filter(|_| !self.drivers.dead) else {
            return;
        };
        if self.rng.u8(0..100) < starting.fails {
            self.put_in(starting.takes, Event::ToControl(Message::StartFailed(node)));
        } else {
            self.put_in(starting.takes, Event::Started(place));
        }
    }

    pub(super) fn started(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].cold) {
            self.trace.say(self.now, || format!("-- n{node} runs"));
            self.outcome.started += 1;
            self.renewed();
        }
    }

    /// Workers send their summaries.
    pub(super) fn sum_up(&mut self) {
        self.put_in(SUMMARIES_EVERY, Event::Summaries);
        if self.script.thorough {
            self.check_clients_heard();
            self.check_hitless_loss();
        }
        if self.control_stalls_until.is_some() || self.workers_stall.is_some() {
            return;
        }
        for place in 0..self.sessions.len() {
            let Some(state) = &mut self.sessions[place] else { continue };
            let lost =
                self.clients[state.client as usize].join.delay.as_millis() as u64 % 7 * 1_000;
            let flow = state.take_summary();
            let down = lost.max(state.loss_ppm as u64);
            state.measures.set(Metric::LossDown, down).set(Metric::LossUp, lost);
            let (id, heard, measures): (SessionId, _, Measures) =
                (state.id, state.last_heard, state.measures);
            if self.script.rated {
                let hop = state.route.load().first_usable(&self.board);
                let path = hop.map(|(hop, _)| {
                    let own = self.clients[state.client as usize].join.delay;
                    // The other end of the room is as far away.
                    (own + self.nodes[hop.node.0 as usize].up.conditions.delay) * 2
                });
                self.rate(id, path, down as u32);
            }
            self.gateway.handle_summary(id, measures, heard);
            self.gateway.handle_flow(id, &flow, self.now);
        }
        self.settle();
    }
}
