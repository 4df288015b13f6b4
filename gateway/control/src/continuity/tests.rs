use std::net::Ipv4Addr;

use evenkeel_config::GatewayConfig;
use evenkeel_core::Gateway;
use evenkeel_dataplane::flows::Flows;
use evenkeel_drivers::{Drivers, LocalSource};

use super::*;
use crate::registry::SessionRegistry;

type SuspensionAnswer = oneshot::Receiver<Result<Suspended, NotSuspended>>;

fn continuity() -> Continuity {
    let (lease, grant) = (SendLease::forever(), IndexGrant::new(0, Instant::now()));
    Continuity::new(
        Arc::default(),
        Arc::new(lease),
        Arc::new(grant),
        Store::default(),
        Arc::default(),
    )
}

fn begin(
    continuity: &mut Continuity,
    is_admitting: bool,
    awaits_policies: bool,
    now: Instant,
) -> SuspensionAnswer {
    let (reply, answer) = oneshot::channel();
    continuity.begin_suspension(reply, is_admitting, awaits_policies, now);
    answer
}

fn refusal(mut answer: SuspensionAnswer) -> NotSuspended {
    answer.try_recv().unwrap().unwrap_err()
}

/// The records of a gateway without sessions.
fn batch() -> RecordBatch {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let now = Instant::now();
    let flows = Arc::new(Flows::new(16));
    let registry = SessionRegistry::new(Vec::new(), None, flows, None, false, 1, Arc::default());
    let source = LocalSource::Bound(Ipv4Addr::LOCALHOST.into());
    RecordBatch::whole(Snapshot {
        core: Gateway::new(settings.core(), now).record(now),
        registry: registry.record(),
        drivers: Drivers::new(evenkeel_drivers::DRIVERS, source, Arc::default()).record(),
        media: Vec::new(),
        trunks: Vec::new(),
        next_offer: 1,
        idempotency_keys: Vec::new(),
        policies: Default::default(),
    })
}

#[test]
fn refused_suspension_names_its_reason() {
    let (mut continuity, now) = (continuity(), Instant::now());
    assert_eq!(refusal(begin(&mut continuity, false, false, now)), NotSuspended::Draining);
    assert_eq!(refusal(begin(&mut continuity, true, true, now)), NotSuspended::Starting);
    assert!(!continuity.holds_offers());
    let _first = begin(&mut continuity, true, false, now);
    assert_eq!(refusal(begin(&mut continuity, true, false, now)), NotSuspended::UnderWay);
    assert!(continuity.holds_offers() && !continuity.is_suspended());
}

#[test]
fn suspension_waits_for_offers_for_a_limited_time() {
    let now = Instant::now();
    for (age, is_late) in [(Duration::ZERO, false), (OFFERS_WITHIN, true)] {
        let mut continuity = continuity();
        let answer = begin(&mut continuity, true, false, now - age);
        assert!(continuity.is_suspension_due(true), "no offer is in flight");
        assert_eq!(continuity.is_suspension_due(false), is_late);
        assert!(!continuity.suspend(Err(NotSuspended::Busy)));
        assert_eq!(refusal(answer), NotSuspended::Busy);
        assert!(!continuity.holds_offers());
    }
}

#[tokio::test]
async fn suspension_ends_with_its_guard() {
    let mut continuity = continuity();
    let mut answer = begin(&mut continuity, true, false, Instant::now());
    assert!(continuity.suspend(Ok((batch(), Vec::new()))));
    assert!(continuity.is_suspended() && !continuity.is_restored());
    drop(answer.try_recv().unwrap().unwrap().guard);
    continuity.guard_dropped().await;
    assert!(continuity.end_suspension().unwrap().is_empty());
    assert!(continuity.end_suspension().is_none());
}

/// The caller that asked for the suspension has ended before the answer.
#[tokio::test]
async fn suspension_without_a_caller_ends_at_once() {
    let mut continuity = continuity();
    drop(begin(&mut continuity, true, false, Instant::now()));
    assert!(continuity.suspend(Ok((batch(), Vec::new()))));
    continuity.guard_dropped().await;
}
