//! A replica at a standby: decisions that this gateway continues, and what a takeover needs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use evenkeel_media::srtp::SentBatch;
use evenkeel_model::SessionId;
use evenkeel_policies::PolicyRecords;

use super::{MediaRecord, Snapshot};
use crate::alerts::AlertsRecord;
use crate::history::EndedSession;
use crate::idempotency::KeyRecord;
use crate::operations::Operations;
use crate::session_urls::SessionUrlSecret;
use crate::{RecordBatch, Replica};

impl RecordBatch {
    /// The parts of the batch that its acknowledgement acknowledges.
    pub fn take_sent(&mut self) -> SentBatch {
        let copies = std::mem::take(&mut self.copies);
        SentBatch { follower: self.standby, number: self.number, copies }
    }
}

impl Snapshot {
    /// Gives sessions at workers these sockets, RTP before RTCP, and returns all in the order of the sessions.
    fn take_ports(
        &mut self,
        mut take: impl FnMut(SessionId, (u16, Option<u16>)) -> Vec<OwnedFd>,
    ) -> Vec<OwnedFd> {
        let entries = self.registry.sessions.iter();
        let numbers = entries.filter_map(|entry| Some((entry.session, entry.ports?)));
        let numbers: BTreeMap<SessionId, (u16, Option<u16>)> = numbers.collect();
        let mut descriptors = Vec::new();
        for MediaRecord { state, sockets } in &mut self.media {
            let numbers = numbers.get(&state.session);
            let own = numbers.map_or_else(Vec::new, |numbers| take(state.session, *numbers));
            *sockets = own.len() as u8;
            descriptors.extend(own);
        }
        descriptors
    }
}

impl Replica {
    /// The state of a gateway with these records, and the sockets of its sessions. A session has none if its ports are
    /// not free here.
    pub fn snapshot_with_ports(mut self) -> Option<(Snapshot, Vec<OwnedFd>)> {
        let mut ports = std::mem::take(&mut self.ports);
        let at = self.registry.as_ref()?.ports_at;
        let mut snapshot = self.snapshot()?;
        let descriptors = snapshot.take_ports(|session, numbers| {
            ports.reserve(session, at, numbers);
            ports.take(session)
        });
        Some((snapshot, descriptors))
    }

    /// The number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns whether all records have come.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Sessions have ports that are to be bound here: a clone reserves none.
    pub fn has_ports(&self) -> bool {
        self.ports.binds() && self.entries.values().any(|entry| entry.ports.is_some())
    }

    /// Something is to be taken: records of policies or of ended sessions, operations, alerts, or used tokens.
    pub fn has_news(&self) -> bool {
        !self.policies.is_empty()
            || !self.history.is_empty()
            || self.operations.is_some()
            || self.alerts.is_some()
            || !self.used_tokens.is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<KeyRecord> {
        self.idempotency_keys.records()
    }

    /// Takes the records of policies that changed, for [`Handle::restore_policies`](crate::Handle::restore_policies).
    pub fn take_policies(&mut self) -> PolicyRecords {
        std::mem::take(&mut self.policies)
    }

    /// Takes the records of ended sessions that came, for [`Handle::copy_history`](crate::Handle::copy_history).
    pub fn take_history(&mut self) -> Vec<EndedSession> {
        std::mem::take(&mut self.history)
    }

    /// Takes the operations in force, if they changed, for [`Handle::copy_operations`](crate::Handle::copy_operations).
    pub fn take_operations(&mut self) -> Option<Operations> {
        self.operations.take()
    }

    /// Takes the alerts that are being sent, if they changed, for [`Handle::copy_alerts`](crate::Handle::copy_alerts).
    pub fn take_alerts(&mut self) -> Option<AlertsRecord> {
        self.alerts.take()
    }

    /// Takes the ids of tokens that opened sessions, for [`UsedTokens::keep`](crate::UsedTokens::keep).
    pub fn take_used_tokens(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.used_tokens)
    }

    /// The secret of the URLs of the owner's sessions.
    pub fn url_secret(&self) -> Option<SessionUrlSecret> {
        self.registry.as_ref()?.url_secret
    }

    /// The bit rate that all sessions need, kbit/s.
    pub fn need_kbps(&self) -> u64 {
        self.sessions.values().map(|(session, media)| session.need_kbps(media)).sum()
    }

    /// Tries to bind the sessions' own ports that were not free here. Returns the lowest of those that are not free yet.
    pub fn taken_port(&mut self) -> Option<u16> {
        let at = self.registry.as_ref()?.ports_at;
        let entries = self.entries.values();
        let ports = entries.filter_map(|entry| Some((entry.session, entry.ports?)));
        let taken = ports.filter(|(session, numbers)| !self.ports.reserve(*session, at, *numbers));
        taken.map(|(_, (rtp, _))| rtp).min()
    }
}
