//! The admission hook: decides whether a session is admitted.

use std::time::Duration;

use crate::catalog::Catalog;
use crate::data::Document;
use crate::frame::{Frame, Table};
use crate::guest::{Loaded, Plugin, Policy};
use crate::id::{RegionId, RoomId, SessionId};
use crate::labels::Labels;
use crate::newcomer::NewSession;
use crate::reason::Reason;
use crate::registry::Metric;
use crate::settings::Settings;
use crate::wit::admission::exports::evenkeel::policy::admission as abi;
use crate::wit::types;

/// An admission policy: implement it under [`#[admission]`](macro@crate::admission).
///
/// The attribute adds `type Reason = ()` if it is missing.
pub trait Admission: Settings {
    /// Reasons of the policy's verdicts.
    type Reason: Reason;
    /// Metrics that the policy reads; the gateway sends no others. Defaults to all metrics of regions.
    const READS: &'static [Metric] = Metric::REGION;
    /// Data documents in which the policy looks up. Defaults to none.
    const DATA: &'static [Document] = &[];

    /// Decides on a session. `standing` is the region of its room, or `None` for the room's first session. Only a first
    /// session may be redirected to another region.
    fn admit(
        &self,
        newcomer: &NewSession<'_>,
        standing: Option<RegionId>,
        regions: &Regions<'_>,
    ) -> Judgement;
}

/// Regions with their measures.
#[derive(Debug)]
pub struct Regions<'a> {
    frame: Frame<'a>,
    catalog: &'a Catalog,
    seed: u64,
}

impl Regions<'_> {
    /// Iterates over all regions.
    pub fn iter(&self) -> impl Iterator<Item = Region<'_>> {
        (0..self.frame.len()).map(|row| Region { regions: self, row })
    }

    /// Returns the region with this number, if it has a row.
    pub fn region(&self, id: RegionId) -> Option<Region<'_>> {
        self.iter().find(|region| region.id() == id)
    }

    /// Returns the names of regions, zones and nodes.
    pub fn catalog(&self) -> &Catalog {
        self.catalog
    }

    /// Returns the time since the gateway started. A policy has no other clock.
    pub fn now(&self) -> Duration {
        self.frame.now()
    }

    /// Returns the policy's only source of randomness: constant for the lifetime of a revision, and recorded.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A region with its measures.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    regions: &'a Regions<'a>,
    row: usize,
}

impl<'a> Region<'a> {
    /// Returns the region's number.
    pub fn id(&self) -> RegionId {
        RegionId(self.regions.frame.ids[self.row])
    }

    /// Returns the region's configured name.
    pub fn name(&self) -> Option<&'a str> {
        self.regions.catalog.region_name(self.id())
    }

    /// Returns the region's configured labels.
    pub fn labels(&self) -> Labels<'a> {
        self.regions.catalog.region_labels(self.id())
    }

    /// Returns a metric by its registry name. Each metric also has a function.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.regions.frame.measured(self.row, metric)
    }
}

/// A verdict on a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Has no opinion: the native default decides.
    Abstain,
    /// Admits the session.
    Accept,
    /// Admits the session with a cap in kbit/s.
    AcceptCapped(u32),
    /// Redirects the session to this region; valid only for a room's first session.
    Redirect(RegionId),
    /// Rejects the session, which may retry after this time.
    Reject(Duration),
}

impl Verdict {
    /// Adds the reason.
    pub fn because(self, reason: impl Reason) -> Judgement {
        Judgement { verdict: self, reason: reason.number() }
    }
}

/// A verdict with its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    verdict: Verdict,
    reason: u32,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Judgement {
        verdict.because(())
    }
}

/// The arguments of `admit`.
pub(crate) struct Admit<'a> {
    pub(crate) now_us: u64,
    pub(crate) session: u64,
    pub(crate) room: u64,
    pub(crate) standing: Option<u64>,
    pub(crate) scenario: &'a str,
    pub(crate) labels: &'a [types::Label],
    pub(crate) regions: Table<'a>,
}

pub(crate) fn admit<P: Admission>(loaded: &Loaded<P>, asked: &Admit<'_>) -> Judgement {
    let frame = Frame::new(asked.regions, &loaded.node, P::READS, asked.now_us);
    let regions = Regions { frame, catalog: &loaded.catalog, seed: loaded.seed };
    let newcomer = NewSession {
        session: SessionId(asked.session),
        room: RoomId(asked.room),
        scenario: asked.scenario,
        labels: Labels(asked.labels),
        catalog: &loaded.catalog,
    };
    loaded.policy.admit(&newcomer, asked.standing.map(RegionId), &regions)
}

impl Judgement {
    /// Returns the verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the number of the reason; 0 if there is none.
    pub fn reason(&self) -> u32 {
        self.reason
    }

    /// In the contract's type.
    pub(crate) fn answer(self) -> abi::Answer {
        let verdict = match self.verdict {
            Verdict::Abstain => abi::Verdict::Abstain,
            Verdict::Accept => abi::Verdict::Accept,
            Verdict::AcceptCapped(kbps) => abi::Verdict::AcceptCapped(kbps),
            Verdict::Redirect(region) => abi::Verdict::Redirect(region.0),
            Verdict::Reject(retry_after) => {
                abi::Verdict::Reject(retry_after.as_millis().try_into().unwrap_or(u32::MAX))
            }
        };
        abi::Answer { verdict, reason: self.reason }
    }
}

impl<P: Admission + Policy> abi::Guest for Plugin<P> {
    fn admit(
        now_us: u64,
        session: u64,
        room: u64,
        standing: Option<u64>,
        scenario: String,
        labels: Vec<types::Label>,
        regions: types::Frame,
    ) -> abi::Answer {
        let (scenario, labels, regions) = (&scenario, &labels, (&regions).into());
        let asked = Admit { now_us, session, room, standing, scenario, labels, regions };
        Loaded::<P>::with(|loaded| admit(loaded, &asked)).answer()
    }
}
