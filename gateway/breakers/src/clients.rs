//! The circuit breakers of groups of clients, by a label of their offers. One opens if the access networks of its clients
//! impair many of their sessions, and those of other clients fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    BreakerMode, BreakerState, CircuitSettings, ClientBreakerSettings, ClientGroup, ClientLabel,
    CoreEvent, CoreSettings, Impossible, Labels, NewcomerAction, SessionId,
};
use serde::{Deserialize, Serialize};

use crate::circuit::{Breaker, BreakerChange, BreakerEvidence, BreakerVerdict, JudgedWindow};

/// Maximum groups of a label beside the configured ones, since clients choose the values. Clients of further groups are
/// compared with as clients without the label are, and no breaker keeps them out. Operators may hold as many more.
const GROUPS_MAX: usize = 64;

/// Maximum sessions per window that get their video back, so that a network that has just recovered is not flooded.
const RESTORED_PER_WINDOW: usize = 256;

/// The breakers of all groups of clients.
#[derive(Debug)]
pub struct ClientBreakers {
    settings: ClientBreakerSettings,
    /// In the order of [`ClientLabel::ALL`]: a bad carrier explains its sessions, which say nothing about their region then.
    labels: [LabelGroups; ClientLabel::ALL.len()],
    window: u32,
    /// Sessions that were admitted with voice only.
    voice_only: BTreeMap<ClientGroup, BTreeSet<SessionId>>,
}

/// The groups of one label.
#[derive(Debug)]
struct LabelGroups {
    label: ClientLabel,
    groups: BTreeMap<Arc<str>, GroupBreaker>,
    /// Clients without the label, and of groups beyond the limit.
    others: BreakerEvidence,
    groups_max: usize,
}

#[derive(Debug)]
struct GroupBreaker {
    breaker: Breaker,
    /// The evidence in the current window.
    evidence: BreakerEvidence,
    /// The configuration has the group's name.
    is_configured: bool,
    /// The last window was bad, or the breaker is not closed.
    is_bad: bool,
}

/// A breaker of clients that does not act as a new one, for the process that continues it.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct ClientBreakerRecord {
    group: ClientGroup,
    breaker: Breaker,
}

/// A breaker of clients that is not closed, or held, or that has sessions with voice only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientBreakerStanding {
    pub group: ClientGroup,
    /// The state: `open`.
    pub breaker: &'static str,
    /// How the state is decided: `auto`.
    pub breaker_mode: BreakerMode,
    /// The time until an open breaker is half-open, in milliseconds.
    pub half_open_in_ms: Option<u64>,
    /// Open sessions that were admitted with voice only.
    pub voice_only_sessions: usize,
}

impl ClientBreakerRecord {
    /// Returns how the state is decided.
    pub fn mode(&self) -> BreakerMode {
        self.breaker.mode()
    }
}

impl ClientBreakers {
    /// Closed breakers of the groups that the configuration names.
    pub fn new(settings: &CoreSettings, now: Instant) -> ClientBreakers {
        let labels = ClientLabel::ALL.map(|label| {
            let names = match label {
                ClientLabel::Region => &settings.regions,
                ClientLabel::Carrier => &settings.carriers,
            };
            let names = names.iter().map(|name| Arc::from(&**name));
            let groups: BTreeMap<Arc<str>, _> =
                names.map(|name| (name, GroupBreaker::new(true, now))).collect();
            let groups_max = groups.len() + GROUPS_MAX;
            LabelGroups { label, groups, others: BreakerEvidence::default(), groups_max }
        });
        let settings = settings.limits.client_breakers;
        ClientBreakers { settings, labels, window: 1, voice_only: BTreeMap::new() }
    }

    /// Counts a session once per window. `is_impaired`: it loses packets on its own uplink or downlink. The downlink is measured by
    /// receiver reports (RFC 3550, 6.4): without them a session is judged by its uplink, and one that sends no media either is
    /// not passed to this function.
    pub fn judge(
        &mut self,
        labels: &Labels,
        judged: &mut JudgedWindow,
        is_impaired: bool,
        now: Instant,
    ) {
        let counted = judged.count(self.window, is_impaired);
        if counted != BreakerEvidence::default() {
            for groups in &mut self.labels {
                if groups.count(labels, counted, now) {
                    break;
                }
            }
        }
    }

    /// Ends a window. Returns an event for each breaker that changed.
    pub fn weigh(&mut self, now: Instant) -> Vec<CoreEvent> {
        self.window = self.window.wrapping_add(1).max(1);
        let settings = self.settings;
        self.labels.iter_mut().flat_map(|groups| groups.weigh(&settings, now)).collect()
    }

    /// Holds a breaker for an operator, or lets it judge again. Returns an event if its state changes.
    ///
    /// # Errors
    /// The breaker would limit no newcomer, or too many are held.
    pub fn hold(
        &mut self,
        group: &ClientGroup,
        mode: BreakerMode,
        now: Instant,
    ) -> Result<Option<CoreEvent>, Impossible> {
        let action = self.settings.action;
        if mode == BreakerMode::Open && action == NewcomerAction::Admit {
            return Err(Impossible::NoBreakerAction);
        }
        let groups = &mut self.labels[group.label as usize];
        let held = groups.enter(&group.value, groups.groups_max + GROUPS_MAX, now);
        let held = held.ok_or(Impossible::NoRoomForBreakers)?;
        let change = held.breaker.hold(mode, now);
        let none = BreakerEvidence::default();
        Ok(change.map(|change| groups.event(&group.value, action, change, none)))
    }

    /// The breakers that do not act as new ones.
    pub fn records(&self) -> Vec<ClientBreakerRecord> {
        let unrested = self.labels.iter().flat_map(LabelGroups::unrested);
        let breakers = unrested.map(|(group, breaker)| (group, breaker.clone()));
        breakers.map(|(group, breaker)| ClientBreakerRecord { group, breaker }).collect()
    }

    /// Continues the breakers of another process. Returns an event for each state that is new here.
    pub fn restore(&mut self, records: Vec<ClientBreakerRecord>, now: Instant) -> Vec<CoreEvent> {
        let action = self.settings.action;
        let mut restored: BTreeMap<ClientGroup, Breaker> =
            records.into_iter().map(|record| (record.group, record.breaker)).collect();
        // Breakers of an earlier record rest unless this one has them.
        for (group, _) in self.labels.iter().flat_map(LabelGroups::unrested) {
            restored.entry(group).or_insert_with(|| Breaker::new(now));
        }
        let mut events = Vec::new();
        for (group, breaker) in restored {
            let groups = &mut self.labels[group.label as usize];
            let most = groups.groups_max + GROUPS_MAX;
            let Some(found) = groups.enter(&group.value, most, now) else { continue };
            let change = found.breaker.restore(&breaker);
            found.is_bad = breaker.state() != BreakerState::Closed;
            let none = BreakerEvidence::default();
            events.extend(change.map(|change| groups.event(&group.value, action, change, none)));
        }
        events
    }

    /// The treatment of this newcomer, and the group that is the reason; `None` if it is admitted as others are.
    pub fn limit(
        &self,
        labels: &Labels,
        session: SessionId,
    ) -> Option<(NewcomerAction, ClientGroup)> {
        let ClientBreakerSettings { action, circuit } = &self.settings;
        if *action == NewcomerAction::Admit {
            return None;
        }
        let limiting = |groups: &LabelGroups| groups.limiting(labels, session, circuit);
        Some((*action, self.labels.iter().find_map(limiting)?))
    }

    /// The time until a newcomer of the group may be admitted.
    pub fn admits_in(&self, group: &ClientGroup, now: Instant) -> Duration {
        self.breaker(group).map_or(Duration::ZERO, |breaker| breaker.admits_in(now))
    }

    /// Notes a session that was admitted with voice only.
    pub fn note_voice_only(&mut self, session: SessionId, group: ClientGroup) {
        self.voice_only.entry(group).or_default().insert(session);
    }

    /// Forgets a session that was admitted with voice only and ended.
    pub fn forget(&mut self, session: SessionId, group: &ClientGroup) {
        if let Some(sessions) = self.voice_only.get_mut(group) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.voice_only.remove(group);
            }
        }
    }

    /// Forgets all sessions.
    pub fn forget_sessions(&mut self) {
        self.voice_only.clear();
    }

    /// The next sessions that get their video back: the breaker of their group is closed.
    pub fn restore_video(&mut self) -> Vec<SessionId> {
        let mut restored = Vec::new();
        let closed: Vec<ClientGroup> =
            self.voice_only.keys().filter(|group| self.is_closed(group)).cloned().collect();
        for group in closed {
            let Some(sessions) = self.voice_only.get_mut(&group) else { continue };
            while restored.len() < RESTORED_PER_WINDOW
                && let Some(session) = sessions.pop_first()
            {
                restored.push(session);
            }
            if sessions.is_empty() {
                self.voice_only.remove(&group);
            }
        }
        restored
    }

    /// The breakers that are not closed, or held, or that have sessions with voice only.
    pub fn standings(&self, now: Instant) -> impl Iterator<Item = ClientBreakerStanding> {
        let acts = |breaker: &Breaker| {
            breaker.state() != BreakerState::Closed || breaker.mode() != BreakerMode::Auto
        };
        let acting = self.labels.iter().flat_map(LabelGroups::unrested);
        let acting = acting.filter(|(_, breaker)| acts(breaker)).map(|(group, _)| group);
        let groups: BTreeSet<ClientGroup> = acting.chain(self.voice_only.keys().cloned()).collect();
        groups.into_iter().map(move |group| {
            let breaker = self.breaker(&group);
            let half_open_in = breaker.and_then(|breaker| breaker.half_open_in(now));
            ClientBreakerStanding {
                breaker: breaker.map_or(BreakerState::Closed, Breaker::state).name(),
                breaker_mode: breaker.map_or(BreakerMode::Auto, Breaker::mode),
                half_open_in_ms: half_open_in.map(|time| time.as_millis() as u64),
                voice_only_sessions: self.voice_only.get(&group).map_or(0, BTreeSet::len),
                group,
            }
        })
    }

    fn breaker(&self, group: &ClientGroup) -> Option<&Breaker> {
        let groups = &self.labels[group.label as usize].groups;
        Some(&groups.get(&*group.value)?.breaker)
    }

    fn is_closed(&self, group: &ClientGroup) -> bool {
        self.breaker(group).is_none_or(|breaker| breaker.state() == BreakerState::Closed)
    }
}

impl LabelGroups {
    /// Counts a session with these labels. Returns true if its group is bad.
    fn count(&mut self, labels: &Labels, counted: BreakerEvidence, now: Instant) -> bool {
        let (value, most) = (self.label.value(labels), self.groups_max);
        match value.and_then(|value| self.enter(value, most, now)) {
            Some(group) => {
                group.evidence.add(counted);
                group.is_bad
            }
            None => {
                self.others.add(counted);
                false
            }
        }
    }

    /// The group of these labels, if its breaker does not admit the newcomer.
    fn limiting(
        &self,
        labels: &Labels,
        session: SessionId,
        circuit: &CircuitSettings,
    ) -> Option<ClientGroup> {
        let (value, group) = self.groups.get_key_value(self.label.value(labels)?)?;
        let is_admitted = group.breaker.admits(session.0, circuit);
        (!is_admitted).then(|| ClientGroup { label: self.label, value: Arc::clone(value) })
    }

    /// The group of this value, which is new unless there are `most` groups.
    fn enter(&mut self, value: &str, most: usize, now: Instant) -> Option<&mut GroupBreaker> {
        if !self.groups.contains_key(value) && self.groups.len() < most {
            self.groups.insert(Arc::from(value), GroupBreaker::new(false, now));
        }
        self.groups.get_mut(value)
    }

    /// The breakers that do not act as new ones.
    fn unrested(&self) -> impl Iterator<Item = (ClientGroup, &Breaker)> {
        let all = self.groups.iter().map(|(value, group)| (value, &group.breaker));
        let unrested = all.filter(|(_, breaker)| !breaker.is_at_rest());
        let group = |value| ClientGroup { label: self.label, value: Arc::clone(value) };
        unrested.map(move |(value, breaker)| (group(value), breaker))
    }

    /// The event of a change of the group's breaker, with the evidence of the window that ended.
    fn event(
        &self,
        value: &Arc<str>,
        action: NewcomerAction,
        change: BreakerChange,
        evidence: BreakerEvidence,
    ) -> CoreEvent {
        let unlisted = self.groups.values().filter(|it| !it.is_configured);
        let open = unlisted.filter(|it| it.breaker.state() != BreakerState::Closed);
        let found = self.groups.get(value);
        CoreEvent::ClientBreaker {
            group: ClientGroup { label: self.label, value: Arc::clone(value) },
            is_configured: found.is_some_and(|it| it.is_configured),
            others_open: open.count() as u32,
            action,
            from: change.from,
            to: change.to,
            mode: found.map_or(BreakerMode::Auto, |it| it.breaker.mode()),
            sessions: evidence.sessions,
            bad: evidence.bad,
        }
    }

    fn weigh(&mut self, settings: &ClientBreakerSettings, now: Instant) -> Vec<CoreEvent> {
        let ClientBreakerSettings { action, circuit } = settings;
        let others = std::mem::take(&mut self.others).verdict(circuit);
        let verdicts = self.groups.values().map(|it| it.evidence.verdict(circuit));
        // Without clients that fare better, the cause may be the gateway's own uplink.
        let is_own = verdicts.chain([others]).all(|verdict| verdict != BreakerVerdict::Sound);
        let mut changes = Vec::new();
        self.groups.retain(|value, group| {
            let evidence = group.evidence;
            if let Some(change) = group.end_window(is_own, circuit, now) {
                changes.push((Arc::clone(value), change, evidence));
            }
            group.is_configured || evidence.sessions > 0 || !group.breaker.is_at_rest()
        });
        let event = |(value, change, evidence)| self.event(&value, *action, change, evidence);
        changes.into_iter().map(event).collect()
    }
}

impl GroupBreaker {
    fn new(is_configured: bool, now: Instant) -> GroupBreaker {
        let (breaker, evidence) = (Breaker::new(now), BreakerEvidence::default());
        GroupBreaker { breaker, evidence, is_configured, is_bad: false }
    }

    /// Weighs the evidence of the window. `is_own`: the gateway's own uplink may be the cause.
    fn end_window(
        &mut self,
        is_own: bool,
        circuit: &CircuitSettings,
        now: Instant,
    ) -> Option<BreakerChange> {
        let evidence = std::mem::take(&mut self.evidence);
        let verdict = if is_own { BreakerVerdict::Unknown } else { evidence.verdict(circuit) };
        // A quarter of the sessions that open it keeps it half-open while most of them are bad.
        let is_mostly_bad =
            evidence.sessions * 4 >= circuit.sessions_min && evidence.bad * 2 > evidence.sessions;
        let is_half_open = self.breaker.state() == BreakerState::HalfOpen;
        if is_half_open && is_mostly_bad && verdict == BreakerVerdict::Unknown {
            return None;
        }
        let change = self.breaker.weigh(verdict, circuit, now);
        self.is_bad =
            verdict == BreakerVerdict::Bad || self.breaker.state() != BreakerState::Closed;
        change
    }
}

#[cfg(test)]
mod tests;
