//! Turns counters and states into metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{ControlError, Handle, StatusReport};
use evenkeel_core::NodeStanding;
use evenkeel_group::Group;
use evenkeel_telemetry::registry::{Attribute, Count, Level};
use evenkeel_telemetry::{Instruments, NodeLevel, NodeLoad};

/// Interval at which counters and states are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// Turns counters and states into metrics.
pub(super) struct CounterFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    group: Option<Group>,
    before: BTreeMap<(Count, &'static str), u64>,
}

impl CounterFollower {
    pub(super) fn new(
        handle: Handle,
        instruments: Arc<Instruments>,
        group: Option<Group>,
    ) -> CounterFollower {
        CounterFollower { handle, instruments, group, before: BTreeMap::new() }
    }

    pub(super) async fn follow(&mut self) {
        let mut every = tokio::time::interval(COUNTERS_EVERY);
        loop {
            every.tick().await;
            if self.read().await.is_err() {
                return;
            }
        }
    }

    /// Reports the state of each policy once before the first event, even without a fault. Later changes come as
    /// events.
    pub(super) async fn begin(&self) {
        for view in self.handle.policies().await.unwrap_or_default() {
            let policy = view.policy.to_string();
            self.instruments.level(Level::PolicyFailing, 0.0, &[(Attribute::Policy, &policy)]);
        }
    }

    /// Reads the current states instead of summing up events, since some events may have been missed.
    async fn read(&mut self) -> Result<(), ControlError> {
        let names = self.handle.names();
        let nodes = self.handle.nodes().await?.into_iter().map(|node| {
            let NodeStanding { hop, leaves: leaving, health, draining, rooms, round_trip, .. } =
                node;
            let share = f64::from(node.load_permille) / 1_000.0;
            let load = Some(NodeLoad { share, rooms, round_trip });
            let name = names.of_hop(hop).node;
            (hop.node, NodeLevel { name, leaving, health, draining, load })
        });
        self.instruments.nodes().set(nodes);
        let status = self.handle.status().await?;
        self.instruments.level(Level::SessionsActive, status.sessions as f64, &[]);
        self.count(&status);
        if let Some(group) = &self.group {
            let (role, _) = group.role();
            self.instruments.level(Level::GroupRole, f64::from(role as u32), &[]);
            let warnings = group.status().warnings.len() as f64;
            self.instruments.level(Level::GroupWarnings, warnings, &[]);
        }
        for (reason, refused) in self.handle.tokens_refused.by_reason() {
            self.add(Count::ApiTokensRefused, Attribute::Reason, reason, refused);
        }
        Ok(())
    }

    fn count(&mut self, status: &StatusReport) {
        for (count, up, down) in [
            (Count::Packets, status.packets_to_node, status.packets_to_client),
            (Count::Bytes, status.bytes_to_node, status.bytes_to_client),
            (Count::KeyFrameRequests, status.key_frames_to_node, status.key_frames_to_client),
        ] {
            self.add(count, Attribute::Direction, "up", up);
            self.add(count, Attribute::Direction, "down", down);
        }
        for (&reason, &dropped) in &status.drops {
            self.add(Count::PacketsDropped, Attribute::Reason, reason, dropped);
        }
        for (&reason, &refused) in &status.messages_refused {
            self.add(Count::NodeMessagesRefused, Attribute::Reason, reason, refused);
        }
        for (&what, &counted) in &status.quic_counts {
            match what {
                "connections" => {
                    self.instruments.level(Level::QuicConnections, counted as f64, &[]);
                }
                "attached" => self.instruments.level(Level::QuicSessions, counted as f64, &[]),
                what => self.add(Count::QuicCounts, Attribute::Event, what, counted),
            }
        }
    }

    fn add(&mut self, count: Count, attribute: Attribute, value: &'static str, total: u64) {
        let last = self.before.insert((count, value), total).unwrap_or(0);
        self.instruments.count(count, total.saturating_sub(last), &[(attribute, value)]);
    }
}

#[cfg(test)]
mod tests;
