//! What is told to those who listen at `GET /v1/events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::view::{Hop, RolloutOutcome};

/// Something that happened. `at_us` is when: microseconds since the Unix epoch.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Notice {
    /// A session may send.
    Opened {
        /// When.
        at_us: u64,
        /// `s17`.
        session: String,
        /// Its room's name.
        room: Arc<str>,
        /// Its scenario.
        scenario: Arc<str>,
        /// Its room's hops, best first.
        route: Vec<Hop>,
        /// Who decided, by hook.
        decided_by: BTreeMap<&'static str, String>,
    },
    /// A room's packets take another hop.
    Moved {
        /// When.
        at_us: u64,
        /// The room's name.
        room: Arc<str>,
        /// Its sessions.
        sessions: Vec<String>,
        /// `node-down`, `quality`…
        cause: &'static str,
        /// Who decided: `native`, `operator` or a policy's revision.
        by: String,
        /// The node it was on.
        from: Arc<str>,
        /// The node it is on; `None`: none was left.
        to: Option<Arc<str>>,
        /// Who accused the node it left.
        witnesses: Vec<&'static str>,
        /// From the node's last packet until the move, where it died.
        #[serde(skip_serializing_if = "Option::is_none")]
        detect_us: Option<u64>,
    },
    /// A session ended.
    Closed {
        /// When.
        at_us: u64,
        /// `s17`.
        session: String,
        /// Its room's name.
        room: Arc<str>,
        /// `asked`, `silent`, `shutdown` or `not-opened`.
        reason: &'static str,
        /// What went through it, by name.
        totals: BTreeMap<&'static str, u64>,
    },
    /// A node's health changed.
    Node {
        /// When.
        at_us: u64,
        /// The node.
        node: Arc<str>,
        /// As which it was known.
        incarnation: u32,
        /// `up`, `suspect`, `wary` or `down`.
        from: &'static str,
        /// The same, now.
        to: &'static str,
        /// Who accuses it, and for how long.
        witnesses: Vec<Accusation>,
        /// Since its last packet.
        #[serde(skip_serializing_if = "Option::is_none")]
        detect_us: Option<u64>,
        /// Rooms whose packets this moved.
        rooms: u32,
    },
    /// A policy was pushed or rolled back, or answers again, or no longer.
    Policy {
        /// When.
        at_us: u64,
        /// `call/routing`.
        policy: String,
        /// What became of a push or rollback.
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<RolloutOutcome>,
        /// The revision that answers now.
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<Arc<str>>,
        /// The revision that answered before.
        #[serde(skip_serializing_if = "Option::is_none")]
        previous: Option<Arc<str>>,
        /// Why, or the fault it stands in.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How long the change took.
        #[serde(skip_serializing_if = "Option::is_none")]
        activate_us: Option<u64>,
    },
    /// A session's quality was changed.
    Degraded {
        /// When.
        at_us: u64,
        /// `s17`.
        session: String,
        /// Its room's name.
        room: Arc<str>,
        /// `cap` or `voice-only`.
        op: &'static str,
        /// With which argument.
        arg: u64,
        /// The rung it is on now; 0 is undegraded.
        rung: u8,
        /// Who decided.
        by: String,
    },
    /// A node, or the whole gateway, takes no new sessions, or takes them again.
    Draining {
        /// When.
        at_us: u64,
        /// The node; `None`: the gateway.
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<Arc<str>>,
        /// Whether it is being drained.
        draining: bool,
    },
}

/// A witness, and since when it accuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Accusation {
    /// `kernel-error`, `probe` or `silence`.
    pub witness: &'static str,
    /// For how long.
    pub since_us: u64,
}

impl Notice {
    /// The event's name: `moved`.
    pub fn name(&self) -> &'static str {
        match self {
            Notice::Opened { .. } => "opened",
            Notice::Moved { .. } => "moved",
            Notice::Closed { .. } => "closed",
            Notice::Node { .. } => "node",
            Notice::Policy { .. } => "policy",
            Notice::Degraded { .. } => "degraded",
            Notice::Draining { .. } => "draining",
        }
    }
}
