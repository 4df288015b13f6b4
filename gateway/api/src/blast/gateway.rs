//! The loss of a gateway: its sessions, and whether another member of its group continues them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_contract::blast::{GatewayLoss, ListenerLoss, ServedLoss};
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::{SessionView, StatusReport};
use evenkeel_group::GroupRole;
use evenkeel_model::ClientTransport;

use crate::context::ApiContext;
use crate::error::ApiError;
use crate::gateway::with_served;

/// The loss of this member; of this gateway, if the name is empty.
pub(super) async fn lost_gateway(shared: &ApiContext, name: &str) -> Result<GatewayLoss, ApiError> {
    let status = shared.ask("", shared.handle.status()).await?;
    let member = match shared.group() {
        Some(group) => with_served(group.status(), status.sessions).loss_of(name),
        None => name.is_empty().then(|| single_gateway(status.sessions)),
    };
    let unknown = || format!("the group of this gateway has no gateway `{name}`");
    let mut loss = member.ok_or_else(|| ApiError::new(ErrorCode::NotFound, unknown()))?;
    if loss.here {
        let sessions = shared.ask("", shared.handle.sessions()).await?;
        loss.served = Some(served(&sessions, &status));
    }
    Ok(loss)
}

/// The loss of a gateway without a group.
fn single_gateway(sessions: usize) -> GatewayLoss {
    GatewayLoss {
        here: true,
        role: GroupRole::Owner.name().into(),
        sessions,
        continues: sessions == 0,
        reasons: vec!["it belongs to no group; [cluster] adds a standby".to_owned()],
        ..GatewayLoss::default()
    }
}

fn served(sessions: &[SessionView], status: &StatusReport) -> ServedLoss {
    let mut scenarios: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for session in sessions {
        *scenarios.entry(Arc::clone(&session.state.scenario)).or_default() += 1;
    }
    let listener = |transport: ClientTransport, addresses: BTreeSet<SocketAddr>| {
        let is_of = |it: &&SessionView| it.state.transport == transport;
        let sessions = sessions.iter().filter(is_of).count();
        ListenerLoss { listener: transport.name().into(), addresses, sessions }
    };
    let udp = listener(ClientTransport::Udp, status.udp.iter().copied().collect());
    let quic = listener(ClientTransport::Quic, status.quic.into_iter().collect());
    let mut listeners = vec![udp, quic];
    listeners.retain(|listener| !listener.addresses.is_empty());
    ServedLoss { scenarios, listeners }
}
