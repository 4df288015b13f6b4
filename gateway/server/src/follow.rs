//! Turns events and counters into metrics, spans and log lines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::Traceparent;
use evenkeel_control::{ControlError, EventRecord, GatewayEvent, Handle, NodeNames, StatusReport};
use evenkeel_core::NodeStanding;
use evenkeel_telemetry::registry::{Attribute, Count, Level};
use evenkeel_telemetry::{CallerTrace, EventRecorder, Instruments, Moment, NodeLevel, Telemetry};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Interval at which counters and states are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// Records all events.
pub(super) struct Follower {
    events: Receiver<Arc<EventRecord>>,
    recorder: EventRecorder,
    instruments: Arc<Instruments>,
    trust: Traceparent,
}

impl Follower {
    pub(super) fn new(
        events: Receiver<Arc<EventRecord>>,
        names: Arc<NodeNames>,
        telemetry: &Telemetry,
        trust: Traceparent,
    ) -> Follower {
        let (recorder, instruments) = (telemetry.recorder(names), telemetry.instruments());
        Follower { events, recorder, instruments, trust }
    }

    /// Records events until control ends.
    pub(super) async fn follow(&mut self) {
        loop {
            match self.events.recv().await {
                Ok(told) => self.record(&told),
                Err(RecvError::Lagged(missed)) => self.missed(missed),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Records the remaining events after the gateway has ended, such as the ends of its last sessions.
    pub(super) fn finish(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(told) => self.record(&told),
                Err(TryRecvError::Lagged(missed)) => self.missed(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.instruments.level(Level::SessionsActive, 0, &[]);
    }

    fn missed(&self, missed: u64) {
        tracing::warn!(missed, "telemetry fell behind and missed events");
        let labels = [(Attribute::Signal, "events"), (Attribute::Reason, "behind")];
        self.instruments.count(Count::TelemetryDropped, missed, &labels);
    }

    fn record(&mut self, told: &EventRecord) {
        let at = Moment::now();
        let caller = told.caller.as_ref().map(|caller| {
            CallerTrace::new(caller.arrived, caller.traceparent.as_deref(), None, self.trust)
        });
        match &told.event {
            GatewayEvent::Core(event) => self.recorder.handle_event(event, caller.as_ref(), at),
            GatewayEvent::TurnedAway { scenario, reason, session } => {
                let caller = caller.as_ref();
                self.recorder.handle_turned_away(scenario, reason, *session, caller, at);
            }
            GatewayEvent::Rollout(rollout) => self.recorder.handle_rollout(rollout, at),
            GatewayEvent::NotOpened { session, node, reason } => {
                self.recorder.handle_not_opened(*session, *node, reason, at);
            }
            GatewayEvent::NodeList(told) => self.recorder.handle_node_list(told),
            GatewayEvent::NodeRemoved { node, name } => self.recorder.handle_node_gone(*node, name),
            // Workers count shed packets; the event is for observers of single packets.
            GatewayEvent::Shed { .. } => {}
        }
    }
}

/// Turns counters and states into metrics.
pub(super) struct CounterFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    before: BTreeMap<(Count, &'static str), u64>,
}

impl CounterFollower {
    pub(super) fn new(handle: Handle, instruments: Arc<Instruments>) -> CounterFollower {
        CounterFollower { handle, instruments, before: BTreeMap::new() }
    }

    /// Runs until control ends.
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
            self.instruments.level(Level::PolicyFailing, 0, &[(Attribute::Policy, &policy)]);
        }
    }

    /// Reads the current states instead of summing up events, since some events may have been missed.
    async fn read(&mut self) -> Result<(), ControlError> {
        let names = self.handle.names();
        let nodes = self.handle.nodes().await?.into_iter().map(|node| {
            let NodeStanding { hop, leaves: leaving, health, draining, .. } = node;
            (hop.node, NodeLevel { name: names.of_hop(hop).node, leaving, health, draining })
        });
        self.instruments.nodes().set(nodes);
        let status = self.handle.status().await?;
        self.instruments.level(Level::SessionsActive, status.sessions as i64, &[]);
        self.count(&status);
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
                    self.instruments.level(Level::QuicConnections, counted as i64, &[]);
                }
                "attached" => self.instruments.level(Level::QuicSessions, counted as i64, &[]),
                what => self.add(Count::QuicCounts, Attribute::Event, what, counted),
            }
        }
    }

    /// Adds the difference to the last total.
    fn add(&mut self, count: Count, attribute: Attribute, value: &'static str, total: u64) {
        let last = self.before.insert((count, value), total).unwrap_or(0);
        self.instruments.count(count, total.saturating_sub(last), &[(attribute, value)]);
    }
}

#[cfg(test)]
mod tests;
