//! Members, voters and their network in virtual time.

mod store;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::{OwnershipBallot, Vote};
use evenkeel_ownership::{
    AgentVote, Beat, Cluster, ClusterEvent, ClusterOutput, ClusterSettings, ContinuedOwnership,
    HoldDown, PeerId, TakeoverCause, WitnessId,
};
use fastrand::Rng;

use super::clock::Clock;
use super::member::{Input, Member, Process};
use super::network::{Network, Way};
use super::store::{STORE, Store, StoreRequest, StoreResult};
use crate::check::Violation;
use crate::queue::Queue;

/// Interval at which a standby gets records, and the number that makes its copy complete.
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// TCP_RTO_MIN of Linux.
const RETRANSMITTED_AFTER: Duration = Duration::from_millis(200);
pub(super) const RECORDS: u64 = 4;

const VIOLATIONS_MAX: usize = 5;

#[derive(Debug)]
enum Event {
    Wake(usize),
    Beat { from: usize, to: usize, beat: Beat },
    Closed { of: usize, to: usize, incarnation: u64 },
    Disconnected { at: usize, incarnation: u64 },
    Vote { from: usize, agent: usize, vote: Vote, asked: Instant, incarnation: u64 },
    Voted { to: usize, witness: AgentVote, incarnation: u64 },
    StoreRequest { from: usize, number: u64, request: StoreRequest, incarnation: u64 },
    StoreResult { to: usize, number: u64, result: StoreResult, incarnation: u64 },
    LastRecords { from: usize, incarnation: u64 },
    Sync,
}

struct Agent {
    ballot: OwnershipBallot,
    clock: Clock,
    stopped: bool,
    waiting: Vec<Event>,
}

pub(super) struct World {
    pub(super) rng: Rng,
    origin: Instant,
    /// Real time since the start.
    pub(super) now: Duration,
    queue: Queue<Event>,
    pub(super) members: Vec<Member>,
    agents: Vec<Agent>,
    /// `None`: it does not vote.
    store: Option<Store>,
    /// Requests that wait while the store is stopped.
    store_stopped: Option<Vec<Event>>,
    /// Of members to the store.
    questions: u64,
    pub(super) network: Network,
    /// The greatest delay until a process runs.
    pub(super) lateness: Duration,
    /// The preferred member; none has this number in some groups of three.
    preferred: usize,
    /// Of all members.
    hold_down: HoldDown,
    pub(super) violations: Vec<Violation>,
    pub(super) takeovers: BTreeMap<&'static str, u64>,
    pub(super) lapses: u64,
    incarnations: u64,
    instances: u32,
    /// Prints outputs.
    pub(super) traced: bool,
}

impl World {
    pub(super) fn new(
        mut rng: Rng,
        members: usize,
        agents: usize,
        store: Option<Store>,
        network: Network,
        lateness: Duration,
    ) -> World {
        let origin = Instant::now();
        let mut world = World {
            origin,
            now: Duration::ZERO,
            queue: Queue::new(),
            members: (0..members).map(|_| Member::default()).collect(),
            agents: Vec::new(),
            store,
            store_stopped: None,
            questions: 0,
            network,
            lateness,
            preferred: if members == 3 { rng.usize(0..4) } else { 0 },
            // Short enough for a group to settle.
            hold_down: HoldDown {
                first: Duration::from_millis(rng.u64(0..400)),
                longest: Duration::from_secs(1),
            },
            violations: Vec::new(),
            takeovers: BTreeMap::new(),
            lapses: 0,
            incarnations: 0,
            instances: 0,
            traced: false,
            rng: rng.fork(),
        };
        for _ in 0..agents {
            let clock = Clock::draw(origin, &mut rng);
            let ballot = world.ballot(&clock);
            world.agents.push(Agent { ballot, clock, stopped: false, waiting: Vec::new() });
        }
        (0..members).for_each(|member| world.start(member));
        world.put(SYNC_EVERY, Event::Sync);
        world
    }

    pub(super) fn agents(&self) -> usize {
        self.agents.len()
    }

    /// The agents and the store.
    pub(super) fn voters(&self) -> usize {
        self.agents.len() + usize::from(self.store.is_some())
    }

    /// The number of the store among the voters.
    pub(super) fn store(&self) -> Option<usize> {
        self.store.as_ref().map(|_| self.agents.len())
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    /// Plays until the condition holds, and returns the time until then.
    pub(super) fn until(
        &mut self,
        limit: Duration,
        done: impl Fn(&World) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        loop {
            if done(self) {
                return Some(self.now - began);
            }
            let next = self.queue.next_at().map(|at| at - self.origin);
            match next.filter(|at| *at <= began + limit) {
                Some(at) => {
                    self.now = at;
                    let (_, event) = self.queue.pop().expect("it was seen");
                    self.handle(event);
                }
                None => {
                    self.now = began + limit;
                    return done(self).then_some(limit);
                }
            }
        }
    }

    /// The member whose workers may send.
    pub(super) fn owner(&self) -> Option<usize> {
        (0..self.members.len()).find(|at| self.sends_until(*at) > self.now)
    }

    pub(super) fn owns(&self, member: usize) -> bool {
        let process = self.members[member].process.as_ref();
        process.is_some_and(|process| process.cluster.is_owner())
    }

    /// The member that this one follows, or the standby of an owner.
    pub(super) fn peer_of(&self, member: usize) -> usize {
        let process = self.members[member].process.as_ref();
        process.map_or(0, |process| member_of(process.cluster.peer_id(), member))
    }

    pub(super) fn others(&self, than: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.members.len()).filter(move |member| *member != than)
    }

    /// One member owns and sends, and its standby holds the records. With voters, it may also take over by silence.
    pub(super) fn is_settled(&self) -> bool {
        self.owner().is_some_and(|owner| {
            let standby = self.peer_of(owner);
            let others_own = self.others(owner).any(|member| self.owns(member));
            let standby = self.members[standby].process.as_ref();
            let armed = self.members[owner]
                .process
                .as_ref()
                .is_some_and(|process| self.voters() == 0 || process.cluster.is_standby_armed());
            self.owns(owner)
                && !others_own
                && armed
                && standby.is_some_and(|process| !process.stopped && process.records >= RECORDS)
        })
    }

    fn epoch_of(&self, member: usize) -> u64 {
        self.members[member].process.as_ref().map_or(0, |process| process.cluster.epoch())
    }

    fn sends_until(&self, member: usize) -> Duration {
        self.members[member].process.as_ref().map_or(Duration::ZERO, |process| process.sends_until)
    }

    pub(super) fn violate(&mut self, invariant: &'static str, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.say(|| format!("VIOLATION {invariant}: {what}"));
            self.violations.push(Violation { invariant, at: self.now, what });
        }
    }

    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if self.traced {
            println!("{:10.6} group: {}", self.now.as_secs_f64(), text());
        }
    }

    /// Starts a process. Wall clocks of hosts are right enough to order the processes of one member.
    pub(super) fn start(&mut self, member: usize) {
        self.incarnations += 1;
        self.begin(member, self.incarnations, None);
    }

    /// The process is replaced by one that continues it.
    pub(super) fn upgrade(&mut self, member: usize, continued: ContinuedOwnership) {
        let before = self.members[member].process.take();
        let incarnation = before.expect("it runs").incarnation;
        self.begin(member, incarnation, Some(continued));
        self.others(member).for_each(|other| self.disconnect(other));
    }

    fn begin(&mut self, member: usize, incarnation: u64, continued: Option<ContinuedOwnership>) {
        let clock = Clock::draw(self.origin, &mut self.rng);
        let settings = ClusterSettings {
            members: self.members.len(),
            // The first of two has odd epochs.
            rank: if self.members.len() == 2 { 1 - member } else { member },
            preferred: member == self.preferred,
            incarnation,
            continued,
            hold_down: self.hold_down,
        };
        let cluster = Cluster::new(settings, clock.at(self.now));
        let process = Process::new(cluster, incarnation, clock);
        self.members[member] = Member { process: Some(process), host_runs: true };
        self.say(|| format!("{member} starts as {incarnation}"));
        self.execute(member);
    }

    /// The process ends; without its host, no kernel says so.
    pub(super) fn kill(&mut self, member: usize, host_runs: bool) {
        self.members[member] = Member { process: None, host_runs };
        if host_runs {
            self.others(member).for_each(|other| self.disconnect(other));
        }
        self.say(|| format!("{member} ends, its host runs: {host_runs}"));
    }

    pub(super) fn stop(&mut self, member: usize, stopped: bool) {
        if let Some(process) = &mut self.members[member].process {
            process.stopped = stopped;
            process.wakes = None;
            self.wake(member, self.now);
            self.say(|| format!("{member} stopped: {stopped}"));
        }
    }

    pub(super) fn stop_agent(&mut self, agent: usize, stopped: bool) {
        self.agents[agent].stopped = stopped;
        if !stopped {
            for event in std::mem::take(&mut self.agents[agent].waiting) {
                self.handle(event);
            }
        }
    }

    pub(super) fn restart_agent(&mut self, agent: usize) {
        let ballot = self.ballot(&self.agents[agent].clock.clone());
        self.agents[agent].ballot = ballot;
        self.agents[agent].waiting.clear();
        self.say(|| format!("agent {agent} restarts"));
    }

    fn ballot(&mut self, clock: &Clock) -> OwnershipBallot {
        self.instances += 1;
        OwnershipBallot::new(self.instances, clock.at(self.now))
    }

    /// Calls the member's core as an operator or the server does.
    pub(super) fn tell<R>(
        &mut self,
        member: usize,
        tell: impl FnOnce(&mut Cluster, Instant) -> R,
    ) -> Option<R> {
        let process = self.members[member].process.as_mut().filter(|process| !process.stopped)?;
        let now = process.clock.at(self.now);
        let result = tell(&mut process.cluster, now);
        self.execute(member);
        Some(result)
    }

    fn put(&mut self, at: Duration, event: Event) {
        self.queue.put(self.origin + at, event);
    }

    fn send(&mut self, way: Way, event: Event) {
        if let Some(delay) = self.network.carry(way, &mut self.rng) {
            self.put(self.now + delay, event);
        }
    }

    /// Lets a member run then, or a little later.
    fn wake(&mut self, member: usize, at: Duration) {
        let late = self.lateness.mul_f64(self.rng.f64().powi(8));
        let at = at.max(self.now) + late;
        let Some(process) = &mut self.members[member].process else { return };
        if process.wakes.is_none_or(|known| at < known) {
            process.wakes = Some(at);
            self.put(at, Event::Wake(member));
        }
    }

    fn arrive(&mut self, member: usize, incarnation: Option<u64>, input: Input) {
        let process = self.members[member].process.as_mut();
        let reads = |process: &&mut Process| incarnation.is_none_or(|it| it == process.incarnation);
        if let Some(process) = process.filter(reads) {
            process.inbox.push(input);
            self.wake(member, self.now);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(member) => {
                let now = self.now;
                if let Some(process) = &mut self.members[member].process
                    && process.wakes == Some(now)
                    && !process.stopped
                {
                    process.run(now);
                    self.execute(member);
                }
            }
            Event::Beat { from, to, beat } => {
                if self.members[to].process.is_some() {
                    self.arrive(to, None, Input::Beat(id_of(from, to), beat));
                } else if self.members[to].host_runs {
                    let incarnation = beat.incarnation;
                    self.send(Way::Beats(to), Event::Closed { of: to, to: from, incarnation });
                }
            }
            Event::Closed { of, to, incarnation } => {
                self.arrive(to, Some(incarnation), Input::Closed(id_of(of, to)));
            }
            Event::Disconnected { at, incarnation } => {
                self.arrive(at, Some(incarnation), Input::Disconnected);
            }
            Event::Vote { agent, .. } if self.agents[agent].stopped => {
                self.agents[agent].waiting.push(event);
            }
            Event::Vote { from, agent: at, vote, asked, incarnation } => {
                let agent = &mut self.agents[at];
                let voted = agent.ballot.handle_vote(vote, agent.clock.at(self.now));
                let witness = AgentVote { id: WitnessId(at as u64), asked, vote, voted };
                self.send(Way::Down(from, at), Event::Voted { to: from, witness, incarnation });
            }
            Event::Voted { to, witness, incarnation } => {
                self.arrive(to, Some(incarnation), Input::Witness(witness));
            }
            Event::StoreRequest { .. } if self.store_stopped.is_some() => {
                self.store_stopped.as_mut().expect("it is stopped").push(event);
            }
            Event::StoreRequest { from, number, request, incarnation } => {
                self.answer_from_store(from, number, request, incarnation);
            }
            Event::StoreResult { to, number, result, incarnation } => {
                self.arrive(to, Some(incarnation), Input::Store { number, result });
            }
            Event::LastRecords { from, incarnation } => {
                let runs = |process: &Process| process.incarnation == incarnation;
                if self.members[from].process.as_ref().is_some_and(runs) {
                    if !self.network.is_cut(Way::Beats(from)) {
                        self.replicate(self.peer_of(from), RECORDS + 1);
                    }
                    self.tell(from, |cluster, now| cluster.handle_yielded(RECORDS + 1, now));
                }
            }
            Event::Sync => {
                self.put(self.now + SYNC_EVERY, Event::Sync);
                self.sync();
            }
        }
    }

    /// The link of records: a standby's copy becomes complete step by step, and is discarded when the link breaks.
    fn sync(&mut self) {
        let runs = |world: &World, at: usize| {
            let process = world.members[at].process.as_ref();
            process.is_some_and(|process| !process.stopped)
        };
        for standby in 0..self.members.len() {
            let owner = self.peer_of(standby);
            let ways = [Way::Beats(owner), Way::Beats(standby)];
            let linked = ways.iter().all(|way| !self.network.is_cut(*way));
            let connected = linked && runs(self, owner);
            let served = connected && self.owns(owner) && self.peer_of(owner) == standby;
            let Some(process) = &self.members[standby].process else { continue };
            let (records, is_spare) = (process.records, process.cluster.is_spare());
            if self.owns(standby) || !runs(self, standby) {
                continue;
            }
            if served && !is_spare {
                // The last records of a hand-over stay.
                self.replicate(standby, (records + 1).min(RECORDS.max(records)));
            } else if is_spare && records > 0 && connected && self.owns(owner) {
                // The owner ended the connection.
                self.replicate(standby, 0);
            } else if !connected && records > 0 && self.rng.u8(0..20) == 0 {
                self.replicate(standby, 0);
                self.disconnect(standby);
            }
            // Live members end the connection now and then, and connect again.
            if served && self.rng.u8(0..20) == 0 {
                [standby, owner].into_iter().for_each(|at| self.disconnect(at));
            }
        }
    }

    /// The connection ends at this member, at once or after a retransmission.
    fn disconnect(&mut self, at: usize) {
        let Some(process) = &self.members[at].process else { return };
        let event = Event::Disconnected { at, incarnation: process.incarnation };
        let delay = self.network.carry(Way::Beats(self.peer_of(at)), &mut self.rng);
        self.put(self.now + delay.unwrap_or(RETRANSMITTED_AFTER), event);
    }

    fn replicate(&mut self, standby: usize, records: u64) {
        if let Some(process) = &mut self.members[standby].process {
            process.records = records;
        }
        let whole = records >= RECORDS;
        self.tell(standby, |cluster, now| cluster.handle_replica(whole, records, now));
    }

    /// Carries out what the member's core wants.
    fn execute(&mut self, at: usize) {
        self.carry_out(at);
        while self.ask_store(at) {
            self.carry_out(at);
        }
        if let Some(process) = &mut self.members[at].process
            && !process.stopped
        {
            process.wakes = None;
            let next = process.clock.real(process.cluster.poll_timeout());
            self.wake(at, next);
        }
    }

    fn carry_out(&mut self, at: usize) {
        while let Some(process) = &mut self.members[at].process
            && let Some(output) = process.cluster.poll_output()
        {
            let (now, incarnation) = (process.clock.at(self.now), process.incarnation);
            match output {
                ClusterOutput::Send(to, beat) => {
                    let to = member_of(to, at);
                    self.send(Way::Beats(at), Event::Beat { from: at, to, beat });
                }
                // Another owner sends all records anew.
                ClusterOutput::ChangePeer(_) if !process.cluster.is_owner() => process.records = 0,
                ClusterOutput::ChangePeer(_) => {}
                ClusterOutput::Ask { to, vote } => {
                    if self.store.is_some() && to.is_none_or(|to| to == STORE) {
                        process.store_voter.ask(vote);
                    }
                    for agent in 0..self.agents.len() {
                        if to.is_none_or(|to| to.0 == agent as u64) {
                            let (from, asked) = (at, now);
                            let event = Event::Vote { from, agent, vote, asked, incarnation };
                            self.send(Way::Up(at, agent), event);
                        }
                    }
                }
                ClusterOutput::MaySend(may_send) => {
                    process.permit(may_send);
                    self.check_owners(at);
                }
                ClusterOutput::Yield => {
                    let takes = Duration::from_micros(self.rng.u64(500..30_000));
                    self.put(self.now + takes, Event::LastRecords { from: at, incarnation });
                }
                output => self.note(at, &output),
            }
        }
    }

    fn check_owners(&mut self, at: usize) {
        let own = self.sends_until(at);
        for other in self.others(at) {
            let both = own.min(self.sends_until(other));
            if both > self.now {
                let both = both - self.now;
                let what = format!("{at} and {other} may send for {both:?}, {at} since now");
                self.violate("group-owner-unique", what);
            }
        }
    }

    fn note(&mut self, at: usize, output: &ClusterOutput) {
        self.say(|| format!("{at} {output:?}"));
        let owned = match output {
            ClusterOutput::TakeOver { epoch, evidence } => {
                let process = self.members[at].process.as_ref();
                let by_store = *evidence == TakeoverCause::Silence
                    && process.is_some_and(|process| process.elected_by == Some(STORE));
                let name = if by_store { "silence, by the store" } else { name(*evidence) };
                *self.takeovers.entry(name).or_default() += 1;
                // A member may not know the epochs of processes that ended, if no agent told it. Agents that do know
                // refuse it, and it raises its epoch.
                let known = self.others(at).map(|other| self.epoch_of(other)).max();
                let known = known.unwrap_or_default();
                if *epoch <= known {
                    let what = format!("{at} took over in epoch {epoch}, after {known}");
                    self.violate("group-epoch-monotonic", what);
                }
                Some(*epoch)
            }
            ClusterOutput::Raise(epoch) => Some(*epoch),
            ClusterOutput::Event(ClusterEvent::LeaseLapsed) => {
                self.lapses += 1;
                None
            }
            _ => None,
        };
        if let Some(epoch) = owned {
            let process = self.members[at].process.as_mut().expect("it has outputs");
            let before = std::mem::replace(&mut process.owned, epoch);
            if before >= epoch {
                let what = format!("{at} owns in epoch {epoch}, after {before}");
                self.violate("group-epoch-monotonic", what);
            }
        }
    }
}

/// The number that one member has in the settings of another.
pub(super) fn id_of(member: usize, at: usize) -> PeerId {
    PeerId(if member < at { member } else { member - 1 })
}

fn member_of(PeerId(id): PeerId, at: usize) -> usize {
    id + usize::from(id >= at)
}

fn name(evidence: TakeoverCause) -> &'static str {
    match evidence {
        TakeoverCause::Start => "start",
        TakeoverCause::PeerEnded => "ended",
        TakeoverCause::PeerRestarted => "restarted",
        TakeoverCause::Silence => "silence",
        TakeoverCause::HandOver => "hand-over",
        TakeoverCause::Operator => "operator",
    }
}
