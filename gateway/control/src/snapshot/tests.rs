use evenkeel_drivers::{DriversRecord, DriversReplica};
use evenkeel_kept::{Encoded, KeptPart};
use evenkeel_model::{
    AdmitOnFault, Affinity, BreakerMode, CapBounds, ClientGroup, ClientLabel, DegradeOnFault,
    FailureScope, RedundancyMode, Scenario, ServiceObjective, SessionId,
};

use super::*;
use crate::records::SloCopies;
use crate::{RecordBatch, Replica};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// Bytes of a session's records in core and registry.
const SESSION_MAX: usize = 1_024;

fn fixture(name: &str) -> RecordBatch {
    let encoded = std::fs::read(format!("{FIXTURES}/snapshots/{name}")).unwrap();
    decode(&encoded, None).unwrap()
}

fn snapshot(name: &str) -> Snapshot {
    let mut replica = Replica::new();
    replica.apply(fixture(name)).unwrap();
    replica.snapshot().unwrap()
}

/// Times shift by the precision of a reading of the clock.
fn without_times(value: &impl std::fmt::Debug) -> Vec<String> {
    let text = format!("{value:?}");
    let parts = text.split("Instant {");
    let parts = parts.map(|part| part.split_once('}').map_or(part, |(_, rest)| rest).to_owned());
    parts.collect()
}

#[test]
fn snapshot_of_an_earlier_build_loads() {
    let of = snapshot("v2");
    let entries = of.registry.sessions.iter();
    let ids: Vec<SessionId> = entries.map(|session| session.session).collect();
    let in_core: Vec<SessionId> = of.core.sessions.iter().map(|session| session.id).collect();
    assert_eq!(ids, in_core);
    assert_eq!(ids.len(), 6);
    assert_eq!(of.media.len(), ids.len());
    assert_eq!(of.idempotency_keys.len(), 1);
}

#[test]
fn encoding_returns_the_same_state() {
    let v2 = fixture("v2");
    let again: RecordBatch = decode(&encode(&v2), None).unwrap();
    assert_eq!(without_times(&again)[1..], without_times(&v2)[1..]);
}

/// States with all options set.
fn last_states(reference: Instant) -> MediaStates {
    let encoded = std::fs::read(format!("{FIXTURES}/states/full")).unwrap();
    decode(&encoded, Some(reference)).unwrap()
}

#[test]
fn layout_of_last_states_has_its_number() {
    let reference = Instant::now();
    let states = last_states(reference);
    let written = instant::relative_to(reference, || states.write(Vec::new()));
    let file = format!("{FIXTURES}/states/v{STATES}");
    if std::env::var_os("EVENKEEL_RENEW").is_some() {
        std::fs::write(&file, &written).unwrap();
    }
    let known = std::fs::read(&file).unwrap();
    assert!(
        written == known,
        "the layout changed: set the new field in states/full, raise STATES, write states/v{STATES}"
    );
}

#[test]
fn last_states_in_postcard_are_the_same() {
    let states = last_states(Instant::now());
    let read = MediaStates::decode(&states.encode(Some(STATES))).unwrap();
    assert_eq!(without_times(&read), without_times(&states));
    assert_eq!(read.media.len(), 3);
}

#[test]
fn other_layout_is_sent_in_messagepack() {
    let states = last_states(Instant::now());
    for other in [None, Some(STATES - 1), Some(STATES + 1)] {
        let encoded = states.encode(other);
        assert!(encoded.starts_with(MAGIC), "{other:?}");
        let read = MediaStates::decode(&encoded).unwrap();
        assert_eq!(without_times(&read), without_times(&states));
    }
}

#[test]
fn last_states_of_another_layout_are_refused() {
    let encoded = last_states(Instant::now()).encode(Some(STATES));
    let of = |layout: u32| [&encoded[..8], &layout.to_be_bytes(), &encoded[12..]].concat();
    let refused = |bytes: &[u8]| MediaStates::decode(bytes).unwrap_err();
    let newer = SnapshotError::Newer { found: STATES + 1, known: STATES };
    assert_eq!(refused(&of(STATES + 1)), newer);
    assert_eq!(refused(&of(STATES - 1)), SnapshotError::malformed("it has an older format"));
    let longer = [&encoded[..], &[0]].concat();
    assert_eq!(refused(&longer), SnapshotError::malformed("bytes follow its end"));
    for length in [8, 12, 20, encoded.len() / 2, encoded.len() - 1] {
        let refused = refused(&encoded[..length]).to_string();
        assert!(refused.starts_with("the state cannot be read: "), "{refused}");
    }
}

#[test]
fn session_takes_at_most_a_kibibyte() {
    let v2 = snapshot("v2");
    let size = |part: &dyn Fn(&mut rmp_serde::Serializer<&mut Vec<u8>, _>)| {
        let mut bytes = Vec::new();
        part(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
        bytes.len()
    };
    let now = Instant::now();
    for (core, registry) in v2.core.sessions.iter().zip(&v2.registry.sessions) {
        let bytes = instant::relative_to(now, || {
            size(&|to| core.serialize(to).unwrap()) + size(&|to| registry.serialize(to).unwrap())
        });
        assert!(bytes <= SESSION_MAX, "{} takes {bytes} bytes", core.id);
    }
}

#[test]
fn garbage_and_newer_formats_are_refused() {
    let refused = |bytes: &[u8]| decode::<RecordBatch>(bytes, None).unwrap_err().to_string();
    let cut = "the state cannot be read: it does not begin as a state of a gateway";
    assert_eq!(refused(b""), cut);
    assert_eq!(refused(b"evenkeel"), cut);
    assert_eq!(refused(b"another file of some length"), cut);
    let newer = [&MAGIC[..], &[0, 0, 0, 9], &[0; 8], b"what comes then is unknown"].concat();
    assert_eq!(refused(&newer), "the state has format 9, this version reads formats up to 2");
    let older = [&MAGIC[..], &[0, 0, 0, 1], &[0; 8], b"what comes then is unknown"].concat();
    assert_eq!(refused(&older), "the state cannot be read: it has an older format");
    let garbage = [&MAGIC[..], &FORMAT.to_be_bytes(), &[0; 8], &[0xc1; 64]].concat();
    assert!(refused(&garbage).starts_with("the state cannot be read: "));
}

fn alerts() -> AlertsRecord {
    let sent = crate::SentAlertRecord {
        receiver: "ops".into(),
        fired_us: 1,
        at_us: 2,
        is_delivered: true,
        resolved_us: None,
    };
    let alert = crate::AlertRecord {
        alert: "EvenkeelNodeDown".into(),
        labels: [("evenkeel_node".to_owned(), "a".to_owned())].into(),
        value: 3.0,
        fired_us: Some(1),
        acknowledged: Some(crate::AcknowledgementRecord { by: None, at_us: 3 }),
        sent: vec![sent],
    };
    AlertsRecord { alerts: vec![alert], notices: Vec::new() }
}

#[test]
fn peer_of_an_earlier_version_ignores_alerts() {
    /// The end of a batch, as before alerts were in it.
    #[derive(Deserialize)]
    struct EarlierBatch {
        number: u64,
        operations: Option<Operations>,
    }
    let operations = Some(Operations::default());
    let batch = RecordBatch { operations, alerts: Some(alerts()), ..fixture("v2") };
    let earlier: EarlierBatch = decode(&batch.encode(), None).unwrap();
    assert_eq!((earlier.number, earlier.operations), (batch.number, batch.operations));
    assert_eq!(fixture("v2").alerts, None, "an earlier version sends none");
}

#[test]
fn replica_gives_changed_decisions_once() {
    let mut operations = Operations::default();
    operations.add(crate::Operation::Eject("a".into()));
    let mut replica = Replica::new();
    let earlier = RecordBatch {
        operations: Some(operations.clone()),
        alerts: Some(alerts()),
        ..fixture("v2")
    };
    let part = KeptPart::of_rows([Encoded::new("", &operations)]);
    let changed = RecordBatch { kept: Some(part), ..fixture("v2") };
    let changed = RecordBatch::decode(&changed.encode(), None).unwrap();
    let number = changed.number;
    replica.apply(changed).unwrap();
    let unchanged = RecordBatch { number: number + 1, ..fixture("v2") };
    replica.apply(unchanged).unwrap();
    let kept = replica.take_kept();
    assert_eq!(kept.iter().find_map(|part| part.document("")), Some(operations.clone()));
    assert!(replica.take_kept().is_empty());
    // An owner of an earlier version sends them apart.
    replica.apply(RecordBatch { number: 1, ..earlier }).unwrap();
    let kept = replica.take_kept();
    assert_eq!(kept.iter().find_map(|part| part.document("")), Some(operations));
    assert_eq!(kept.iter().find_map(|part| part.document("")), Some(alerts()));
}

#[test]
fn replica_gives_keys_and_the_secret_of_urls() {
    let used = r#"{"key":"token:t1","body_sha256":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"status":409,"answer":""}"#;
    let urls = crate::SessionUrls::default();
    let mut batch = fixture("v2");
    assert_eq!(batch.changed.registry.url_secret, None, "an earlier version sends none");
    batch.changed.idempotency_keys.push(serde_json::from_str(used).unwrap());
    batch.changed.registry.url_secret = Some(urls.secret());
    let mut replica = Replica::new();
    replica.apply(RecordBatch { number: 1, ..batch }).unwrap();
    assert!(replica.has_news());
    let key = |part: &KeptPart| part.document::<crate::OpenedKey>("token:t1");
    assert_eq!(replica.take_kept().iter().filter_map(key).count(), 1);
    assert_eq!(replica.url_secret(), Some(urls.secret()));
}

#[test]
fn replica_gives_ratings_once() {
    let rating = SessionRating { id: "s17".into(), rating: 2, ..SessionRating::default() };
    let batch = RecordBatch { number: 1, ratings: vec![rating.clone()], ..fixture("v2") };
    let mut replica = Replica::new();
    replica.apply(RecordBatch::decode(&batch.encode(), None).unwrap()).unwrap();
    assert!(replica.has_news());
    assert_eq!(replica.take_ratings(), [rating]);
    assert_eq!(replica.take_ratings(), []);
}

#[test]
fn copies_hold_once_the_owner_returns_an_acknowledgement() {
    let mut replica = Replica::new();
    let mut holding = |number, echo| {
        let batch = RecordBatch { number, echo, ..fixture("v2") };
        replica.apply(RecordBatch::decode(&batch.encode(), None).unwrap()).unwrap();
        let media = replica.clone().snapshot().unwrap().media;
        let holding = media.iter().filter(|it| it.state.holds_until > Some(Instant::now()));
        (media.len(), holding.count())
    };
    assert_eq!(holding(1, 0), (6, 0), "none was acknowledged before");
    assert_eq!(holding(2, 1), (6, 6));
    assert_eq!(holding(3, 7), (6, 0), "7 was not acknowledged");
    assert_eq!(holding(1, 0), (6, 0), "all records begin again");
}

#[test]
fn copies_from_before_a_suspension_do_not_hold() {
    let mut replica = Replica::new();
    let apply = |replica: &mut Replica, number, echo| {
        let batch = RecordBatch { number, echo, ..fixture("v2") };
        replica.apply(RecordBatch::decode(&batch.encode(), None).unwrap()).unwrap();
    };
    let holding = |replica: &Replica| {
        let media = replica.clone().snapshot().unwrap().media;
        media.iter().filter(|it| it.state.holds_until.is_some()).count()
    };
    apply(&mut replica, 1, 0);
    apply(&mut replica, 2, 1);
    assert_eq!(holding(&replica), 6);
    // The machine was suspended since the last batch.
    replica.suspended += SUSPENSION_MIN;
    assert_eq!(holding(&replica), 0);
    apply(&mut replica, 3, 2);
    assert_eq!(holding(&replica), 0, "2 was acknowledged before");
    apply(&mut replica, 4, 3);
    assert_eq!(holding(&replica), 6);
}

/// Sessions at nodes with an agent, an rtpengine and a webhook, as a3d43ed3 encodes them: processes of both versions continue
/// sessions of each other.
#[test]
fn records_of_drivers_keep_their_bytes() {
    let encoded = std::fs::read(format!("{FIXTURES}/drivers/a3d43ed3")).unwrap();
    let (again, record) = instant::relative_to(Instant::now(), || {
        let record: DriversRecord = rmp_serde::from_slice(&encoded).unwrap();
        let mut again = Vec::new();
        record.serialize(&mut rmp_serde::Serializer::new(&mut again).with_struct_map()).unwrap();
        (again, record)
    });
    assert!(record.leases().is_empty());
    assert!(again == encoded, "{record:?}");
    let mut replica = DriversReplica::default();
    replica.apply(record, std::iter::empty());
    for session in (1..=6).map(SessionId) {
        assert!(format!("{replica:?}").contains(&format!("{session:?}")));
        replica.forget(session);
    }
}

#[test]
fn replica_keeps_breakers_until_nodes_come_again() {
    let (config, now) =
        (evenkeel_config::GatewayConfig::load(None, None, &[]).unwrap(), Instant::now());
    let mut gateway = evenkeel_core::Gateway::new(config.core(), now);
    let group = ClientGroup { label: ClientLabel::Carrier, value: "ct".into() };
    gateway.hold_client_breaker(&group, BreakerMode::Closed, now).unwrap();
    let mut first = fixture("v2");
    first.changed.core.client_breakers = gateway.records().of_nodes().client_breakers;
    let closed = serde_json::json!({"failures": 1, "openings": 0, "open_until": null});
    first.changed.core.provider_breakers =
        serde_json::from_value(serde_json::json!({"cloud": closed})).unwrap();
    let number = first.number;
    let mut replica = Replica::new();
    replica.apply(RecordBatch::decode(&first.encode(), None).unwrap()).unwrap();
    let mut second = RecordBatch { number: number + 1, ..fixture("v2") };
    second.changed.core.nodes.clear();
    replica.apply(second).unwrap();
    let kept = |replica: &Replica| {
        let core = replica.clone().snapshot().unwrap().core;
        (core.client_breakers.len(), core.provider_breakers.len())
    };
    assert_eq!(kept(&replica), (1, 1));
    let third = RecordBatch { number: number + 2, ..fixture("v2") };
    let has_nodes = !third.changed.core.nodes.is_empty();
    replica.apply(third).unwrap();
    assert_eq!(
        (has_nodes, kept(&replica)),
        (true, (0, 0)),
        "batches of an earlier version have none"
    );
}

#[test]
fn replica_keeps_windows_between_their_copies() {
    let now = Instant::now();
    let mut settings = evenkeel_config::GatewayConfig::load(None, None, &[]).unwrap().core();
    settings.scenarios.insert("call".into(), with_slo());
    let mut gateway = evenkeel_core::Gateway::new(settings, now);
    let mut copies = SloCopies::new(now);
    gateway.handle_turned_away("call", now);
    let second = Duration::from_secs(1);
    assert_eq!(copies.next(&mut gateway, false, now + second / 2), None);
    let record = copies.next(&mut gateway, false, now + second);
    assert!(record.is_some());
    assert_eq!(copies.next(&mut gateway, false, now + second), None);
    assert_eq!(copies.next(&mut gateway, true, now + second), record);
    let mut first = fixture("v2");
    first.changed.core.slo.clone_from(&record);
    let number = first.number;
    let mut replica = Replica::new();
    replica.apply(first).unwrap();
    replica.apply(RecordBatch { number: number + 1, ..fixture("v2") }).unwrap();
    assert_eq!(replica.snapshot().unwrap().core.slo, record);
}

pub(crate) fn with_slo() -> Scenario {
    Scenario {
        set: "call".into(),
        bound: [false; 4],
        bounds: CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 },
        mode: RedundancyMode::Hot,
        affinity: Affinity::Room,
        regions: Vec::new(),
        spares: 1,
        reserve: Some(FailureScope::Node),
        spares_outside: FailureScope::Node,
        close_after: Duration::from_secs(30),
        priority: 0,
        slo: Some(ServiceObjective {
            objective: 0.99,
            refusals: true,
            set_up: None,
            gap: None,
            r_factor_centi: None,
        }),
        on_admission_fault: AdmitOnFault::Admit,
        on_degradation_fault: DegradeOnFault::Hold,
    }
}

#[test]
fn replica_drops_answers_of_ended_sessions() {
    let mut replica = Replica::new();
    let mut first = fixture("v2");
    let (number, session) = (first.number, first.changed.core.sessions[0].id);
    let key = serde_json::json!(
        {"key": "k", "body_sha256": vec![7; 32], "status": 201, "answer": "{}", "session": session}
    );
    first.changed.idempotency_keys = vec![serde_json::from_value(key).unwrap()];
    replica.apply(first).unwrap();
    let keys = |replica: &Replica| serde_json::to_value(replica.keys()).unwrap();
    assert_eq!(keys(&replica)[0]["answer"], "{}");
    let ended = RecordBatch { number: number + 1, ended: vec![session], ..fixture("v2") };
    replica.apply(ended).unwrap();
    let key = &keys(&replica)[0];
    assert_eq!((&key["key"], &key["answer"]), (&"k".into(), &"".into()));
}
