//! Proof that a client with identity `stun` receives at an address.
//!
//! A check proves that its sender knows the session's password. It does not prove that the sender is at the source address, since
//! a client can forge the source of its own checks and aim its session's media at another host. As QUIC does before it has
//! validated an address (RFC 9000, section 8.1), the gateway then sends at most three times what it receives from there. The
//! client proves that it receives at the address by one of these:
//!
//! - An answer to the gateway's check. Every agent answers checks (RFC 8445, section 7.3), also with an error (RFC 8489, section
//!   9.1.3). Only a receiver at the address can know the transaction.
//! - A report that names a sender report to the address. A participant of the room may know the time in the node's report, so
//!   reports to the address have a time that is shifted by a secret; other receivers of a stream do not learn it.

use std::time::Instant;

use evenkeel_media::rtcp::rewrite;
use evenkeel_media::stun::{self, StunKey, Username};
use evenkeel_model::forward::DropReason;

use super::address::CONSENT;
use super::packets::reports;
use super::{PacketContext, WorkerSession};
use crate::flows::CHECKED_FOR;
use crate::worker::sockets::{RtpSide, SourceKey};

impl WorkerSession {
    /// Returns the time until which no other session's check takes this address, if the client was heard there now.
    pub(crate) fn holds_until(&self, source: SourceKey, now: Instant) -> Instant {
        let is_checked = self.address.checked().contains(&source);
        let is_proved = is_checked && !self.address.is_unproved(source);
        now + if is_proved { CONSENT } else { CHECKED_FOR }
    }

    /// Counts a datagram from the client.
    #[inline]
    pub(crate) fn count_received(&mut self, source: SourceKey, datagram: &[u8]) {
        if let Some(address) = self.address.unproved(source) {
            address.receive(datagram.len());
        }
    }

    /// Counts the answer to a check.
    pub(crate) fn count_answer(&mut self, to: SourceKey, answer: &[u8]) {
        if let Some(address) = self.address.unproved(to) {
            address.note_sent(answer.len());
        }
    }

    /// Replaces `out` by a check of the address from which a check came, unless it is proved or the limit is reached. Returns
    /// whether it did. `username` and `key` are those of the client's check: the session's password is used where the
    /// client's is unknown, and the client's error is an answer, too.
    pub(crate) fn write_check(
        &mut self,
        to: SourceKey,
        Username { server_ufrag, client_ufrag }: Username<'_>,
        key: StunKey,
        out: &mut Vec<u8>,
    ) -> bool {
        if !self.address.is_unproved(to) {
            return false;
        }
        let password = self.state.as_deref().and_then(|state| state.srtp.client_password());
        let key = password.map_or(key, StunKey::new);
        let username = Username { server_ufrag: client_ufrag, client_ufrag: server_ufrag };
        let transaction = self.address.secret(to).transaction;
        out.clear();
        stun::write_check(transaction, username, &key, out);
        let address = self.address.unproved(to);
        address.is_some_and(|address| address.may_send(RtpSide::Rtcp, out.len()))
    }

    /// Handles an answer to the gateway's check. Returns whether it proves the address.
    pub(crate) fn handle_check_answer(
        &mut self,
        from: SourceKey,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let Ok(answer) = stun::Response::parse(datagram) else {
            cx.egress.count_drop(DropReason::Malformed);
            return false;
        };
        // A retransmission, or the answer to one.
        if !self.address.is_unproved(from) {
            return false;
        }
        if answer.message.transaction() != self.address.secret(from).transaction {
            cx.egress.count_drop(DropReason::BadIntegrity);
            return false;
        }
        self.prove(from, cx);
        true
    }

    /// Reads the reports in RTCP of the client. Returns whether they prove the address.
    pub(crate) fn read_reports(
        &mut self,
        from: SourceKey,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let Some(address) = self.address.unproved(from).filter(|_| self.media.srtp.is_readable())
        else {
            return false;
        };
        let sent = &address.reports;
        let names = |last_sr: u32| sent.iter().any(|report| report.sent == last_sr);
        let is_proved = reports(packet).any(|block| names(block.last_sr));
        if is_proved {
            self.prove(from, cx);
        }
        is_proved
    }

    fn prove(&mut self, source: SourceKey, cx: &PacketContext<'_>) {
        self.address.prove(source);
        self.uncopied = true;
        cx.egress.note_changed(self.home);
    }

    /// Shifts the times of sender reports to an address that is not proved.
    pub(super) fn shift_reports(&mut self, compound: &mut [u8]) {
        let Some(to) = self.address.rtcp().filter(|to| self.address.is_unproved(*to)) else {
            return;
        };
        let shift = self.address.secret(to).shift;
        if let Some(address) = self.address.unproved(to) {
            address.shift_reports(compound, shift);
        }
    }

    /// Gives the client's reports the times of the node's sender reports.
    pub(super) fn restore_reports(&self, compound: &mut [u8]) {
        if self.address.shifted().next().is_none() {
            return;
        }
        rewrite::replace_last_reports(compound, |last_sr| {
            let mut shifted = self.address.shifted();
            shifted.find(|it| it.sent == last_sr).map_or(last_sr, |it| it.original)
        });
    }
}
