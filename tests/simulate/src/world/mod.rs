//! A world at play: one event after the other, in virtual time.

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

use evenkeel_core::{Ask, Board, Gateway, OfferId, RoomId, SessionId, Stamp, WATCH_EVERY};
use fastrand::Rng;

use crate::check::{Checker, Scene};
use crate::client::Client;
use crate::driver::{self, LEASES_EVERY, Tag};
use crate::node::{Arrival, Node};
use crate::outcome::Outcome;
use crate::policies::{Guests, Library};
use crate::queue::Queue;
use crate::script::{Join, Script};
use crate::trace::Trace;
use crate::worker::Home;
pub(crate) use event::{Event, Word};

/// How often workers tell of their sessions.
const SUMMARIES_EVERY: Duration = Duration::from_millis(100);

/// How often a node says that both canary sessions are open.
const CANARIES_KEPT_EVERY: Duration = Duration::from_millis(500);

/// How often the agent beside a node is asked.
const AGENTS_ASKED_EVERY: Duration = Duration::from_millis(100);

/// How long a client that was refused waits before it tries again.
const TRIES_AGAIN_AFTER: Duration = Duration::from_millis(1_500);

/// A world at play.
pub struct World<'a> {
    pub(super) script: Script,
    pub(super) library: &'a Library,
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) queue: Queue<Event>,
    pub(super) rng: Rng,
    pub(super) gateway: Gateway,
    pub(super) board: Arc<Board>,
    pub(super) guests: Guests,
    pub(super) clients: Vec<Client>,
    pub(super) by_offer: Vec<u32>,
    /// By session, dense.
    pub(super) homes: Vec<Option<Box<Home>>>,
    pub(super) tags: Vec<Tag>,
    /// Tags by the number by which nodes know the room.
    pub(super) tags_of: BTreeMap<RoomId, Vec<u32>>,
    pub(super) nodes: Vec<Node>,
    pub(super) stamps: Vec<Stamp>,
    /// Of each room, by its number in the script: who may come.
    pub(super) people: Vec<Vec<u32>>,
    pub(super) on_their_way: delivery::OnTheirWay,
    pub(super) drivers: driver::Manner,
    pub(super) control_stalls_until: Option<Instant>,
    pub(super) unheard: Vec<Word>,
    pub(super) workers_stall: Option<(Instant, Instant)>,
    /// How late workers were since the last watch.
    pub(super) workers_late: Duration,
    pub(super) unread: Vec<Event>,
    pub(super) stalled_lately: Option<Instant>,
    pub(super) checker: Checker,
    pub(super) outcome: Outcome,
    pub(super) trace: Trace,
    pub(super) ending: bool,
    /// Of each node: whether the baseline believes it well, and whether it answered the last check.
    pub(super) checked: Vec<(bool, bool)>,
    /// Of each episode: turns it took, and whether it was undone.
    pub(super) turns: Vec<u32>,
    pub(super) ended: Vec<bool>,
    /// Of each episode: the nodes that it was to hit when it began.
    pub(super) hit: Vec<Vec<usize>>,
}

impl<'a> World<'a> {
    /// A world at its beginning.
    pub fn new(script: Script, library: &'a Library) -> World<'a> {
        let began = Instant::now();
        let mut rng = Rng::with_seed(script.seed ^ 0x51_7c_c1_b7);
        let gateway = Gateway::new(script.settings.clone(), began);
        let board = gateway.board();
        let guests = Guests::of(library, &script.settings, rng.fork());
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
            guests,
            clients,
            by_offer: Vec::new(),
            homes: Vec::new(),
            tags: Vec::new(),
            tags_of: BTreeMap::new(),
            stamps: vec![Stamp::default(); nodes.len()],
            checked: vec![(true, true); nodes.len()],
            nodes,
            people: people(&script.joins),
            on_their_way: delivery::OnTheirWay::default(),
            drivers: driver::Manner::default(),
            control_stalls_until: None,
            unheard: Vec::new(),
            workers_stall: None,
            workers_late: Duration::ZERO,
            unread: Vec::new(),
            stalled_lately: None,
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

    /// Says what happens while it plays.
    #[must_use]
    pub fn told(mut self) -> World<'a> {
        self.trace = Trace::spoken(self.began);
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
                (0..self.nodes.len()).for_each(|node| self.look_after(node));
            }
            Some(period) => {
                for node in 0..self.nodes.len() {
                    let phase = period.mul_f64(self.rng.f64());
                    self.put_in(phase, Event::Check(node));
                }
            }
        }
    }

    /// The agent beside it is asked, and canaries are kept open there, from now on.
    pub(super) fn look_after(&mut self, node: usize) {
        self.put_in(AGENTS_ASKED_EVERY, Event::Agent(node));
        self.put_in(CANARIES_KEPT_EVERY, Event::Canaries(node));
    }

    pub(super) fn put_in(&mut self, after: Duration, event: Event) {
        self.queue.put(self.now + after, event);
    }

    /// Plays it to its end, or to a broken promise.
    pub fn play(mut self) -> Outcome {
        let end = self.began + self.script.lasts;
        self.settle();
        while self.go_on(end) {}
        if self.checker.violations.is_empty() && self.script.baseline.is_none() {
            self.now = end;
            self.checker.settled(&self.gateway, end);
            self.flows_at_the_end();
            self.close_books();
            self.close();
        } else {
            self.close_books();
        }
        self.outcome.known = std::mem::take(&mut self.checker.deaths.known);
        self.outcome.peak_permille = self.checker.peak_permille;
        self.outcome.violations = self.checker.violations;
        self.outcome.lasted = self.now - self.began;
        self.outcome.close_digest();
        self.outcome
    }

    /// The next thing happens; false once there is none before `end`.
    fn go_on(&mut self, end: Instant) -> bool {
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
            self.happens(event);
        }
        true
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Join(client) => self.join(client),
            Event::Leave(client) => self.leave(client),
            Event::FromNode { .. } if self.workers_stall.is_some() => self.unread.push(event),
            Event::Beat { client, kind, session } => self.beat(client, kind, session),
            Event::FromClient { session, packet } => self.forward(session, packet),
            Event::FromNode { tag, packet } => self.arrives(tag, packet),
            Event::AtNode { node, arrival } => self.at_node(node, arrival),
            Event::Told(word) if self.control_stalls_until.is_some() => self.unheard.push(word),
            Event::Told(word) => {
                self.hear(word);
                self.settle();
            }
            Event::AskAgain { tag } => self.ask_driver(tag),
            Event::Agent(node) => {
                self.put_in(AGENTS_ASKED_EVERY, Event::Agent(node));
                self.agent_speaks(node);
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
            Event::Settled(number) => self.close_books_of(number),
            Event::WorkersGoOn => self.workers_go_on(),
            Event::ControlGoesOn => self.control_goes_on(),
            Event::LastSecond => self
                .clients
                .iter_mut()
                .flat_map(|client| &mut client.heard)
                .for_each(|heard| heard.lately = 0),
            Event::Check(node) => self.check_node(node),
            Event::Checked(node) => self.judge_node(node),
            Event::Reopen(client) => self.reopen(client),
        }
    }

    /// What is asked of a policy is answered after a while.
    pub(super) fn ask(&mut self, ask: &Ask) {
        let found = self.checker.decisions.of_one_arm(ask);
        self.checker.note(found, self.now);
        let Some((after, said)) = self.guests.ask(ask) else { return };
        self.outcome.asked += 1;
        if let Ok(answered) = &said {
            self.checker.decisions.answered(ask.id, &ask.policy, &answered.revision);
            self.checker.causes.answered(ask, answered);
        }
        self.put_in(after, Event::Told(Word::Answered(ask.id, said)));
    }

    pub(super) fn home(&mut self, id: SessionId) -> Option<&mut Home> {
        self.homes.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(super) fn offer_id(&mut self, client: u32) -> OfferId {
        self.by_offer.push(client);
        OfferId(self.by_offer.len() as u64 - 1)
    }
}

/// Of each room, by its number: who may come.
fn people(joins: &[Join]) -> Vec<Vec<u32>> {
    let rooms = joins.iter().map(|join| join.room as usize + 1).max().unwrap_or(0);
    let mut people = vec![Vec::new(); rooms];
    for (client, join) in (0..).zip(joins) {
        people[join.room as usize].push(client);
    }
    people
}
