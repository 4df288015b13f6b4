//! Evidence that a revision of a policy does harm.

use std::fmt;

/// A measure by which a revision is judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Figure {
    /// Nothing is heard for too long after steady media; or packets for that time are missing when another hop takes
    /// over.
    Gap = 0,
    /// Too much loss after repair, up or down: measured, reported, or found by sequence numbers of the node's packets.
    Loss = 1,
    /// Voice quality is too poor (ITU-T G.107).
    RFactor = 2,
    /// Too far down the degradation ladder.
    Rung = 3,
    /// The room moves too often.
    Moves = 4,
    /// Too many of the revision's own decisions break native rules.
    Guarded = 5,
    /// Answers differ from those of a fresh instance: they cannot be replayed, and a restart after a fault changes
    /// them.
    HiddenState = 6,
    /// The revision itself turns newcomers away: it rejects them, or redirects them to another region.
    Refusals = 7,
}

impl Figure {
    /// The name in the API and in reasons: `loss`.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Gap => "gap",
            Figure::Loss => "loss",
            Figure::RFactor => "r-factor",
            Figure::Rung => "rung",
            Figure::Moves => "moves",
            Figure::Guarded => "guarded decisions",
            Figure::HiddenState => "hidden state",
            Figure::Refusals => "refusals",
        }
    }
}

/// Size of a cohort, and how much of it got worse.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BreachCount {
    /// Rooms, sessions, decisions or newcomers.
    pub of: u32,
    /// The part that got worse, broke a rule, or was turned away.
    pub worse: u32,
}

/// Evidence that a revision does harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breach {
    /// The measure that got worse.
    pub figure: Figure,
    /// The canary's count; the active revision's, if that is judged by itself.
    pub canary: BreachCount,
    /// The rest's count; empty if there is no comparison.
    pub rest: BreachCount,
}

impl fmt::Display for Breach {
    /// `loss: 8 of 10 got worse, of the rest 0 of 190`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Breach { figure, canary, rest } = self;
        let verb = match figure {
            Figure::Guarded => "broke a rule",
            Figure::HiddenState => "differed from a fresh instance's",
            Figure::Refusals => "turned away",
            Figure::Gap | Figure::Loss | Figure::RFactor | Figure::Rung | Figure::Moves => {
                "got worse"
            }
        };
        write!(f, "{}: {} of {} {verb}", figure.name(), canary.worse, canary.of)?;
        match rest.of {
            0 => Ok(()),
            of => write!(f, ", of the rest {} of {of}", rest.worse),
        }
    }
}
