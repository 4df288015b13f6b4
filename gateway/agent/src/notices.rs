//! Notices to the gateways that recently sent a validly signed probe.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{NodeLoad, NodeSecret, SUBSCRIBED_FOR_US, TrunkAnswer};

/// Time for which a gateway receives notices after its last probe.
const SUBSCRIBED_FOR: Duration = Duration::from_micros(SUBSCRIBED_FOR_US);

/// Limit of subscribed gateways; above it, the one with the oldest probe is dropped.
const GATEWAYS_MAX: usize = 256;

/// Retransmission interval of a notice: with [`TIMES`], three copies within 20 ms.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(8);
const TIMES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct DeathNotices {
    gateways: Vec<NotifiedGateway>,
    number: u64,
}

#[derive(Debug)]
struct NotifiedGateway {
    address: SocketAddr,
    /// Nonce of the gateway's last probe.
    nonce: u64,
    probed: Instant,
    /// The last notice, until it is acknowledged.
    unacked: Option<Unacked>,
}

#[derive(Debug)]
struct Unacked {
    number: u64,
    message: Vec<u8>,
    sent: u32,
    resend_at: Instant,
}

impl DeathNotices {
    /// Subscribes a gateway that sent a validly signed probe.
    pub(crate) fn handle_probe(&mut self, address: SocketAddr, nonce: u64, now: Instant) {
        if let Some(gateway) = self.gateways.iter_mut().find(|known| known.address == address) {
            (gateway.nonce, gateway.probed) = (nonce, now);
            return;
        }
        if self.gateways.len() == GATEWAYS_MAX
            && let Some(oldest) = (0..GATEWAYS_MAX).min_by_key(|&at| self.gateways[at].probed)
        {
            self.gateways.swap_remove(oldest);
        }
        self.gateways.push(NotifiedGateway { address, nonce, probed: now, unacked: None });
    }

    /// Sends a notice to all gateways. Returns their number.
    pub(crate) fn send(
        &mut self,
        load: NodeLoad,
        secret: &NodeSecret,
        (now, unix_us): (Instant, u64),
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) -> u64 {
        self.number += 1;
        let number = self.number;
        self.gateways.retain(|gateway| now.duration_since(gateway.probed) < SUBSCRIBED_FOR);
        for gateway in &mut self.gateways {
            let mut message = Vec::new();
            TrunkAnswer::Notice { number, load }.write(
                secret,
                gateway.nonce,
                unix_us,
                &mut message,
            );
            send(gateway.address, &message);
            gateway.unacked =
                Some(Unacked { number, message, sent: 1, resend_at: now + RETRANSMIT_AFTER });
        }
        self.gateways.len() as u64
    }

    /// Handles an acknowledgement. Returns whether a notice was waiting for it.
    pub(crate) fn handle_ack(&mut self, address: SocketAddr, number: u64) -> bool {
        let gateway = self.gateways.iter_mut().find(|known| known.address == address);
        gateway
            .and_then(|gateway| gateway.unacked.take_if(|unacked| unacked.number == number))
            .is_some()
    }

    /// Retransmits notices. Returns their number.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) -> u64 {
        let mut count = 0;
        for gateway in &mut self.gateways {
            let Some(unacked) = gateway.unacked.as_mut().filter(|unacked| unacked.resend_at <= now)
            else {
                continue;
            };
            if unacked.sent == TIMES {
                gateway.unacked = None;
                continue;
            }
            send(gateway.address, &unacked.message);
            unacked.sent += 1;
            unacked.resend_at = now + RETRANSMIT_AFTER;
            count += 1;
        }
        count
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(|gateway| Some(gateway.unacked.as_ref()?.resend_at)).min()
    }
}

#[cfg(test)]
mod tests;
