//! ICE of a client towards an ICE-lite gateway.

use std::net::SocketAddr;

use evenkeel_media::stun::{
    BindingBuilder, BindingOutcome, BindingRequest, Response, StunKey, Transaction, Username,
    write_success,
};
use fastrand::Rng;

/// Retry interval of the first check.
const CHECK_EVERY_NS: u64 = 50_000_000;
/// RFC 7675 renews consent about every 5 s; an impaired path loses some of the checks.
const CONSENT_EVERY_NS: u64 = 1_000_000_000;
/// Time without an answered check after which applications restart ICE: browsers have reported `disconnected` by then.
const RESTART_AFTER_NS: u64 = 5_000_000_000;
/// The priority of a host candidate of component 1 (RFC 8445, section 5.1.2).
const PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;

/// ICE credentials from the gateway's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The username fragment.
    pub ufrag: String,
    pub password: String,
}

/// Returns the answer to a check of the gateway from this address; `None` for other datagrams. It is not signed, since the gateway
/// reads its transaction only.
pub fn answer_check(datagram: &[u8], gateway: SocketAddr) -> Option<Vec<u8>> {
    let request = BindingRequest::parse(datagram).ok()?;
    let mut answer = Vec::new();
    write_success(request.message.transaction(), gateway, None, &mut answer);
    Some(answer)
}

/// A client's checks: until one is answered, then consent.
pub(super) struct Ice {
    server_ufrag: String,
    client_ufrag: String,
    key: StunKey,
    rng: Rng,
    tie_breaker: u64,
    asked: Option<Transaction>,
    pub(super) next_ns: u64,
    /// Time of the last answer; `None` before the first.
    answered_ns: Option<u64>,
    is_disconnected: bool,
    /// Times at which an application would have restarted ICE.
    pub(super) restarts: u64,
    pub(super) is_refused: bool,
}

/// The random username fragment of a client (RFC 8839, section 5.4).
pub(super) fn ufrag(rng: &mut Rng) -> String {
    (0..8).map(|_| rng.alphanumeric()).collect()
}

impl Ice {
    /// Creates the checks of a client. `client_ufrag` is the fragment of its offer; `None`: a random one.
    pub(super) fn new(
        credentials: &Credentials,
        client_ufrag: Option<String>,
        seed: u64,
        now_ns: u64,
    ) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self {
            server_ufrag: credentials.ufrag.clone(),
            client_ufrag: client_ufrag.unwrap_or_else(|| ufrag(&mut rng)),
            key: StunKey::new(&credentials.password),
            tie_breaker: rng.u64(..),
            rng,
            asked: None,
            next_ns: now_ns,
            answered_ns: None,
            is_disconnected: false,
            restarts: 0,
            is_refused: false,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered_ns.is_some()
    }

    /// Appends a check to `out` if one is due, and returns true in that case.
    pub(super) fn poll_transmit(&mut self, now_ns: u64, out: &mut Vec<u8>) -> bool {
        if now_ns < self.next_ns {
            return false;
        }
        self.next_ns = now_ns + if self.is_answered() { CONSENT_EVERY_NS } else { CHECK_EVERY_NS };
        let is_silent = |answered_ns| now_ns.saturating_sub(answered_ns) > RESTART_AFTER_NS;
        if self.answered_ns.is_some_and(is_silent) && !self.is_disconnected {
            self.is_disconnected = true;
            self.restarts += 1;
        }
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
            controlling: Some(self.tie_breaker),
            use_candidate: true,
        }
        .write(out);
        true
    }

    /// Handles an answer. Answers with another password or to an older check are ignored.
    pub(super) fn handle(&mut self, datagram: &[u8], now_ns: u64) {
        let Ok(response) = Response::parse(datagram) else { return };
        if self.asked != Some(response.message.transaction()) {
            return;
        }
        match response.outcome {
            BindingOutcome::Mapped(_) if response.message.verify(&self.key).is_ok() => {
                self.answered_ns = Some(now_ns);
                self.is_disconnected = false;
                self.asked = None;
            }
            BindingOutcome::Mapped(_) => {}
            BindingOutcome::Refused(_) => self.is_refused = true,
        }
    }
}

#[cfg(test)]
mod tests;
