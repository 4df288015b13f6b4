//! Plays a world event by event in virtual time.

mod baseline;
mod clients;
mod control;
mod delivery;
mod event;
mod faults;
mod gaps;
mod impairments;
mod legs;
mod media;
mod node_list;
mod operator;
mod shutdown;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::Gateway;
use evenkeel_model::{Ask, Board, OfferId, RoomId, SessionId, Stamp};
use evenkeel_nodes::WATCH_EVERY;
pub(crate) use event::{Event, Message};
use fastrand::Rng;

use crate::check::{Checker, Scene, Violation};
use crate::client::Client;
use crate::driver::{self, LEASES_EVERY, Tag};
use crate::node::{Arrival, Node};
use crate::outcome::Outcome;
use crate::policies::{Library, Policies};
use crate::queue::Queue;
use crate::script::{Join, Script};
use crate::trace::Trace;
use crate::worker::SessionState;

/// Interval of worker summaries.
const SUMMARIES_EVERY: Duration = Duration::from_millis(100);

/// Interval of canary refreshes.
const CANARIES_KEPT_EVERY: Duration = Duration::from_millis(500);

/// Interval of agent queries.
const AGENTS_ASKED_EVERY: Duration = Duration::from_millis(100);

/// Retry interval of refused clients.
const TRIES_AGAIN_AFTER: Duration = Duration::from_millis(1_500);

pub struct World<'a> {
    pub(super) script: Script,
    pub(super) library: &'a Library,
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) queue: Queue<Event>,
    pub(super) rng: Rng,
    pub(super) gateway: Gateway,
    pub(super) board: Arc<Board>,
    pub(super) policies: Policies,
    pub(super) clients: Vec<Client>,
    pub(super) by_offer: Vec<u32>,
    /// Sessions by id.
    pub(super) sessions: Vec<Option<Box<SessionState>>>,
    pub(super) tags: Vec<Tag>,
    /// Tags by room id at nodes.
    pub(super) tags_of: BTreeMap<RoomId, Vec<u32>>,
    pub(super) nodes: Vec<Node>,
    pub(super) stamps: Vec<Stamp>,
    pub(super) room_clients: Vec<Vec<u32>>,
    pub(super) in_flight: delivery::InFlight,
    pub(super) drivers: driver::DriverFaults,
    pub(super) control_stalls_until: Option<Instant>,
    pub(super) unhandled: Vec<Message>,
    pub(super) workers_stall: Option<(Instant, Instant)>,
    /// The lateness of workers since the last watch.
    pub(super) workers_late: Duration,
    pub(super) unread: Vec<Event>,
    pub(super) last_stall: Option<Instant>,
    pub(super) checker: Checker,
    pub(super) outcome: Outcome,
    pub(super) trace: Trace,
    pub(super) ending: bool,
    /// For each node: healthy according to the baseline, and answered its last check.
    pub(super) checked: Vec<(bool, bool)>,
    /// For each episode: turns so far, and whether it has ended.
    pub(super) turns: Vec<u32>,
    pub(super) ended: Vec<bool>,
    /// For each episode: the nodes affected since its begin.
    pub(super) hit: Vec<Vec<usize>>,
}

impl<'a> World<'a> {
    pub fn new(script: Script, library: &'a Library) -> World<'a> {
        let began = Instant::now();
        let mut rng = Rng::with_seed(script.seed ^ 0x51_7c_c1_b7);
        let gateway = Gateway::new(script.settings.clone(), began);
        let board = gateway.board();
        let policies = Policies::of(library, &script.settings, rng.fork());
        let clients: Vec<Client> =
            script.joins.iter().map(|join| Client::new(*join, began, &mut rng)).collect();
        let nodes: Vec<Node> =
            script.nodes.iter().map(|node| Node::new(*node, rng.u64(..))).collect();
        let scene = Scene::new(&script.settings, Arc::clone(&board));
        let checker = Checker::new(scene, &script.settings, began);
        let outcome = Outcome::new(script.seed, &script.faults);
        let mut world = World {
            library,
            began,
            now: began,
            queue: Queue::new(),
            rng,
            gateway,
            board,
            policies,
            clients,
            by_offer: Vec::new(),
            sessions: Vec::new(),
            tags: Vec::new(),
            tags_of: BTreeMap::new(),
            stamps: vec![Stamp::default(); nodes.len()],
            checked: vec![(true, true); nodes.len()],
            nodes,
            room_clients: room_clients(&script.joins),
            in_flight: delivery::InFlight::default(),
            drivers: driver::DriverFaults::default(),
            control_stalls_until: None,
            unhandled: Vec::new(),
            workers_stall: None,
            workers_late: Duration::ZERO,
            unread: Vec::new(),
            last_stall: None,
            checker,
            outcome,
            trace: Trace::default(),
            ending: false,
            turns: vec![0; script.faults.len()],
            ended: vec![false; script.faults.len()],
            hit: vec![Vec::new(); script.faults.len()],
            script,
        };
        world.begin();
        world
    }

    /// Prints events while the world plays.
    #[must_use]
    pub fn with_trace(mut self) -> World<'a> {
        self.trace = Trace::printing(self.began);
        self
    }

    fn begin(&mut self) {
        for client in 0..self.clients.len() as u32 {
            let Join { at, stays, .. } = self.clients[client as usize].join;
            self.put_in(at, Event::Join(client));
            if let Some(stays) = stays {
                self.put_in(at + stays, Event::Leave(client));
            }
        }
        for (number, episode) in self.script.faults.clone().into_iter().enumerate() {
            self.put_in(episode.at, Event::Begins(number));
            self.put_in(episode.at + episode.lasts, Event::Ends(number));
        }
        for node in 0..self.nodes.len() {
            let phase = LEASES_EVERY.mul_f64(self.rng.f64());
            self.put_in(phase, Event::Leases { node });
        }
        self.put_in(self.script.lasts.saturating_sub(Duration::from_secs(1)), Event::LastSecond);
        match self.script.baseline {
            None => {
                self.put_in(WATCH_EVERY, Event::Watch);
                self.put_in(SUMMARIES_EVERY, Event::Summaries);
                (0..self.nodes.len()).for_each(|node| self.schedule_node(node));
            }
            Some(period) => {
                for node in 0..self.nodes.len() {
                    let phase = period.mul_f64(self.rng.f64());
                    self.put_in(phase, Event::Check(node));
                }
            }
        }
    }

    /// Schedules agent queries and canaries of a node.
    pub(super) fn schedule_node(&mut self, node: usize) {
        self.put_in(AGENTS_ASKED_EVERY, Event::Agent(node));
        self.put_in(CANARIES_KEPT_EVERY, Event::Canaries(node));
    }

    pub(super) fn put_in(&mut self, after: Duration, event: Event) {
        self.queue.put(self.now + after, event);
    }

    /// Plays until the end or the first violation.
    pub fn play(mut self) -> Outcome {
        let end = self.began + self.script.lasts;
        self.settle();
        while self.step(end) {}
        if self.checker.violations.is_empty() && self.script.baseline.is_none() {
            self.now = end;
            self.checker.settled(&self.gateway, end);
            self.flows_at_the_end();
            self.end_gaps();
            self.close();
        } else {
            self.end_gaps();
        }
        self.outcome.known = std::mem::take(&mut self.checker.deaths.known);
        self.outcome.peak_permille = self.checker.peak_permille;
        (self.outcome.compared, self.outcome.differing) = self.policies.compared();
        self.outcome.violations = self.checker.violations;
        self.outcome.lasted = self.now - self.began;
        self.outcome.close_digest();
        self.outcome
    }

    /// Plays until this time since the start, or the first violation.
    pub(crate) fn play_until(&mut self, time: Duration) {
        let end = self.began + time;
        self.settle();
        while self.step(end) {}
        self.now = end;
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.checker.violations.clone()
    }

    /// Handles the next event; returns false if there is none before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timer = match self.control_stalls_until {
            None if self.script.baseline.is_none() => self.gateway.poll_timeout(),
            _ => None,
        };
        let event = self.queue.next_at();
        let next = event.into_iter().chain(timer).min().unwrap_or(end);
        if next > end || !self.checker.violations.is_empty() {
            return false;
        }
        self.now = self.now.max(next);
        if timer.is_some_and(|timer| event.is_none_or(|event| timer <= event)) {
            self.gateway.handle_timeout(self.now);
            self.settle();
        } else if let Some((_, event)) = self.queue.pop() {
            self.handle_event(event);
        }
        true
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Join(client) => self.join(client),
            Event::Leave(client) => self.leave(client),
            Event::FromNode { .. } if self.workers_stall.is_some() => self.unread.push(event),
            Event::Beat { client, kind, session } => self.beat(client, kind, session),
            Event::FromClient { session, packet } => self.forward(session, packet),
            Event::FromNode { tag, packet } => self.arrives(tag, packet),
            Event::AtNode { node, arrival } => self.at_node(node, arrival),
            Event::ToControl(message) if self.control_stalls_until.is_some() => {
                self.unhandled.push(message);
            }
            Event::ToControl(message) => {
                self.handle_message(message);
                self.settle();
            }
            Event::RetryOpen { tag } => self.ask_driver(tag),
            Event::Agent(node) => {
                self.put_in(AGENTS_ASKED_EVERY, Event::Agent(node));
                self.send_agent_report(node);
            }
            Event::Canaries(node) => {
                self.put_in(CANARIES_KEPT_EVERY, Event::Canaries(node));
                if self.keeps_canaries(node) {
                    self.send(node, Arrival::CanariesKept);
                }
            }
            Event::Started(node) => self.started(node),
            Event::Leases { node } => self.renew_leases(node),
            Event::Watch => self.watch(),
            Event::Summaries => self.sum_up(),
            Event::Begins(number) => self.begins(number),
            Event::GoesOn(number, turn) => self.goes_on(number, turn),
            Event::Ends(number) => self.ends(number),
            Event::Settled(number) => self.end_gaps_of(number),
            Event::WorkersGoOn => self.workers_go_on(),
            Event::ControlGoesOn => self.control_goes_on(),
            Event::LastSecond => self
                .clients
                .iter_mut()
                .flat_map(|client| &mut client.heard)
                .for_each(|heard| heard.recent = 0),
            Event::Check(node) => self.check_node(node),
            Event::Checked(node) => self.judge_node(node),
            Event::Reopen(client) => self.reopen(client),
        }
    }

    /// Asks a policy; the answer arrives later.
    pub(super) fn ask(&mut self, ask: &Ask) {
        let found = self.checker.decisions.check_arm(ask);
        self.checker.note(found, self.now);
        let Some((after, said)) = self.policies.ask(ask) else { return };
        self.outcome.asked += 1;
        self.outcome.faults += u64::from(said.is_err());
        if let Ok(answered) = &said {
            self.checker.decisions.answered(ask.id, &ask.policy, &answered.revision);
            self.checker.causes.answered(ask, answered);
        }
        self.put_in(after, Event::ToControl(Message::Answered(ask.id, Box::new(said))));
    }

    pub(super) fn session(&mut self, id: SessionId) -> Option<&mut SessionState> {
        self.sessions.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(super) fn offer_id(&mut self, client: u32) -> OfferId {
        self.by_offer.push(client);
        OfferId(self.by_offer.len() as u64 - 1)
    }
}

fn room_clients(joins: &[Join]) -> Vec<Vec<u32>> {
    let rooms = joins.iter().map(|join| join.room as usize + 1).max().unwrap_or(0);
    let mut people = vec![Vec::new(); rooms];
    for (client, join) in (0..).zip(joins) {
        people[join.room as usize].push(client);
    }
    people
}
