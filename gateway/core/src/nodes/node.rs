//! A node's health: what the detector finds, and how a node that came back is trusted again.

mod start;

use std::time::{Duration, Instant};

use super::detector::{Detector, Distance, Finding};
use crate::{
    Health, Hop, Incarnation, Measures, Metric, NodeId, NodeSettings, Probed, RoomId, Starts,
    Timings, Witness,
};
use start::Starting;

/// Relapses that still lengthen the ejection; past it the longest applies anyway.
const RELAPSES_MAX: u32 = 16;

/// A node that has been Up this long is forgiven one relapse.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// A node that loses more than others is avoided so long at least, though no room is left there to lose something.
const WORSE_FOR: Duration = Duration::from_secs(10);

/// Closed ports of this many rooms accuse the node.
const PORTS_ACCUSE: usize = 3;

/// A node that said it takes no new sessions is believed so long, unless it says something else: with each probe.
const UNWILLING_FOR: Duration = Duration::from_secs(5);

/// A load that it measured is believed so long; it says so with each answer to a probe.
const LOAD_FOR: Duration = Duration::from_secs(5);

/// Closed ports are counted within this.
const PORTS_CLOSE_WITHIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) settings: NodeSettings,
    pub(crate) incarnation: Incarnation,
    pub(crate) detector: Detector,
    /// An operator drains it.
    pub(crate) draining: bool,
    /// It is listed no longer: it drains, and is forgotten then.
    pub(crate) removed: bool,
    /// An operator declared it Down, and it stays so until the operator lets it back.
    pub(crate) ejected: bool,
    /// It need not wait out its ejection: an operator said so, or it had not begun yet when it was condemned.
    excused: bool,
    /// It was condemned before it was ever heard: it is late, or we look early, and that costs it no trust.
    unknown: bool,
    starting: Starting,
    /// It drains by itself: the agent beside it said so.
    pub(crate) leaving: bool,
    /// It said that it takes no new sessions; believed until then.
    unwilling: Option<Instant>,
    /// Its load as it measured it, thousandths, and when it said so.
    measured: Option<(u16, Instant)>,
    standing: Standing,
    relapses: u32,
    /// Since when, and until when at least, it loses more than others do.
    worse: Option<Worse>,
    /// Most of its rooms lose much, whether others do or not: what hits a whole region hits one of its nodes first.
    pub(crate) fares_badly: bool,
    /// Ports that were closed lately, by room.
    closed_ports: Vec<(RoomId, Instant)>,
    timings: Timings,
}

#[derive(Clone, Copy, Debug)]
enum Standing {
    Up {
        since: Instant,
    },
    Suspect {
        was_wary: bool,
    },
    Down {
        since: Instant,
        answering_since: Option<Instant>,
    },
    Wary {
        since: Instant,
    },
    /// It does not run; its hook would start it.
    Cold {
        since: Instant,
    },
}

/// It loses more than others do.
#[derive(Clone, Copy, Debug)]
struct Worse {
    since: Instant,
    /// Suspect until then, though no room is left that would lose something.
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Its health, in the incarnation it has.
    Health {
        from: Health,
        to: Health,
    },
    /// It was cold and answers: it needs a new incarnation, and has been started for so long, if we did.
    Started {
        to: Health,
        after: Option<Duration>,
    },
    Died {
        from: Health,
    },
    /// It is back, and needs a new incarnation.
    Returned,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        settings: NodeSettings,
        distance: Distance,
        timings: Timings,
        now: Instant,
    ) -> Node {
        let standing = match settings.starts {
            Starts::ByItself => Standing::Up { since: now },
            Starts::ByHook { .. } => Standing::Cold { since: now },
        };
        Node {
            id,
            settings,
            incarnation: Incarnation(1),
            detector: Detector::new(timings, distance),
            draining: false,
            removed: false,
            ejected: false,
            excused: false,
            unknown: false,
            starting: Starting::default(),
            leaving: false,
            measured: None,
            unwilling: None,
            standing,
            relapses: 0,
            worse: None,
            fares_badly: false,
            closed_ports: Vec::new(),
            timings,
        }
    }

    /// A node that comes while others serve: it is Down until it answers, and need not wait then.
    pub(crate) fn added(
        (id, incarnation): (NodeId, Incarnation),
        settings: NodeSettings,
        distance: Distance,
        timings: Timings,
        now: Instant,
    ) -> Node {
        let mut node = Node::new(id, settings, distance, timings, now);
        if let Starts::ByItself = node.settings.starts {
            node.standing = Standing::Down { since: now, answering_since: None };
        }
        (node.incarnation, node.excused) = (incarnation, true);
        node
    }

    pub(crate) fn hop(&self) -> Hop {
        Hop { node: self.id, incarnation: self.incarnation }
    }

    pub(crate) fn health(&self) -> Health {
        match self.standing {
            Standing::Up { .. } => Health::Up,
            Standing::Suspect { .. } => Health::Suspect,
            Standing::Down { .. } => Health::Down,
            Standing::Wary { .. } => Health::Wary,
            Standing::Cold { .. } => Health::Cold,
        }
    }

    /// Rooms may stand here: on a Suspect node only if nothing better is left.
    pub(crate) fn takes_rooms(&self) -> bool {
        self.runs() && !self.drains()
    }

    /// It is neither Down nor Cold, by the evidence.
    pub(crate) fn runs(&self) -> bool {
        !matches!(self.health(), Health::Down | Health::Cold)
    }

    /// Its rooms are to move away: for an operator, for the list, or by its own wish.
    pub(crate) fn drains(&self) -> bool {
        self.draining || self.removed || self.leaving
    }

    /// A room may come here that has no session open at it yet.
    pub(crate) fn welcomes_rooms(&self) -> bool {
        self.takes_rooms() && self.unwilling.is_none()
    }

    /// Rooms go there before others: it is Up, and its way loses little.
    pub(crate) fn is_sound(&self) -> bool {
        self.health() == Health::Up && !self.loses()
    }

    /// Its way loses much: by the votes of rooms or, though no room may be there that would notice, by probes.
    pub(crate) fn loses(&self) -> bool {
        self.fares_badly || self.detector.loses()
    }

    /// It accepts or refuses new sessions. Its sessions stay.
    pub(crate) fn handle_willing(&mut self, willing: bool, now: Instant) {
        self.unwilling = (!willing).then(|| now + UNWILLING_FOR);
    }

    /// It said how loaded it is.
    pub(crate) fn handle_load(&mut self, permille: u16, now: Instant) {
        self.measured = Some((permille, now));
    }

    /// Its load as it measured it lately, thousandths of its capacity.
    pub(crate) fn reported_permille(&self) -> Option<u16> {
        self.measured.map(|(permille, _)| permille)
    }

    /// The agent beside it says that its process is gone: that condemns at once, whatever else there is to weigh.
    pub(crate) fn handle_gone(&mut self, now: Instant) -> Option<Change> {
        self.detector.handle_agent(false, now);
        self.runs().then(|| self.die(now))
    }

    /// A port that served one room is closed: one call may have ended, but not the calls of several rooms at once.
    pub(crate) fn handle_port_closed(&mut self, room: RoomId, now: Instant) {
        self.closed_ports.retain(|(other, at)| {
            *other != room && now.saturating_duration_since(*at) < PORTS_CLOSE_WITHIN
        });
        self.closed_ports.push((room, now));
        if self.closed_ports.len() >= PORTS_ACCUSE {
            self.closed_ports.clear();
            self.detector.handle_kernel_error(now);
        }
    }

    /// An operator declares it dead. Returns the change, if it was not Down.
    pub(crate) fn eject(&mut self, now: Instant) -> Option<Change> {
        self.ejected = true;
        (self.health() != Health::Down).then(|| self.die(now))
    }

    /// An operator lets it back: as soon as it answers.
    pub(crate) fn let_back(&mut self) {
        (self.ejected, self.excused) = (false, true);
    }

    /// Rooms lose more here than elsewhere.
    pub(crate) fn found_worse(&mut self, witness: Witness, now: Instant) {
        if !self.runs() {
            return;
        }
        if self.worse.is_none() {
            self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        }
        let until = now + self.ejection().max(WORSE_FOR);
        self.worse = Some(Worse { since: self.worse.map_or(now, |worse| worse.since), until });
        self.detector.handle_worse(Some(witness), now);
    }

    /// Rooms on it fare `well`; or no room is there, and it is forgiven when its time is over, unless probes still
    /// lose much.
    pub(crate) fn found_no_worse(&mut self, well: bool, now: Instant) {
        let over = |worse: Worse| now >= worse.until && !self.loses();
        if self.worse.is_some_and(|worse| well || over(worse)) {
            self.worse = None;
            self.detector.handle_worse(None, now);
        }
    }

    /// The time for which rooms have been losing more here than elsewhere.
    pub(crate) fn worse_for(&self, now: Instant) -> Option<Duration> {
        self.worse.map(|worse| now.saturating_duration_since(worse.since))
    }

    /// The finding of the evidence; nothing of a node that does not run.
    pub(crate) fn look(&mut self, now: Instant) -> Finding {
        match self.standing {
            Standing::Down { .. } | Standing::Cold { .. } => Finding::Well,
            Standing::Up { .. } | Standing::Suspect { .. } | Standing::Wary { .. } => {
                self.detector.weigh(now)
            }
        }
    }

    pub(crate) fn conclude(&mut self, found: Finding, now: Instant) -> Option<Change> {
        self.unwilling = self.unwilling.filter(|until| now < *until);
        let fresh = |at: Instant| now.saturating_duration_since(at) < LOAD_FOR;
        self.measured = self.measured.filter(|(_, at)| fresh(*at));
        if let Standing::Down { since, answering_since } = self.standing {
            return self.weigh_return(since, answering_since, now);
        }
        if let Standing::Cold { since } = self.standing {
            return self.weigh_start(since, now);
        }
        match (found, self.standing) {
            (Finding::Dead, _) => Some(self.die(now)),
            (Finding::Accused, Standing::Suspect { .. }) => None,
            (Finding::Accused, standing) => {
                let was_wary = matches!(standing, Standing::Wary { .. });
                self.change_to(Standing::Suspect { was_wary })
            }
            (Finding::Well, Standing::Suspect { was_wary: false }) => {
                self.change_to(Standing::Up { since: now })
            }
            // Trust starts over: an accusation is no short cut to it.
            (Finding::Well, Standing::Suspect { was_wary: true }) => {
                self.change_to(Standing::Wary { since: now })
            }
            (Finding::Well, Standing::Wary { since }) if now - since >= self.timings.wary_for => {
                self.change_to(Standing::Up { since: now })
            }
            (Finding::Well, Standing::Up { since }) if now - since >= FORGIVEN_AFTER => {
                self.relapses = self.relapses.saturating_sub(1);
                self.standing = Standing::Up { since: now };
                None
            }
            (
                Finding::Well,
                Standing::Up { .. }
                | Standing::Wary { .. }
                | Standing::Down { .. }
                | Standing::Cold { .. },
            ) => None,
        }
    }

    #[cfg(test)]
    fn weigh(&mut self, now: Instant) -> Option<Change> {
        let found = self.look(now);
        self.conclude(found, now)
    }

    fn die(&mut self, now: Instant) -> Change {
        let from = self.health();
        self.unknown = self.settings.probed == Probed::Yes && !self.detector.was_heard();
        self.excused = self.unknown;
        if !self.unknown {
            self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        }
        (self.worse, self.fares_badly) = (None, false);
        self.standing = Standing::Down { since: now, answering_since: None };
        Change::Died { from }
    }

    /// A dead node returns once it has answered without a miss for its ejection, one that was never heard before as soon as
    /// it answers; one that cannot be probed when
    /// that time has passed, and no agent says that its process is gone.
    fn weigh_return(
        &mut self,
        since: Instant,
        before: Option<Instant>,
        now: Instant,
    ) -> Option<Change> {
        self.detector.weigh(now);
        let answering_since = match self.settings.probed {
            Probed::No if self.detector.is_gone() => None,
            Probed::No => Some(before.unwrap_or(now)),
            Probed::Yes => {
                let answer = self.detector.last_answer().filter(|&answer| answer > since);
                let unbroken = self.detector.witnesses().is_empty();
                answer.filter(|_| unbroken).map(|answer| before.unwrap_or(answer))
            }
        };
        if before.is_none() && answering_since.is_some() {
            self.detector.forget_loss();
        }
        self.standing = Standing::Down { since, answering_since };
        let waits = if self.excused { Duration::ZERO } else { self.ejection() };
        let waited = now.saturating_duration_since(since) >= waits;
        let by_hook = self.settings.starts != Starts::ByItself && !self.ejected;
        if by_hook && answering_since.is_none() && waited {
            self.excused = false;
            return self.change_to(Standing::Cold { since: now });
        }
        if self.ejected
            || answering_since.is_none_or(|start| now.saturating_duration_since(start) < waits)
        {
            return None;
        }
        self.excused = false;
        self.detector.absolve();
        self.standing = match std::mem::take(&mut self.unknown) {
            true => Standing::Up { since: now },
            false => Standing::Wary { since: now },
        };
        Some(Change::Returned)
    }

    /// Doubles with each relapse.
    pub(crate) fn ejection(&self) -> Duration {
        let doublings = self.relapses.saturating_sub(1);
        self.timings.ejection.saturating_mul(1 << doublings).min(self.timings.ejection_max)
    }

    fn change_to(&mut self, standing: Standing) -> Option<Change> {
        let from = self.health();
        self.standing = standing;
        Some(Change::Health { from, to: self.health() })
    }

    /// The metrics of the way to it and of its health, for policies.
    pub(crate) fn measure(&self, measures: &mut Measures) {
        if let Some((smoothed, variation)) = self.detector.round_trip() {
            measures.set(Metric::Delay, smoothed.as_micros() as u64 / 2);
            measures.set(Metric::JitterNode, variation.as_micros() as u64);
        }
        measures.set(Metric::LossNode, u64::from(self.detector.loss_ppm()));
        // Policies know a node that does not run as one that is Down.
        measures.set(Metric::Health, self.health().min(Health::Down) as u64);
        measures.set(Metric::Draining, u64::from(self.drains()));
        measures.set(Metric::Capacity, self.settings.capacity_kbps);
    }
}

#[cfg(test)]
mod tests;
