use super::*;

impl Snapshot {
    /// Leaves out the hops that rooms have left since they were recorded.
    pub(crate) fn without_left_hops(mut self) -> Snapshot {
        let now = Instant::now();
        for room in &mut self.core.rooms {
            room.leaving = room.leaving.filter(|(_, until)| now < *until);
        }
        self
    }
}

impl RecordBatch {
    /// The sessions to which descriptors belong, in their order.
    pub(crate) fn with_sockets(&self) -> Vec<SessionId> {
        self.changed.with_sockets()
    }

    /// The states of policies in the records of sessions.
    pub(crate) fn policy_states(&self) -> Vec<String> {
        let states = self.changed.core.sessions.iter().map(|session| {
            let text = format!("{session:?}");
            text[text.find("memory:").expect("a record has states of policies")..].to_owned()
        });
        states.collect()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.changed.core.sessions.len().max(self.changed.media.len())
    }
}
