//! Parts of a turn of control, without workers and nodes.

use std::net::Ipv4Addr;
use std::path::Path;

use evenkeel_config::{
    DriverKey, DriverKeys, DriverKind, DriverSettings, NodeConfig, NodeProbe, Signalling,
};
use evenkeel_dataplane::flows::Flows;
use evenkeel_drivers::{
    ContinuedSession, Driver, DriverContext, DriverTable, DriversRecord, LocalSource, NodeDriver,
    OpenRequest, RecordScope, kinds,
};
use evenkeel_media::trunk::message::{NodeLoad, ServingState};
use evenkeel_model::{
    CoreEvent, DecisionOutcome, GatewayLimits, Hop, Incarnation, IngressProtocol, MediaDescription,
    Offer, OfferId, PluginFault, RtcpPort, Srtp,
};

use super::*;
use crate::history::LeftSessions;

type Events = broadcast::Receiver<Arc<EventRecord>>;

/// Control of this core, on which no policy runs, and its events.
fn control(settings: GatewayConfig, gateway: Gateway) -> (Control, Events) {
    control_with(evenkeel_drivers::DRIVERS, settings, gateway)
}

/// The same with these drivers.
fn control_with(
    drivers: DriverTable,
    settings: GatewayConfig,
    gateway: Gateway,
) -> (Control, Events) {
    let (events, told) = broadcast::channel(64);
    let (fencing, lease) = (Arc::<Fencing>::default(), Arc::new(SendLease::forever()));
    let grant = Arc::new(IndexGrant::new(0, Instant::now()));
    let flows = Arc::new(Flows::new(16));
    let policies = PolicyThreads::new(Vec::new(), &GatewayLimits::default(), mpsc::channel(1).0);
    let (kept, socket) = (Store::default(), Path::new("/admin.sock"));
    let history = HistoryWriter::start(&kept, None, socket, "host".into(), LeftSessions::Ended);
    let registry = SessionRegistry::new(Vec::new(), None, flows, None, false, 1, Arc::default());
    let source = LocalSource::Bound(Ipv4Addr::LOCALHOST.into());
    let parts = ControlParts {
        settings: Arc::new(settings),
        gateway,
        workers: Vec::new(),
        registry,
        drivers: Drivers::new(drivers, source, Arc::clone(&fencing)),
        fencing,
        lease,
        grant,
        equipment: Vec::new(),
        posts: false,
        policies,
        requests: mpsc::channel(1).1,
        reports: mpsc::channel(1).1,
        policy_reports: mpsc::channel(1).1,
        events,
        history,
        operations: OperationLog::default(),
        kept,
        names: Arc::default(),
        idempotency_keys: Arc::default(),
        is_replaced: Arc::default(),
        quic_counters: None,
        handshakes: Arc::new(WorkerStats::new(Instant::now(), 0)),
        awaits_policies: false,
        started: Instant::now(),
    };
    (Control::new(parts).unwrap().0, told)
}

/// The question's time is over when control comes to execute it.
#[test]
fn outputs_are_executed_before_timers() {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let asked = Instant::now() - Duration::from_secs(1);
    let mut gateway = Gateway::new(settings.core(), asked);
    let media = MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain);
    let offer = Offer {
        id: OfferId(1),
        // Its embedded policy set has policies.
        scenario: "call".into(),
        room: "r".into(),
        labels: Vec::new().into(),
        ingress: IngressProtocol::Quic,
        media: Arc::new(media),
    };
    gateway.handle_offer(offer, asked);
    let (mut control, mut told) = control(settings, gateway);
    control.drain();
    let records = std::iter::from_fn(|| told.try_recv().ok());
    let mut outcomes = records.filter_map(|record| match &record.event {
        GatewayEvent::Core(CoreEvent::Decided { outcome, .. }) => Some(outcome.clone()),
        _ => None,
    });
    let absent = DecisionOutcome::Faulted(PluginFault::Absent);
    assert_eq!(outcomes.next(), Some(absent), "and not late");
}

/// A driver that answers the number of sessions that an agent reports.
struct Counting;

/// The session at which it answers.
const LOST: SessionId = SessionId(7);

impl DriverKind for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const { &[DriverKey::new("address")] }
    }

    fn read(&self, _keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        Some(DriverSettings::new(self.name(), NodeProbe::None, Signalling::None))
    }
}

impl Driver for Counting {
    fn start(
        &self,
        node: NodeId,
        _config: &NodeConfig,
        _context: &DriverContext,
    ) -> Box<dyn NodeDriver> {
        Box::new(CountingNode(Hop { node, incarnation: Incarnation(0) }))
    }
}

struct CountingNode(Hop);

impl NodeDriver for CountingNode {
    fn open(
        &mut self,
        _request: &OpenRequest<'_>,
        _draw: &mut dyn FnMut() -> u64,
        _clock: Clock,
    ) -> Option<DriverAction> {
        None
    }

    fn close(&mut self, _session: SessionId, _hop: Hop, _clock: Clock) -> Option<DriverAction> {
        None
    }

    fn handle(
        &mut self,
        input: NodeInput,
        _draw: &mut dyn FnMut() -> u64,
        _clock: Clock,
    ) -> Option<DriverAction> {
        let (session, hop, reason) = (LOST, self.0, "lost".into());
        let refused = DriverAction::Refused { session, hop, unwilling: false, reason };
        (input == NodeInput::Sessions(3)).then_some(refused)
    }

    fn poll(&mut self, _clock: Clock) -> Option<DriverAction> {
        None
    }

    fn record(&self, _scope: RecordScope, _record: &mut DriversRecord) {}

    fn restore(
        &mut self,
        _record: DriversRecord,
        _known: &ContinuedSession<'_>,
        _draw: &mut dyn FnMut() -> u64,
        _now: Instant,
    ) {
    }
}

#[test]
fn action_after_reported_sessions_is_executed() {
    const DRIVERS: DriverTable = &[&Counting];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    let node = "[[node]]\nname = \"n1\"\nregion = \"local\"\nzone = \"a\"\ncapacity = \"1 Mbit/s\"\ndriver = \"counting\"\naddress = \"10.0.0.9:9\"\n";
    std::fs::write(&file, node).unwrap();
    let settings = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap();
    let (node, now) = (settings.nodes[0].clone(), Instant::now());
    let gateway = Gateway::new(settings.core(), now);
    let (mut control, mut told) = control_with(DRIVERS, settings, gateway);
    let (probe, agent, canary) = (None, None, None);
    let equipment = Equipment { probe, agent, canary, trunks: Vec::new(), duplicates: Vec::new() };
    control.nodes.equip(NodeId(0), Arc::new(node), equipment);
    let load = NodeLoad { permille: 0, state: ServingState::Serving, sessions: 3, vouched: true };
    let state = |beside| ProbeResult::State { node: NodeId(0), beside, load, at: now };
    control.handle_probe_result(state(true));
    assert!(told.try_recv().is_err(), "sessions beside the node are no input of its driver");
    control.handle_probe_result(state(false));
    let event = told.try_recv().unwrap();
    assert!(
        matches!(&event.event, GatewayEvent::NotOpened { session: LOST, .. }),
        "{:?}",
        event.event
    );
}

#[test]
fn gateway_ends_once_all_sessions_are_closed() {
    let mut lifetime = Lifetime::Serving;
    lifetime.handle_all_closed();
    lifetime.end_closed();
    assert!(!lifetime.has_ended(), "no shutdown was asked for");
    let ask = |lifetime: &mut Lifetime| {
        let (reply, ended) = oneshot::channel();
        lifetime.shut_down(reply);
        ended
    };
    let mut first = ask(&mut lifetime);
    lifetime.end_closed();
    assert!(!lifetime.has_ended() && first.try_recv().is_err(), "the core has sessions");
    lifetime.handle_all_closed();
    let mut second = ask(&mut lifetime);
    lifetime.end_closed();
    assert!(lifetime.has_ended());
    assert_eq!((first.try_recv(), second.try_recv()), (Ok(()), Ok(())));
}
