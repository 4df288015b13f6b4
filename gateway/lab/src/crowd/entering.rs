//! Opens synthetic sessions.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::{CrowdError, CrowdPlan, PlannedTransport, Proof, system};
use crate::client::ClientPath;
use evenkeel_client::{ApiClient, OfferIdentity, OfferIngress, QuicOffer};

/// A client before its session is open.
pub(super) struct EnteringClient {
    pub(super) session: u64,
    socket: Option<UdpSocket>,
    ingress: OfferIngress,
}

impl CrowdPlan {
    pub(super) fn newcomer(&self, session: u64) -> Result<EnteringClient, CrowdError> {
        if self.transport_of(session) == PlannedTransport::Quic {
            let ingress = OfferIngress::Quic(QuicOffer {});
            return Ok(EnteringClient { session, socket: None, ingress });
        }
        let socket = UdpSocket::bind((self.clients_at, 0)).map_err(system("opening a socket"))?;
        let address = socket.local_addr().map_err(system("opening a socket"))?;
        let identity = match self.proof {
            Proof::Stun => OfferIdentity::Stun,
            Proof::Declared => OfferIdentity::Declared { address, rtcp: None },
        };
        Ok(EnteringClient { session, socket: Some(socket), ingress: OfferIngress::Udp(identity) })
    }
}

/// Session number, session id, and path of the packets.
pub(super) type Entered = (u64, String, ClientPath);

/// Receives opened sessions, and can stop further openings.
pub(super) struct Door {
    pub(super) opens: Sender<Result<Entered, CrowdError>>,
    pub(super) ends: Arc<AtomicBool>,
}

/// Opens these sessions one after another until one fails or the door is closed.
pub(super) async fn open(
    plan: CrowdPlan,
    newcomers: Vec<EnteringClient>,
    mut admin: ApiClient,
    door: Door,
) {
    for newcomer in newcomers {
        if door.ends.load(Ordering::Relaxed) {
            return;
        }
        let entered = enter(&plan, newcomer, &mut admin).await;
        let failed = entered.is_err();
        if door.opens.send(entered).await.is_err() || failed {
            return;
        }
    }
}

async fn enter(
    plan: &CrowdPlan,
    newcomer: EnteringClient,
    admin: &mut ApiClient,
) -> Result<Entered, CrowdError> {
    let EnteringClient { session, socket, ingress } = newcomer;
    let opened = admin.open(&plan.offer(session, ingress)).await;
    let opened = opened.map_err(|error| CrowdError::Gateway("opening a session", error))?;
    let id = opened.id.clone();
    let Some(way) = ClientPath::of(&opened, socket) else {
        // Close the session here: no other task knows its id.
        let _ = admin.close(&id).await;
        let what = format!("an address to send to in the answer for session {session}");
        return Err(CrowdError::InVain { what, within: Duration::ZERO });
    };
    Ok((session, id, way))
}
