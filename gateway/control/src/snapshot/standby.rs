//! A replica at a standby: operations that this gateway continues, and what a takeover needs.

use crate::Replica;
use crate::operations::Operations;

impl Replica {
    /// Takes the operations in force, if they changed, for [`Handle::copy_operations`](crate::Handle::copy_operations).
    pub fn take_operations(&mut self) -> Option<Operations> {
        self.operations.take()
    }

    /// The sum of the bit rates that the sessions' streams declare, kbit/s.
    pub fn declared_kbps(&self) -> u64 {
        let streams = self.sessions.values().flat_map(|(_, media)| &media.streams);
        streams.filter_map(|stream| stream.bitrate_kbps).map(u64::from).sum()
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
