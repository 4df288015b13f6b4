//! The last decisions of policies on sessions and rooms, and the subjects that are quarantined.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Apart, CoreEvent, Decider, DecisionNote, DecisionOutcome, Hook, PluginFault, PolicyName,
};

use super::parts::PartCounts;
use super::question::{AnswerDetails, FaultSubject, QuestionSubject};
use crate::effects::Effects;
use crate::interner::Interner;

/// Subjects with a kept decision, about 2 MB: queries come soon after a decision. The oldest is dropped first.
const SAID_MAX: usize = 8_192;

/// Notes kept per decision and subject: as many as fit on a screen.
const NOTES_MAX: usize = 8;

/// The last decision of a policy on a session, or on its room.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    pub hook: Hook,
    pub by: Decider,
    /// The plugin's name for its reason, or the number if it has no name; `None` without a reason.
    pub reason: Option<Arc<str>>,
    pub outcome: DecisionOutcome,
    pub since: Duration,
    /// The plugin's first notes on the subject.
    pub notes: Box<[(Box<str>, i64)]>,
}

/// A session, or its room, that a revision is not asked about.
#[derive(Clone, PartialEq, Debug)]
pub struct SubjectQuarantine {
    pub policy: PolicyName,
    pub revision: Arc<str>,
    pub fault: PluginFault,
    pub since: Duration,
}

#[derive(Debug)]
struct Saying {
    by: Arc<Decider>,
    reason: Option<Arc<str>>,
    outcome: DecisionOutcome,
    at: Instant,
    notes: Box<[(Box<str>, i64)]>,
}

#[derive(Debug)]
struct SubjectFault {
    policy: PolicyName,
    revision: Arc<str>,
    fault: PluginFault,
    since: Instant,
}

#[derive(Default, Debug)]
pub(crate) struct Noted {
    said: BTreeMap<(FaultSubject, Hook), Saying>,
    /// Keys by first decision, the oldest first; some may have been removed.
    order: VecDeque<(FaultSubject, Hook)>,
    held: BTreeMap<(FaultSubject, Hook), SubjectFault>,
    deciders: Interner<Decider>,
}

impl Noted {
    fn say(&mut self, key: (FaultSubject, Hook), saying: Saying) {
        if self.said.insert(key, saying).is_some() {
            return;
        }
        if self.order.len() == SAID_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.said.remove(&oldest);
        }
        self.order.push_back(key);
    }

    /// The start of the quarantine.
    pub(crate) fn held_since(&self, subject: FaultSubject, hook: Hook) -> Option<Instant> {
        self.held.get(&(subject, hook)).map(|held| held.since)
    }

    pub(crate) fn forget(&mut self, subject: FaultSubject) {
        for hook in Hook::ALL {
            self.said.remove(&(subject, hook));
            self.held.remove(&(subject, hook));
        }
    }

    pub(crate) fn said(&self, of: &[FaultSubject], now: Instant) -> Vec<Said> {
        let keys = Hook::ALL.into_iter().flat_map(|hook| of.iter().map(move |it| (*it, hook)));
        let said = keys.filter_map(|key| Some((key.1, self.said.get(&key)?)));
        said.map(|(hook, saying)| Said {
            hook,
            by: (*saying.by).clone(),
            reason: saying.reason.clone(),
            outcome: saying.outcome.clone(),
            since: now.saturating_duration_since(saying.at),
            notes: saying.notes.clone(),
        })
        .collect()
    }

    pub(crate) fn held(&self, of: &[FaultSubject], now: Instant) -> Vec<SubjectQuarantine> {
        let keys = Hook::ALL.into_iter().flat_map(|hook| of.iter().map(move |it| (*it, hook)));
        keys.filter_map(|key| self.held.get(&key))
            .map(|held| SubjectQuarantine {
                policy: held.policy.clone(),
                revision: held.revision.clone(),
                fault: held.fault.clone(),
                since: now.saturating_duration_since(held.since),
            })
            .collect()
    }
}

impl Noted {
    /// Quarantines the subjects on which the revision faults, and releases those that it answered.
    pub(crate) fn note_apart(
        &mut self,
        about: &QuestionSubject,
        policy: &PolicyName,
        revision: &Arc<str>,
        apart: Option<&Apart>,
        is_there: impl Fn(FaultSubject) -> bool,
        (now, effects): (Instant, &mut Effects),
    ) {
        if apart.is_none() && self.held.is_empty() {
            return;
        }
        self.held.retain(|(subject, _), held| {
            let row = about.row_of(*subject).filter(|_| held.policy == *policy);
            row.is_none_or(|row| apart.is_some_and(|apart| apart.leaves_out(row)))
        });
        for poisoned in apart.into_iter().flat_map(|apart| &apart.poisoned) {
            let subject = about.subject(poisoned.row).filter(|subject| is_there(*subject));
            let Some(subject) = subject else { continue };
            let (fault, key) = (poisoned.fault.clone(), (subject, policy.hook));
            if self.held.get(&key).is_some_and(|held| held.revision == *revision) {
                continue;
            }
            let (policy, revision) = (policy.clone(), revision.clone());
            let held = SubjectFault {
                policy: policy.clone(),
                revision: revision.clone(),
                fault: fault.clone(),
                since: now,
            };
            self.held.insert(key, held);
            let (session, room) = match subject {
                FaultSubject::Session(session) => (Some(session), None),
                FaultSubject::Room(room) => (None, Some(room)),
            };
            effects.event(CoreEvent::Quarantined { policy, revision, session, room, fault });
        }
    }

    /// Keeps the decision on each subject that has a reason or a note. Returns the reason if the question had one
    /// subject.
    pub(crate) fn note_said(
        &mut self,
        about: &QuestionSubject,
        (by, outcome, parts): (&Decider, &DecisionOutcome, &PartCounts),
        given: &[(u32, u32)],
        beside: &AnswerDetails,
        is_there: impl Fn(FaultSubject) -> bool,
        now: Instant,
    ) -> Option<Arc<str>> {
        let batch = matches!(about, QuestionSubject::Reroute(_) | QuestionSubject::Tick(_));
        let of_row = |row| if batch { parts.outcome_of(row) } else { outcome.clone() };
        let mut notes: BTreeMap<u32, Vec<&DecisionNote>> = BTreeMap::new();
        for note in &beside.notes {
            notes.entry(note.row).or_default().push(note);
        }
        let mut reasons: BTreeMap<u32, u32> = BTreeMap::new();
        for (row, reason) in given {
            // A row without a change needs no reason. Most rows of a tick are unchanged.
            let worth_it = || notes.contains_key(row) || of_row(*row) != DecisionOutcome::Kept;
            if *reason != 0 && worth_it() {
                reasons.insert(*row, *reason);
            }
        }
        let word = |reason: &u32| word_for(beside.reasons.as_deref().unwrap_or_default(), *reason);
        let rows: std::collections::BTreeSet<u32> =
            notes.keys().chain(reasons.keys()).copied().collect();
        let by = self.deciders.intern(by.clone());
        for row in rows {
            let Some(subject) = about.subject(row).filter(|subject| is_there(*subject)) else {
                continue;
            };
            let notes = notes.remove(&row).unwrap_or_default().into_iter().take(NOTES_MAX);
            let saying = Saying {
                by: Arc::clone(&by),
                reason: reasons.get(&row).map(word),
                outcome: of_row(row),
                at: now,
                notes: notes.map(|note| (note.key.clone(), note.value)).collect(),
            };
            self.say((subject, about.hook()), saying);
        }
        if batch { None } else { reasons.get(&0).map(word) }
    }
}

/// The name of a reason, or its number if it has no name. `reasons` is sorted by number.
fn word_for(reasons: &[(u32, Arc<str>)], reason: u32) -> Arc<str> {
    match reasons.binary_search_by_key(&reason, |(number, _)| *number) {
        Ok(at) => Arc::clone(&reasons[at].1),
        Err(_) => reason.to_string().into(),
    }
}

#[cfg(test)]
mod tests;
