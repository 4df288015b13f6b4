//! Nobody who can answer is condemned, and a death is known in its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{Event, Health, NodeId, NodeSettings, Settings, Timings, WATCH_EVERY, Witness};

use super::Scene;

type Found = Option<(&'static str, String)>;

/// A death that somebody tells of, beside the way the word takes.
const TOLD_WITHIN: Duration = Duration::from_millis(20);

/// Two witnesses of a busy node that dies without a word, beside three round trips: what was usual between two of its
/// packets counts twice.
const TWO_WITHIN: Duration = Duration::from_millis(60);

/// A node that sends so many packets a second is silent at once; one that sends so many, soon.
const BUSY: u64 = 1_000;
const STEADY: u64 = 300;

/// Packets are counted in turns of this length; the fewest of the last turns count.
const TURN: Duration = Duration::from_millis(100);
const TURNS: usize = 25;

/// A node to which nothing was sent for so long is not missed in its media.
const IDLE: Duration = Duration::from_millis(30);

/// Where the way there was bent within ten seconds, answers are waited for as long as they took, and that as long as one
/// witness alone has to accuse at most.
const BENT: Duration = Duration::from_millis(400);

/// Who fell so soon after another of its region that died without a word fell with it: one witness is enough.
const FALLS_WITHIN: Duration = Duration::from_millis(50);

/// Who says that a node died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Voice {
    /// The agent beside it.
    Agent,
    /// Its kernel, to whoever sends something there.
    Kernel,
    /// Nobody.
    Nobody,
}

/// A node that cannot answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dying {
    pub(crate) since: Instant,
    pub(crate) voice: Voice,
}

/// A node and the way there, as far as it counts for how soon its death is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patient {
    /// Since when it cannot answer, if it cannot.
    pub(crate) dying: Option<Dying>,
    /// There and back, where nothing bends the way.
    pub(crate) round_trip: Duration,
    /// Whether packets are lost where nothing is wrong: the word may be.
    pub(crate) lossy: bool,
    /// Whether the way there was bent, or it stood still, within ten seconds.
    pub(crate) bent: bool,
    /// Whether it goes on sending though nothing gets there: what meshed nodes pass on to it.
    pub(crate) speaks_on: bool,
    /// Packets that came from it, ever.
    pub(crate) received: u64,
    /// When one was last sent there.
    pub(crate) sent: Option<Instant>,
}

impl Patient {
    fn is_idle(&self, now: Instant) -> bool {
        self.sent.is_none_or(|sent| now.saturating_duration_since(sent) > IDLE)
    }
}

/// How soon a death has to be known, by what there is to know it by.
type Budget = (&'static str, Duration);

#[derive(Clone, Debug)]
struct Watched {
    region: u32,
    near: bool,
    /// Since when it cannot answer with this voice; our own stalls begin it anew.
    dying: Option<Dying>,
    /// Of the death that goes on, as it was when it began.
    budget: Option<Budget>,
    counted: Option<(Instant, u64)>,
    /// Packets in each of the last turns.
    turns: [u64; TURNS],
}

pub(crate) struct Deaths {
    nodes: Vec<Watched>,
    timings: Timings,
    /// Deaths that were known in time, by what there was to know them by.
    pub(crate) known: BTreeMap<&'static str, u64>,
    /// When a node last died without a word, by its region.
    silent: BTreeMap<u32, Instant>,
    /// Who was condemned by its probes alone, as one that fell with another of its region: its region, and what is said
    /// of it unless that other one is told of in the same watch.
    alleged: Vec<(u32, String)>,
}

impl Deaths {
    pub(super) fn new(settings: &Settings) -> Deaths {
        Deaths {
            nodes: settings.nodes.iter().map(|node| Watched::new(node, settings)).collect(),
            timings: settings.timings,
            known: BTreeMap::new(),
            silent: BTreeMap::new(),
            alleged: Vec::new(),
        }
    }

    /// A node is listed, maybe under the number of one that is gone.
    pub(super) fn listed(&mut self, id: NodeId, settings: &Settings) {
        let place = id.0 as usize;
        let watched = Watched::new(&settings.nodes[place], settings);
        match self.nodes.get_mut(place) {
            Some(before) => *before = watched,
            None => self.nodes.push(watched),
        }
    }

    /// A node is condemned by witnesses that may rightly accuse it: until when each may is given. Two of them, or one
    /// for as long as one needs, or the agent's word; what loss and quality say never counts.
    pub(crate) fn of_the_guilty(
        &mut self,
        event: &Event,
        right: &[Option<Instant>; Witness::ALL.len()],
        now: Instant,
    ) -> Found {
        let Event::Node { hop, to: Health::Down, witnesses, .. } = event else { return None };
        let at = hop.node.0 as usize;
        let region = self.nodes[at].region;
        let rightly: Vec<_> = (witnesses.iter())
            .filter(|(witness, _)| !witness.is_of_loss())
            .filter(|(witness, _)| right[*witness as usize].is_some_and(|until| now < until))
            .collect();
        let alone = self.condemn_alone(at);
        let lasted = |since: Instant| now.saturating_duration_since(since);
        let enough = rightly.len() >= 2
            || rightly
                .iter()
                .any(|(witness, since)| *witness == Witness::Agent || lasted(*since) >= alone);
        if enough {
            if !witnesses.iter().any(|(witness, _)| witness.speaks()) {
                self.silent.insert(region, now);
                self.alleged.retain(|(alleged, _)| *alleged != region);
            }
            return None;
        }
        let words: Vec<_> =
            witnesses.iter().map(|(witness, since)| (witness.name(), lasted(*since))).collect();
        let names: Vec<_> = rightly.iter().map(|(witness, _)| witness.name()).collect();
        let text = format!("{hop:?} was condemned by {words:?}, of which {names:?} had reason");
        if self.nodes[at].near && rightly.iter().any(|(witness, _)| *witness == Witness::Probe) {
            let fell = self.silent.get(&region).is_some_and(|at| lasted(*at) <= FALLS_WITHIN);
            self.alleged.extend((!fell).then_some((region, text)));
            return None;
        }
        Some(("false death", text))
    }

    /// The watch is over: who did not fall with another was condemned for nothing.
    pub(crate) fn fell_alone(&mut self) -> Found {
        let text = self.alleged.drain(..).next().map(|(_, text)| text);
        text.map(|text| ("false death", text))
    }

    /// A node that does not answer is Down within what there is to know it by needs. Our own stalls, and a doubted
    /// uplink, have their time on top; where nobody tells of it and its media port is not probed, it takes a packet.
    pub(crate) fn in_time(
        &mut self,
        patients: &[Patient],
        scene: &Scene,
        (stalled, doubted): (bool, bool),
        now: Instant,
    ) -> Found {
        let mut found = None;
        for (at, (patient, node)) in patients.iter().zip(&scene.nodes).enumerate() {
            self.nodes[at].count(patient, now);
            let down = matches!(node.health, Health::Down | Health::Cold);
            let Some(dying) = patient.dying else {
                (self.nodes[at].dying, self.nodes[at].budget) = (None, None);
                continue;
            };
            let before = self.nodes[at].dying.filter(|before| before.voice == dying.voice);
            if down {
                if let Some((name, _)) = self.nodes[at].budget.take() {
                    *self.known.entry(name).or_default() += 1;
                }
                self.nodes[at].dying = Some(Dying { since: now, ..dying });
                continue;
            }
            if !node.probed && dying.voice != Voice::Agent {
                continue;
            }
            let since = match before {
                _ if stalled => now,
                Some(before) => before.since.max(dying.since),
                None if self.nodes[at].dying.is_some() => now,
                None => dying.since,
            };
            self.nodes[at].dying = Some(Dying { since, ..dying });
            let fresh = before.is_none() || self.nodes[at].budget.is_none() || patient.is_idle(now);
            if fresh {
                self.nodes[at].budget = Some(self.budget(at, patient, dying.voice, now));
            }
            let Some((name, within)) = self.nodes[at].budget else { continue };
            let doubt = if doubted { self.timings.panic_for } else { Duration::ZERO };
            let lasted = now.saturating_duration_since(since);
            if lasted > within + doubt {
                let health = node.health.name();
                let text = format!(
                    "n{at} is dead for {lasted:?}, and is still {health}: {name} has {within:?}"
                );
                found.get_or_insert(("late death", text));
            }
        }
        found
    }

    fn condemn_alone(&self, at: usize) -> Duration {
        match self.nodes[at].near {
            true => self.timings.condemn_alone_near,
            false => self.timings.condemn_alone_far,
        }
    }

    fn budget(&self, at: usize, patient: &Patient, voice: Voice, now: Instant) -> Budget {
        let Timings { probe_every_near, probe_every_far, probe_slack, .. } = self.timings;
        let (every, missed) =
            if self.nodes[at].near { (probe_every_near, 2) } else { (probe_every_far, 1) };
        let Patient { round_trip, lossy, bent, speaks_on, .. } = *patient;
        let alone = self.condemn_alone(at);
        // Until the probes that make a witness are due, and a watch sees it.
        let probes = every * missed + round_trip + probe_slack * 3 + WATCH_EVERY * 2;
        let lost = if lossy { AGENT_REPEATS } else { Duration::ZERO };
        let rate = self.nodes[at].rate(patient, now);
        match voice {
            Voice::Agent => ("agent", TOLD_WITHIN + round_trip + lost),
            Voice::Nobody if bent => ("bent", alone + BENT),
            Voice::Kernel if bent => ("kernel, bent", alone + BENT),
            Voice::Kernel if rate >= BUSY => ("kernel, busy", TOLD_WITHIN + round_trip),
            Voice::Kernel => ("kernel", probes + lost),
            Voice::Nobody if rate >= STEADY && !speaks_on => ("two", TWO_WITHIN + round_trip * 3),
            Voice::Nobody => ("alone", alone + probes + every * 2 + round_trip),
        }
    }
}

/// An agent says again what it said so long after.
const AGENT_REPEATS: Duration = Duration::from_millis(100);

impl Watched {
    fn new(node: &NodeSettings, settings: &Settings) -> Watched {
        let region = settings.zones[node.zone.0 as usize].region;
        Watched {
            region: region.0,
            near: region == settings.home,
            dying: None,
            budget: None,
            counted: None,
            turns: [0; TURNS],
        }
    }

    fn count(&mut self, patient: &Patient, now: Instant) {
        let (since, before) = *self.counted.get_or_insert((now, patient.received));
        if now.saturating_duration_since(since) < TURN || patient.dying.is_some() {
            return;
        }
        self.turns.rotate_right(1);
        self.turns[0] = patient.received.saturating_sub(before);
        self.counted = Some((now, patient.received));
    }

    /// Packets a second, in the turn with the fewest: the one that goes on counts too once it says something, since rooms
    /// may have left.
    fn rate(&self, patient: &Patient, now: Instant) -> u64 {
        let per_second = |count: u64, time: Duration| count * 1_000 / time.as_millis() as u64;
        if patient.is_idle(now) {
            return 0;
        }
        let current = self.counted.and_then(|(since, before)| {
            let lasted = now.saturating_duration_since(since);
            (lasted >= TURN / 5)
                .then(|| per_second(patient.received.saturating_sub(before), lasted))
        });
        let turns = self.turns.iter().map(|count| per_second(*count, TURN));
        turns.chain(current).min().unwrap_or(0)
    }
}
