//! Parts of a turn of control, without workers and nodes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use evenkeel_dataplane::flows::Flows;
use evenkeel_drivers::LocalSource;
use evenkeel_model::{
    CoreEvent, DecisionOutcome, GatewayLimits, IngressProtocol, MediaDescription, Offer, OfferId,
    PluginFault, RtcpPort, Srtp,
};

use super::*;
use crate::history::LeftSessions;

type Events = broadcast::Receiver<Arc<EventRecord>>;

/// Control of this core, on which no policy runs, and its events.
fn control(settings: GatewayConfig, gateway: Gateway) -> (Control, Events) {
    let (events, told) = broadcast::channel(64);
    let (fencing, lease) = (Arc::<Fencing>::default(), Arc::new(SendLease::forever()));
    let grant = Arc::new(IndexGrant::new(0, Instant::now()));
    let flows = Arc::new(Flows::new(16));
    let policies = PolicyThreads::new(Vec::new(), &GatewayLimits::default(), mpsc::channel(1).0);
    let history = HistoryWriter::start(
        None,
        Path::new("/admin.sock"),
        "host".into(),
        LeftSessions::Ended,
        Default::default(),
    );
    let control = Control {
        settings: Arc::new(settings),
        gateway,
        registry: SessionRegistry::new(Vec::new(), None, flows, None, false, 1, Arc::default()),
        workers: WorkerLines {
            lines: Vec::new(),
            handshakes: Arc::new(WorkerStats::new(Instant::now(), 0)),
            quic_counters: None,
            to_wake: BTreeSet::new(),
        },
        signalling: NodeSignalling {
            drivers: Drivers::new(
                LocalSource::Bound(Ipv4Addr::LOCALHOST.into()),
                Arc::clone(&fencing),
            ),
            ng_sockets: Vec::new(),
            ng_replies: mpsc::channel(1).0,
            poster: None,
            webhook_replies: mpsc::channel(1).0,
            node_hooks: NodeHooks::new(mpsc::channel(1).0, None, false),
        },
        probes: Probes::new(mpsc::channel(1).0, Arc::clone(&fencing)),
        replication: Replication::new(fencing, lease, grant),
        nodes: NodeResources::default(),
        policies: PolicyRunner::new(policies, BTreeMap::new(), events.clone()),
        reporting: Reporting {
            events,
            history: history.unwrap(),
            names: Arc::default(),
            closing: Closings::default(),
            costs: Costs::default(),
            forecasts: Vec::new(),
            lists: VecDeque::new(),
        },
        offers: OfferQueue::new(Arc::default(), 0, false),
        lifetime: Lifetime {
            started: Instant::now(),
            shutdown_replies: Vec::new(),
            core_finished: false,
            finished: false,
            last_reload: None,
            is_replaced: Arc::default(),
        },
    };
    (control, told)
}

/// The question's time is over when control comes to execute it.
#[test]
fn outputs_are_executed_before_timers() {
    let settings = GatewayConfig::load(None, None).unwrap();
    let asked = Instant::now() - Duration::from_secs(1);
    let mut gateway = Gateway::new(settings.core(), asked);
    let media = MediaDescription { streams: Vec::new(), rtcp: RtcpPort::Mux, srtp: Srtp::Plain };
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
