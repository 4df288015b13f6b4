//! Opens synthetic sessions.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::{Failed, Plan, Proof, Transport, system};
use crate::client::Way;
use evenkeel_client::{Client, Identity, Ingress, QuicOffer};

/// A client before its session is open.
pub(super) struct Newcomer {
    pub(super) session: u64,
    socket: Option<UdpSocket>,
    ingress: Ingress,
}

impl Plan {
    pub(super) fn newcomer(&self, session: u64) -> Result<Newcomer, Failed> {
        if self.transport_of(session) == Transport::Quic {
            let ingress = Ingress::Quic(QuicOffer {});
            return Ok(Newcomer { session, socket: None, ingress });
        }
        let socket = UdpSocket::bind((self.clients_at, 0)).map_err(system("opening a socket"))?;
        let address = socket.local_addr().map_err(system("opening a socket"))?;
        let identity = match self.proof {
            Proof::Stun => Identity::Stun,
            Proof::Declared => Identity::Declared { address, rtcp: None },
        };
        Ok(Newcomer { session, socket: Some(socket), ingress: Ingress::Udp(identity) })
    }
}

/// Session number, session id, and path of the packets.
pub(super) type Entered = (u64, String, Way);

/// Receives opened sessions, and can stop further openings.
pub(super) struct Door {
    pub(super) opens: Sender<Result<Entered, Failed>>,
    pub(super) ends: Arc<AtomicBool>,
}

/// Opens these sessions one after another until one fails or the door is closed.
pub(super) async fn open(plan: Plan, newcomers: Vec<Newcomer>, mut admin: Client, door: Door) {
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

async fn enter(plan: &Plan, newcomer: Newcomer, admin: &mut Client) -> Result<Entered, Failed> {
    let Newcomer { session, socket, ingress } = newcomer;
    let opened = admin.open(&plan.offer(session, ingress)).await;
    let opened = opened.map_err(|error| Failed::Gateway { what: "opening a session", error })?;
    let id = opened.id.clone();
    let Some(way) = Way::of(&opened, socket) else {
        // Close the session here: no other task knows its id.
        let _ = admin.close(&id).await;
        let what = format!("an address to send to in the answer for session {session}");
        return Err(Failed::InVain { what, within: Duration::ZERO });
    };
    Ok((session, id, way))
}
