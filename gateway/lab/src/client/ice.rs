//! A client's side of ICE towards an ICE-lite gateway: checks until one is answered, then consent.

use std::net::SocketAddr;

use evenkeel_media::stun::{
    BindingBuilder, BindingOutcome, IceRole, Response, StunKey, Transaction, Username,
};
use fastrand::Rng;

/// Retry interval of the first check.
const CHECK_EVERY_NS: u64 = 50_000_000;
/// RFC 7675 renews consent about every 5 s; an impaired path loses some of the checks.
const CONSENT_EVERY_NS: u64 = 1_000_000_000;
/// The priority of a host candidate of component 1 (RFC 8445, section 5.1.2).
const PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;

/// ICE credentials from the gateway's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

pub(super) struct Ice {
    server_ufrag: String,
    client_ufrag: String,
    key: StunKey,
    rng: Rng,
    tie_breaker: u64,
    asked: Option<Transaction>,
    next_ns: u64,
    /// The client's address as the gateway sees it, once a check was answered.
    pub(super) mapped: Option<SocketAddr>,
    pub(super) refusals: u64,
}

impl Ice {
    pub(super) fn new(credentials: &Credentials, seed: u64, now_ns: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self {
            server_ufrag: credentials.ufrag.clone(),
            client_ufrag: (0..8).map(|_| rng.alphanumeric()).collect(),
            key: StunKey::new(&credentials.password),
            tie_breaker: rng.u64(..),
            rng,
            asked: None,
            next_ns: now_ns,
            mapped: None,
            refusals: 0,
        }
    }

    pub(super) fn poll_timeout(&self) -> u64 {
        self.next_ns
    }

    /// Appends a check to `out` if one is due, and returns true in that case.
    pub(super) fn poll_transmit(&mut self, now_ns: u64, out: &mut Vec<u8>) -> bool {
        if now_ns < self.next_ns {
            return false;
        }
        self.next_ns =
            now_ns + if self.mapped.is_some() { CONSENT_EVERY_NS } else { CHECK_EVERY_NS };
        let mut id = [0; 12];
        self.rng.fill(&mut id);
        self.asked = Some(Transaction(id));
        BindingBuilder {
            transaction: Transaction(id),
            username: Some(Username {
                server_ufrag: &self.server_ufrag,
                client_ufrag: &self.client_ufrag,
            }),
            key: Some(&self.key),
            priority: Some(PRIORITY),
            role: Some(IceRole::Controlling(self.tie_breaker)),
            use_candidate: true,
        }
        .write(out);
        true
    }

    /// Handles an answer. Answers with another password or to an older check are ignored.
    pub(super) fn handle(&mut self, datagram: &[u8]) {
        let Ok(response) = Response::parse(datagram) else { return };
        if self.asked != Some(response.transaction()) {
            return;
        }
        match response.outcome() {
            BindingOutcome::Mapped(address) if response.verify(&self.key).is_ok() => {
                self.mapped = Some(address);
                self.asked = None;
            }
            BindingOutcome::Mapped(_) => {}
            BindingOutcome::Refused(_) => self.refusals += 1,
        }
    }
}
