//! Nodes without signalling: any media server. Sessions are separated by the source of their packets.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_config::{DriverKey, DriverKeys, DriverKind, DriverSettings, NodeConfig, Signalling};
use evenkeel_dataplane::worker::{NodeLeg, NodePort};
use evenkeel_model::{Hop, NodeId, SessionId};

use crate::driver::{Driver, DriverContext, NodeDriver, NodeInput, RecordScope};
use crate::record::DriversRecord;
use crate::session::{Clock, ContinuedSession, DriverAction, OpenRequest, ports};

pub(crate) struct Plain;

impl DriverKind for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const { &[DriverKey::new("address"), DriverKey::new("probe")] }
    }

    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let probe = keys.probe();
        let settings = DriverSettings::new(self.name(), probe, Signalling::None);
        Some(settings.showing("probe", probe.name()))
    }
}

impl Driver for Plain {
    fn start(
        &self,
        _node: NodeId,
        config: &NodeConfig,
        _context: &DriverContext,
    ) -> Box<dyn NodeDriver> {
        Box::new(PlainNode { address: config.address })
    }
}

struct PlainNode {
    address: SocketAddr,
}

impl NodeDriver for PlainNode {
    /// Opens the session at the node's configured address, or at one that the offer names.
    fn open(
        &mut self,
        request: &OpenRequest<'_>,
        _draw: &mut dyn FnMut() -> u64,
        _clock: Clock,
    ) -> Option<DriverAction> {
        let &OpenRequest { session, hop, address, rtcp_apart, .. } = request;
        let (address, rtcp) = ports(address.unwrap_or(self.address), rtcp_apart);
        let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: rtcp.port() }));
        Some(DriverAction::Opened { session, hop, leg })
    }

    fn close(&mut self, _session: SessionId, _hop: Hop, _clock: Clock) -> Option<DriverAction> {
        None
    }

    fn handle(
        &mut self,
        _input: NodeInput,
        _draw: &mut dyn FnMut() -> u64,
        _clock: Clock,
    ) -> Option<DriverAction> {
        None
    }

    fn poll(&mut self, _clock: Clock) -> Option<DriverAction> {
        None
    }

    /// The node knows of no session.
    fn record(&self, _scope: RecordScope, _record: &mut DriversRecord) {}

    fn restore(
        &mut self,
        _record: DriversRecord,
        _known: &ContinuedSession<'_>,
        _draw: &mut dyn FnMut() -> u64,
        _now: Instant,
    ) {
    }

    fn shared_address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}
