//! Parts of a turn of control, without workers and nodes.

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
    let registry = SessionRegistry::new(Vec::new(), None, flows, None, false, 1, Arc::default());
    let source = LocalSource::Bound(Ipv4Addr::LOCALHOST.into());
    let parts = ControlParts {
        settings: Arc::new(settings),
        gateway,
        workers: Vec::new(),
        registry,
        drivers: Drivers::new(evenkeel_drivers::DRIVERS, source, Arc::clone(&fencing)),
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
        history: history.unwrap(),
        operations: OperationLog::default(),
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
