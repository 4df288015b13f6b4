//! A lone gateway, or the two members of a group, with their disks and the link between them, in virtual time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_model::{NodeProbing, PolicyName};
use evenkeel_revisions::{Judging, RolloutRules};
use fastrand::Rng;

use super::RecordsOutcome;
use super::journal::Journal;
use super::operator::{concerns, draw_strategy, revision};
use super::process::{Batch, Configuration, Copy, Disk, Follower, HOUR, Process, policies};
use crate::check::Violation;
use crate::queue::Queue;
use crate::script::{scenario, settings};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Control sends a batch in each of its turns.
const TURN: Duration = ms(2);

/// What a decision is about.
pub(super) enum Subject {
    Policy(PolicyName),
    /// Nodes and regions.
    Places,
}

enum Event {
    Operate,
    Fault,
    /// The owner sends the next batch.
    Turn {
        link: u64,
    },
    /// The next batch arrives.
    Arrives {
        link: u64,
    },
    Acknowledged {
        link: u64,
        number: u64,
    },
    Written {
        process: u64,
        write: u64,
        disk: Box<Disk>,
    },
    /// The member that ended starts as the standby.
    Starts,
    Connects,
}

/// A process with its disk.
pub(super) struct Member {
    number: u64,
    pub(super) process: Process,
    disk: Disk,
    writes: u64,
    written: u64,
    write_last: Instant,
}

/// A request that is not answered yet.
struct Request {
    state: u64,
    subject: Subject,
    write: u64,
    /// The link and the batch that brings the decision to the standby.
    batch: Option<(u64, u64)>,
}

pub(super) struct World {
    pub(super) rng: Rng,
    began: Instant,
    pub(super) now: Instant,
    queue: Queue<Event>,
    pub(super) configuration: Configuration,
    pub(super) owner: Member,
    pub(super) standby: Option<Member>,
    /// The disk of the member that ended.
    absent: Option<Disk>,
    is_group: bool,
    pub(super) canaries: bool,
    pub(super) reloads: bool,
    /// Disks lose writes that they confirmed.
    lies: bool,
    processes: u64,
    /// The number of the connection; the standby follows while there is a follower.
    link: u64,
    follower: Option<Follower>,
    copy: Copy,
    wire: VecDeque<Batch>,
    wire_last: Instant,
    turns: bool,
    acknowledged: u64,
    requests: Vec<Request>,
    journal: Journal,
    pub(super) revisions: u64,
    pub(super) offers: u64,
    traced: bool,
    outcome: RecordsOutcome,
}

impl World {
    pub(super) fn draw(seed: u64, traced: bool) -> World {
        let mut rng = Rng::with_seed(seed ^ 0x7265_636f_7264);
        let (is_group, canaries, reloads) = (rng.u8(0..3) > 0, rng.u8(0..4) > 0, rng.bool());
        let lies = rng.u8(0..4) == 0;
        let mut settings =
            settings(&[0, 0, 1], &[(0, 20_000), (1, 20_000), (2, 20_000), (2, 20_000)]);
        settings.nodes.iter_mut().for_each(|node| node.probed = NodeProbing::No);
        for (set, of) in &mut settings.scenarios {
            *of = scenario(set, [false; 4], 1, 10);
        }
        let keep = if rng.bool() { HOUR } else { ms(rng.u64(100..5_000)) };
        let strategy = draw_strategy(&mut rng);
        // Steps are due in time, whatever was judged.
        let judging = Judging { cohort_min: 0, ..Judging::default() };
        let rules = RolloutRules { strategy, keep, judging };
        let configuration = Configuration { settings, rules };
        let now = Instant::now();
        let owner = Member::new(1, Process::start(&configuration, now), Disk::default(), now);
        let world = World {
            rng,
            began: now,
            now,
            queue: Queue::new(),
            configuration,
            owner,
            standby: None,
            absent: is_group.then(Disk::default),
            is_group,
            canaries,
            reloads,
            lies,
            processes: 1,
            link: 0,
            follower: None,
            copy: Copy::default(),
            wire: VecDeque::new(),
            wire_last: now,
            turns: false,
            acknowledged: 0,
            requests: Vec::new(),
            journal: Journal::default(),
            revisions: 1,
            offers: 0,
            traced,
            outcome: RecordsOutcome::default(),
        };
        world.say(|| {
            format!(
                "group: {is_group}, canaries: {canaries}, reloads: {reloads}, disks lie: {lies}"
            )
        });
        world
    }

    pub(super) fn play(mut self, lasts: Duration) -> RecordsOutcome {
        let end = self.began + lasts;
        for policy in policies() {
            self.activate_first(&policy);
        }
        self.put_in(ms(1), Event::Operate);
        self.put_in(ms(500), Event::Fault);
        if self.is_group {
            self.put_in(ms(1), Event::Starts);
        }
        while self.outcome.violations.is_empty() && self.step(end) {}
        self.outcome
    }

    /// The first revision of a policy comes from a file.
    fn activate_first(&mut self, policy: &PolicyName) {
        let now = self.now;
        self.owner.process.gateway.change_policy(policy, now, |life| {
            let push = life.next_push();
            let request = evenkeel_revisions::RolloutRequest {
                push,
                by: evenkeel_revisions::Actor::File,
                arrived: now,
                force: false,
                replace: true,
                strategy: None,
                returns: false,
            };
            // The first revision is accepted.
            let _ = life.handle_ready(&request, revision(0), None, (now, now));
        });
        self.settle();
    }

    fn step(&mut self, end: Instant) -> bool {
        let standby = self.standby.as_ref().and_then(|it| it.process.gateway.poll_timeout());
        let owner = self.owner.process.gateway.poll_timeout();
        let timer = owner.into_iter().chain(standby).min();
        let next = self.queue.next_at().into_iter().chain(timer).min().unwrap_or(end);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        let now = self.now;
        if timer.is_some_and(|timer| self.queue.next_at().is_none_or(|at| timer <= at)) {
            if standby.is_some_and(|at| at <= now)
                && let Some(standby) = &mut self.standby
            {
                standby.process.gateway.handle_timeout(now);
                standby.process.settle(now);
            }
            if owner.is_some_and(|at| at <= now) {
                self.owner.process.gateway.handle_timeout(now);
                self.settle();
            }
        } else if let Some((_, event)) = self.queue.pop() {
            self.handle(event);
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Operate => {
                let pause =
                    if self.rng.bool() { self.rng.u64(1..10) } else { self.rng.u64(10..300) };
                self.put_in(ms(pause), Event::Operate);
                self.operate();
            }
            Event::Fault => {
                let pause = ms(self.rng.u64(100..2_000));
                self.put_in(pause, Event::Fault);
                self.strike();
            }
            Event::Turn { link } => {
                self.turns = false;
                if link == self.link {
                    self.send();
                }
            }
            Event::Arrives { link } => {
                if link == self.link {
                    self.receive();
                }
            }
            Event::Acknowledged { link, number } => {
                if link == self.link {
                    self.acknowledged = number;
                    self.answer();
                }
            }
            Event::Written { process, write, disk } => {
                let lost = self.lies && self.rng.u8(0..4) == 0;
                let members = [Some(&mut self.owner), self.standby.as_mut()];
                let member = members.into_iter().flatten().find(|member| member.number == process);
                if let Some(member) = member {
                    member.written = write;
                    if !lost {
                        member.disk = *disk;
                    }
                }
                self.answer();
            }
            Event::Starts => self.start_standby(),
            Event::Connects => self.connect(),
        }
    }

    /// Executes what the owner wants, and passes on what changed.
    pub(super) fn settle(&mut self) {
        let changed = self.owner.process.settle(self.now);
        self.journal.observe(&self.owner.process.decisions(self.now));
        if !changed.is_empty() {
            self.write_owner();
        }
        if let Some(follower) = &mut self.follower {
            follower.policies.extend(changed);
            self.begin_turn();
        }
    }

    /// A request was executed. It is answered once the decision outlives the process.
    pub(super) fn decided(&mut self, subject: Subject) {
        if matches!(subject, Subject::Places) {
            self.write_owner();
            if let Some(follower) = &mut self.follower {
                follower.nodes = true;
            }
        }
        self.settle();
        let state = self.journal.observe(&self.owner.process.decisions(self.now));
        let has_changed = self.owner.process.gateway.records().changed() > 0;
        let number = self.follower.as_ref().map(|follower| follower.last_number(has_changed));
        let batch = number.map(|number| (self.link, number));
        self.requests.push(Request { state, subject, write: self.owner.writes, batch });
    }

    /// Answers the requests whose decisions outlive the owner.
    fn answer(&mut self) {
        let (link, acknowledged, written) = (self.link, self.acknowledged, self.owner.written);
        let follows = self.follower.is_some();
        let is_done = |request: &mut Request| {
            // A follower that is lost confirms nothing.
            let waits = |(of, number): (u64, u64)| follows && of == link && number > acknowledged;
            request.write <= written && !request.batch.is_some_and(waits)
        };
        for request in self.requests.extract_if(.., is_done) {
            let policy = match &request.subject {
                Subject::Policy(policy) => Some(policy),
                Subject::Places => None,
            };
            self.journal.acknowledge(request.state, |name| concerns(policy, name));
            self.outcome.acknowledged += 1;
        }
    }

    fn write_owner(&mut self) {
        let (now, delay) = (self.now, Duration::from_micros(self.rng.u64(100..5_000)));
        let (at, event) = self.owner.write(now, delay);
        self.queue.put(at, event);
    }

    fn begin_turn(&mut self) {
        if !std::mem::replace(&mut self.turns, true) {
            let link = self.link;
            self.put_in(TURN, Event::Turn { link });
        }
    }

    /// The owner sends a batch of what the standby lacks.
    fn send(&mut self) {
        let Some(follower) = &mut self.follower else { return };
        let Some(batch) = self.owner.process.next_batch(follower, self.now) else { return };
        self.wire.push_back(batch);
        let delay = Duration::from_micros(self.rng.u64(100..20_000));
        self.wire_last = self.wire_last.max(self.now + delay);
        let link = self.link;
        self.queue.put(self.wire_last, Event::Arrives { link });
        self.begin_turn();
    }

    fn receive(&mut self) {
        let (now, link) = (self.now, self.link);
        let Some((standby, batch)) = self.standby.as_mut().zip(self.wire.pop_front()) else {
            return;
        };
        let number = batch.number;
        standby.process.follow(&mut self.copy, batch, now);
        standby.process.settle(now);
        let delay = Duration::from_micros(self.rng.u64(100..5_000));
        let (at, event) = standby.write(now, delay);
        self.queue.put(at, event);
        self.put_in(delay, Event::Acknowledged { link, number });
    }

    fn connect(&mut self) {
        if self.standby.is_none() || self.follower.is_some() {
            return;
        }
        self.link += 1;
        self.owner.process.gateway.records().follow();
        (self.follower, self.copy) = (Some(Follower::new()), Copy::default());
        (self.acknowledged, self.turns) = (0, false);
        self.begin_turn();
    }

    /// The connection ends. A standby that hears its owner takes nothing over without a whole copy.
    fn disconnect(&mut self) {
        self.link += 1;
        self.follower = None;
        self.copy = Copy::default();
        self.wire.clear();
        self.owner.process.gateway.records().unfollow();
        self.answer();
    }

    fn start_standby(&mut self) {
        let Some(disk) = self.absent.take() else { return };
        let mut member = self.member(disk);
        member.process.gateway.hold_rollouts();
        member.process.read(&member.disk.clone(), false, self.now);
        member.process.settle(self.now);
        self.standby = Some(member);
        let delay = ms(self.rng.u64(1..200));
        self.put_in(delay, Event::Connects);
    }

    fn member(&mut self, disk: Disk) -> Member {
        self.processes += 1;
        let process = Process::start(&self.configuration, self.now);
        Member::new(self.processes, process, disk, self.now)
    }

    fn strike(&mut self) {
        let is_whole = self.standby.is_some() && self.follower.is_some() && self.copy.whole;
        match self.rng.u8(0..8) {
            0 | 1 if is_whole => self.kill_owner(),
            2 if is_whole => self.hand_over(),
            3 => self.upgrade(),
            4 if self.standby.is_some() => {
                self.say(|| "the standby ends".to_owned());
                self.absent = self.standby.take().map(|standby| standby.disk);
                self.disconnect();
                self.return_later();
            }
            5 if self.follower.is_some() => {
                self.say(|| "the link breaks".to_owned());
                self.disconnect();
                let pause = ms(self.rng.u64(1..1_000));
                self.put_in(pause, Event::Connects);
            }
            6 => self.lose_power(is_whole),
            7 if !self.is_group => self.lose_power(false),
            _ => {}
        }
    }

    fn return_later(&mut self) {
        let pause = ms(self.rng.u64(1..1_500));
        self.put_in(pause, Event::Starts);
    }

    /// The owner dies, and its standby takes over with what came. Batches under way may arrive yet.
    fn kill_owner(&mut self) {
        while !self.wire.is_empty() && self.rng.bool() {
            self.receive();
        }
        self.take_over("takeover");
    }

    /// The owner stops and sends its last records first.
    fn hand_over(&mut self) {
        self.journal.acknowledge(u64::MAX, |_| true);
        while !self.wire.is_empty() {
            self.receive();
        }
        let mut left = true;
        while left && let Some(follower) = &mut self.follower {
            let batch = self.owner.process.next_batch(follower, self.now);
            left = batch.is_some();
            self.wire.extend(batch);
            self.receive();
        }
        self.take_over("hand-over");
    }

    fn take_over(&mut self, how: &'static str) {
        self.say(|| format!("the owner ends: {how}"));
        let Some(standby) = self.standby.take() else { return };
        let record = std::mem::take(&mut self.copy).into_record();
        let old = std::mem::replace(&mut self.owner, standby);
        self.absent = Some(old.disk);
        (self.follower, self.link) = (None, self.link + 1);
        self.wire.clear();
        let record = record.expect("the copy is whole");
        self.owner.process.sessions.clear();
        self.owner.process.continue_record(&record, self.now);
        self.continue_here(how, false);
        self.return_later();
    }

    /// Another process of this machine continues with all records.
    fn upgrade(&mut self) {
        self.say(|| "upgrade".to_owned());
        self.journal.acknowledge(u64::MAX, |_| true);
        let now = self.now;
        let record = self.owner.process.gateway.record(now);
        let written = self.owner.process.written_policies(now);
        let operations = self.owner.process.operations.clone();
        let disk = Disk { policies: written, operations };
        let mut next = self.member(disk.clone());
        next.process.gateway.hold_rollouts();
        next.process.read(&disk, false, now);
        next.process.operations = disk.operations;
        next.process.continue_record(&record, now);
        self.owner = next;
        if self.follower.is_some() {
            self.disconnect();
            self.put_in(ms(20), Event::Connects);
        }
        self.continue_here("upgrade", false);
    }

    /// All processes end. The first one that returns serves, from its disk: the owner, or a standby whose copy was whole.
    fn lose_power(&mut self, is_whole: bool) {
        let is_written = |member: &Member| member.written == member.writes;
        let standby_first =
            is_whole && self.standby.as_ref().is_some_and(is_written) && self.rng.bool();
        // Batches under way are lost, and so are their decisions.
        let acknowledged = self.wire.is_empty();
        let standby_first = standby_first && acknowledged;
        self.say(|| format!("power is lost; the standby returns first: {standby_first}"));
        let other = self.standby.take();
        self.link += 1;
        (self.follower, self.copy) = (None, Copy::default());
        self.wire.clear();
        let disk = match other {
            Some(other) if standby_first => {
                self.absent = Some(std::mem::take(&mut self.owner.disk));
                other.disk
            }
            other => {
                self.absent = other.map(|other| other.disk).or(self.absent.take());
                std::mem::take(&mut self.owner.disk)
            }
        };
        self.owner = self.member(disk);
        self.owner.process.read(&self.owner.disk.clone(), true, self.now);
        let how = if standby_first { "standby restarted" } else { "restart" };
        self.continue_here(how, self.lies);
        if self.absent.is_some() {
            self.return_later();
        }
    }

    /// I12: another process serves.
    fn continue_here(&mut self, how: &'static str, excused: bool) {
        *self.outcome.replaced.entry(how).or_default() += 1;
        self.requests.clear();
        self.owner.process.settle(self.now);
        let decisions = self.owner.process.decisions(self.now);
        if let Some(forgotten) = self.journal.continue_with(&decisions, excused).into_iter().next()
        {
            self.violate(format!("{how}: {forgotten}"));
        }
        self.write_owner();
    }

    pub(super) fn violate(&mut self, what: String) {
        let at = self.now - self.began;
        self.say(|| format!("I12: {what}"));
        self.outcome.violations.push(Violation { invariant: "I12", at, what });
    }

    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if self.traced {
            println!("{:10.6} records: {}", (self.now - self.began).as_secs_f64(), text());
        }
    }

    fn put_in(&mut self, after: Duration, event: Event) {
        self.queue.put(self.now + after, event);
    }
}

impl Member {
    fn new(number: u64, process: Process, disk: Disk, now: Instant) -> Member {
        Member { number, process, disk, writes: 0, written: 0, write_last: now }
    }

    /// Begins to write the present state, after earlier ones.
    fn write(&mut self, now: Instant, delay: Duration) -> (Instant, Event) {
        self.writes += 1;
        self.write_last = self.write_last.max(now + delay);
        let policies = self.process.written_policies(now);
        let disk = Box::new(Disk { policies, operations: self.process.operations.clone() });
        let (process, write) = (self.number, self.writes);
        (self.write_last, Event::Written { process, write, disk })
    }
}
