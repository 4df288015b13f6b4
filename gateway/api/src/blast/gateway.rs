//! The loss of a gateway: its sessions, and whether another member of its group continues them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_control::{SessionView, StatusReport};
use evenkeel_group::MemberLoss;
use evenkeel_model::ClientTransport;
use serde::Serialize;

use crate::context::ApiContext;
use crate::error::{ApiError, ApiErrorCode};
use crate::gateway::with_served;

#[derive(Serialize)]
pub(super) struct GatewayLoss {
    #[serde(flatten)]
    member: MemberLoss,
    /// `None` for another member: its sessions are not known one by one.
    #[serde(flatten)]
    sessions: Option<LostSessions>,
}

/// The sessions that this gateway serves.
#[derive(Serialize)]
struct LostSessions {
    /// The number of sessions of each scenario.
    scenarios: BTreeMap<Arc<str>, usize>,
    /// Without those of a kind that this gateway does not have.
    listeners: Vec<ListenerLoss>,
}

/// The clients of all listeners of a kind.
#[derive(Serialize)]
struct ListenerLoss {
    /// `udp` or `quic`.
    listener: &'static str,
    addresses: BTreeSet<SocketAddr>,
    sessions: usize,
}

/// The loss of this member; of this gateway, if the name is empty.
pub(super) async fn lost_gateway(shared: &ApiContext, name: &str) -> Result<GatewayLoss, ApiError> {
    let status = shared.ask("", shared.handle.status()).await?;
    let member = match shared.group() {
        Some(group) => with_served(group.status(), status.sessions).loss_of(name),
        None => name.is_empty().then(|| MemberLoss::of_single_gateway(status.sessions)),
    };
    let unknown = || format!("the group of this gateway has no gateway `{name}`");
    let member = member.ok_or_else(|| ApiError::new(ApiErrorCode::NotFound, unknown()))?;
    let sessions = match member.here {
        true => Some(shared.ask("", shared.handle.sessions()).await?),
        false => None,
    };
    let sessions = sessions.map(|sessions| LostSessions::of(&sessions, &status));
    Ok(GatewayLoss { member, sessions })
}

impl LostSessions {
    fn of(sessions: &[SessionView], status: &StatusReport) -> LostSessions {
        let mut scenarios: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for session in sessions {
            *scenarios.entry(Arc::clone(&session.state.scenario)).or_default() += 1;
        }
        let listener = |transport: ClientTransport, addresses: BTreeSet<SocketAddr>| {
            let is_of = |it: &&SessionView| it.state.transport == transport;
            let sessions = sessions.iter().filter(is_of).count();
            ListenerLoss { listener: transport.name(), addresses, sessions }
        };
        let udp = listener(ClientTransport::Udp, status.udp.iter().copied().collect());
        let quic = listener(ClientTransport::Quic, status.quic.into_iter().collect());
        let mut listeners = vec![udp, quic];
        listeners.retain(|listener| !listener.addresses.is_empty());
        LostSessions { scenarios, listeners }
    }
}
