//! The thread of one policy.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Ask, Fault, PolicyName};
use evenkeel_host as host;
use tokio::sync::mpsc;

use super::{Job, Ready, Standing, Word};
use crate::control::{Rollout, RolloutOutcome};

/// Guests run on the native stack, and exhausting it would abort the process: twice what wasmtime gives a guest.
const STACK: usize = 2 << 20;

/// Faults are counted within this.
const FAULTS_WITHIN: Duration = Duration::from_secs(10);

/// More faults than this within [`FAULTS_WITHIN`] roll a revision back, however many calls there were.
const FAULTS_MAX: usize = 5;

/// Of many calls, one in this many may fault.
const FAULTS_SHARE: usize = 1_000;

pub(super) fn spawn(
    policy: PolicyName,
    jobs: crossbeam_channel::Receiver<Job>,
    standing: Arc<Standing>,
    words: mpsc::Sender<Word>,
) -> io::Result<std::thread::JoinHandle<()>> {
    let name = format!("policy {policy}");
    // Linux shows the first 15 bytes of a thread's name.
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
        Desk { policy, standing, words, active: None, previous: None, record: Record::default() }
            .run(&jobs);
    })
}

struct Desk {
    policy: PolicyName,
    standing: Arc<Standing>,
    words: mpsc::Sender<Word>,
    active: Option<Revision>,
    /// The last good one.
    previous: Option<Revision>,
    record: Record,
}

struct Revision {
    policy: host::Policy,
    origin: Box<str>,
}

/// What became of the calls of the last seconds.
#[derive(Default)]
struct Record {
    calls: VecDeque<(Instant, bool)>,
}

impl Record {
    /// Whether there were too many faults.
    fn note(&mut self, now: Instant, faulted: bool) -> bool {
        self.calls.push_back((now, faulted));
        while self
            .calls
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) > FAULTS_WITHIN)
        {
            self.calls.pop_front();
        }
        let faults = self.calls.iter().filter(|(_, faulted)| *faulted).count();
        faulted && faults > FAULTS_MAX.max(self.calls.len() / FAULTS_SHARE)
    }
}

impl Desk {
    fn run(mut self, jobs: &crossbeam_channel::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Ask(ask) => self.answer(ask),
                Job::Activate(ready) => self.activate(*ready),
                Job::Rollback(reply) => {
                    let outcome =
                        self.roll_back("asked for").ok_or("there is no revision before this one");
                    if let Ok(rollout) = &outcome {
                        self.tell(Word::Rolled(rollout.clone()));
                    }
                    let _ = reply.send(outcome);
                }
                Job::Stop => return,
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        let result = match &mut self.active {
            None => Err(Fault::Absent),
            // Whoever asked has taken the native default by now.
            Some(_) if Instant::now() >= ask.deadline => Err(Fault::Late),
            Some(revision) => {
                self.standing.called();
                revision.policy.ask(&ask.question, ask.now_us)
            }
        };
        let fault = result
            .as_ref()
            .err()
            .filter(|fault| !matches!(fault, Fault::Late | Fault::Absent))
            .cloned();
        let answered = result.is_ok();
        self.tell(Word::Answered(ask.id, result));
        if answered {
            self.standing.keep(ask.question, ask.now_us);
        }
        self.write_lines();
        if let Some(fault) = &fault {
            self.standing.faulted();
            tracing::warn!(policy = %self.policy, fault = fault.name(), detail = ?fault, "a policy failed");
        }
        if self.record.note(Instant::now(), fault.is_some()) {
            let reason =
                format!("too many faults; the last: {}", fault.map_or("", |fault| fault.name()));
            if let Some(rollout) = self.roll_back(&reason) {
                self.tell(Word::Rolled(rollout));
            }
        }
    }

    fn activate(&mut self, ready: Ready) {
        let Ready { policy, origin, since, reply } = ready;
        self.previous = self.active.replace(Revision { policy, origin });
        self.record = Record::default();
        self.show();
        let rollout =
            self.rollout(RolloutOutcome::Activated, self.previous.as_ref(), None, since.elapsed());
        self.tell(Word::Rolled(rollout.clone()));
        if let Some(reply) = reply {
            let _ = reply.send(rollout);
        }
    }

    /// The revision before is in force again; the one that failed is gone. `None` where there is none.
    fn roll_back(&mut self, reason: &str) -> Option<Rollout> {
        let since = Instant::now();
        let good = self.previous.take()?;
        let failed = self.active.replace(good);
        self.record = Record::default();
        self.show();
        Some(self.rollout(
            RolloutOutcome::RolledBack,
            failed.as_ref(),
            Some(reason.into()),
            since.elapsed(),
        ))
    }

    fn rollout(
        &self,
        outcome: RolloutOutcome,
        other: Option<&Revision>,
        reason: Option<Box<str>>,
        activate: Duration,
    ) -> Rollout {
        let name = |revision: &Revision| Arc::from(revision.policy.revision());
        Rollout {
            policy: self.policy.clone(),
            outcome,
            revision: self.active.as_ref().map(name),
            previous: other.map(name),
            reason,
            activate,
        }
    }

    fn show(&self) {
        if let Some(active) = &self.active {
            let manifest = active.policy.component().manifest();
            let plugin = format!("{} {}", manifest.name, manifest.version);
            let previous = self.previous.as_ref().map(|revision| revision.policy.revision());
            self.standing.stands(&plugin, &active.origin, active.policy.revision(), previous);
        }
    }

    /// What the plugin wrote to its log goes to ours.
    fn write_lines(&mut self) {
        let Some(active) = &mut self.active else {
            return;
        };
        while let Some(line) = active.policy.poll_line() {
            tracing::info!(policy = %self.policy, level = ?line.level, "{}", line.words);
        }
    }

    fn tell(&self, word: Word) {
        // Control reads on until it ends; when it has, nobody needs the word.
        let _ = self.words.blocking_send(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_may_fail_five_times_in_ten_seconds_and_not_six() {
        let now = Instant::now();
        let mut record = Record::default();
        for _ in 0..5 {
            assert!(!record.note(now, true));
        }
        assert!(record.note(now, true));
        assert!(!record.note(now, false), "a call that went well rolls nothing back");
    }

    #[test]
    fn faults_of_long_ago_are_forgotten() {
        let now = Instant::now();
        let mut record = Record::default();
        for _ in 0..5 {
            record.note(now, true);
        }
        assert!(!record.note(now + FAULTS_WITHIN + Duration::from_millis(1), true));
    }

    #[test]
    fn one_call_in_a_thousand_may_fail_however_many_there_are() {
        let now = Instant::now();
        let mut record = Record::default();
        for _ in 0..10_000 {
            record.note(now, false);
        }
        let rolled = (1..=12).find(|_| record.note(now, true));
        assert_eq!(rolled, Some(11));
    }
}
