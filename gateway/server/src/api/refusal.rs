//! Why a session was not opened, and how the client is told.

use std::sync::Arc;
use std::time::Duration;

use super::error::{Code, Error};

/// When a newcomer may try again where nobody said.
const SOON: Duration = Duration::from_secs(2);

/// Why a session was not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No policy set defines the scenario.
    UnknownScenario,
    /// The room exists with this other scenario.
    ScenarioOfRoom(Arc<str>),
    /// There is no node of this name.
    UnknownNode(Box<str>),
    /// No listener takes clients with this ingress or identity: `stun`.
    NoListener(&'static str),
    /// The declared address belongs to another session.
    AddressTaken,
    /// The gateway holds as many sessions as it may.
    Full,
    /// The gateway is shutting down.
    Draining,
    /// Admission said no.
    Rejected {
        /// When to try again.
        retry_after: Duration,
    },
    /// Admission names another region.
    Redirected {
        /// Its name.
        region: Arc<str>,
    },
    /// No node can take the room.
    NoNode,
    /// The node that carries the room did not open the session.
    NotOpened {
        /// Its name.
        node: Arc<str>,
    },
}

impl Refusal {
    /// What the client is told; `scenario` is what it asked for.
    pub(super) fn word(self, scenario: &str) -> Error {
        match self {
            Refusal::UnknownScenario => {
                Error::field("scenario", format!("no policy set defines the scenario {scenario}"))
            }
            Refusal::ScenarioOfRoom(other) => {
                let message = format!("found {scenario}, but the room exists with `{other}`");
                let field = Some("room".to_owned());
                Error { field, ..Error::new(Code::Conflict, message) }
            }
            Refusal::UnknownNode(node) => {
                Error::field(format!("nodes.{node}"), format!("there is no node `{node}`"))
            }
            Refusal::NoListener(identity) => {
                let message = format!("no listener takes `{identity}`; see [[listen]]");
                Error::field("ingress", message)
            }
            Refusal::AddressTaken => {
                let field = Some("ingress.udp.address".to_owned());
                Error { field, ..Error::new(Code::Conflict, "the address is another session's") }
            }
            Refusal::Full => Error::new(Code::Full, "the gateway holds as many sessions as it may")
                .retry_after(jitter(SOON)),
            Refusal::Draining => Error::new(Code::Draining, "the gateway is shutting down"),
            Refusal::Rejected { retry_after } => {
                Error::new(Code::Refused, "admission says no").retry_after(jitter(retry_after))
            }
            Refusal::Redirected { region } => {
                Error::new(Code::Refused, format!("admission says: try the region `{region}`"))
            }
            Refusal::NoNode => {
                Error::new(Code::Unavailable, "no node can take the room").retry_after(jitter(SOON))
            }
            Refusal::NotOpened { node } => {
                let message = format!("the node `{node}`, which carries the room, did not open it");
                Error::new(Code::Unavailable, message).retry_after(jitter(SOON))
            }
        }
    }
}

/// Up to half as long again, so that those refused together do not come back together.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() / 2.0)
}
