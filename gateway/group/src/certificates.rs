//! The owner's certificates at its standby, so that clients meet the same ones after a takeover. They travel beside the records.

use evenkeel_control::{CertificateChannels, CertificatesRecord};

/// The member's end of the exchange.
#[derive(Debug)]
pub(super) struct CertificateExchange {
    channels: CertificateChannels,
    is_sent: bool,
}

impl CertificateExchange {
    pub(super) fn new(channels: CertificateChannels) -> CertificateExchange {
        CertificateExchange { channels, is_sent: false }
    }

    /// Another standby has none yet.
    pub(super) fn begin(&mut self) {
        self.is_sent = false;
    }

    /// The certificates for the standby, unless it has them.
    pub(super) fn next_part(&mut self) -> Option<CertificatesRecord> {
        let own = &mut self.channels.own;
        // Fails only if the gateway ends.
        let is_due = !self.is_sent || own.has_changed().unwrap_or(false);
        is_due.then(|| {
            self.is_sent = true;
            own.borrow_and_update().clone()
        })
    }

    /// Passes the owner's certificates on. The thread of the group reads and writes no file.
    pub(super) fn take(&self, certificates: CertificatesRecord) {
        self.channels.copied.send_replace(Some(certificates));
    }
}

#[cfg(test)]
mod tests;
