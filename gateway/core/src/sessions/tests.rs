use evenkeel_model::{
    FeedbackSupport, MediaStream, OfferId, PayloadType, RegionId, RtcpPort, Srtp, StreamKind,
};

use super::*;
use crate::gateway::tests::settings;
use crate::shares::STEPS;

const ID: SessionId = SessionId(1);

/// For tests of clients that change what they take.
impl Session {
    pub(crate) fn media_mut(&mut self) -> &mut MediaDescription {
        Arc::make_mut(&mut Arc::make_mut(&mut self.request).media)
    }

    pub(crate) fn close_after(&self) -> Duration {
        self.request.close_after
    }
}

/// For tests of turns.
impl TickedSessions {
    pub(crate) fn of(awake: std::ops::Range<u64>, resting: std::ops::Range<u64>) -> TickedSessions {
        let all = |range: std::ops::Range<u64>| range.map(SessionId).collect();
        TickedSessions { awake: all(awake), resting: all(resting) }
    }
}

/// A table with the session of an offer of one stream of 1,024 kbit/s. Its client obeys caps.
fn offered(now: Instant) -> SessionTable {
    let stream = MediaStream {
        kind: StreamKind::Video,
        payload_types: vec![PayloadType::new(96, "x", 90_000)],
        feedback: FeedbackSupport { remb: true, ..FeedbackSupport::default() },
        bitrate_kbps: Some(1_024),
    };
    let media = MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain);
    let address = ([127, 0, 0, 1], 4_000).into();
    let offer = Offer {
        id: OfferId(7),
        scenario: "call".into(),
        room: "r".into(),
        labels: Arc::from(Vec::new()),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: Arc::new(media),
    };
    let mut table = SessionTable::new();
    let (name, scenario, labels) = (Arc::from("r"), Arc::from("call"), Arc::from(Vec::new()));
    let room = Room::new(RoomId(1), name, scenario, labels, RegionId(0), RoomId(1));
    table.begin(&Arc::new(offer), &settings().scenarios["call"], &room, now);
    table
}

#[test]
fn session_takes_168_bytes() {
    assert_eq!(size_of::<Session>(), 176, "a gateway has very many");
}

#[test]
fn offer_takes_its_steps_in_order() {
    let now = Instant::now();
    let mut table = offered(now);
    let session = table.get_mut(&ID).unwrap();
    assert_eq!(session.open(now).map(|offer| offer.id), Some(OfferId(7)));
    assert!(!session.is_opening() && !session.is_admitted(), "no policy has admitted it");
    session.ask_admission();
    table.admit(ID, Some(300), Decider::Operator).unwrap().ask_admission();
    let session = &table[&ID];
    assert!(session.is_admitted() && session.awaits_route() && !session.is_installed());
    assert_eq!((session.plan().cap_kbps(), &**session.admitted_by()), (300, &Decider::Operator));
    table.get_mut(&ID).unwrap().open(now);
    let session = &table[&ID];
    assert!(session.is_opening() && session.is_installed() && !session.is_live());
    assert_eq!((session.opens_by(), table.live()), (Some(now), 0));
}

#[test]
fn live_session_has_no_offer_and_is_counted_once() {
    let now = Instant::now();
    let mut table = offered(now);
    let degradation = PolicyName { set: "call".into(), hook: evenkeel_model::Hook::Degradation };
    assert!(table.go_live(ID, Some(degradation.clone()), now).is_none(), "it is not opened");
    table.admit(ID, None, Decider::Native).unwrap().open(now);
    let offer = table.go_live(ID, Some(degradation.clone()), now);
    assert_eq!(offer.map(|offer| offer.id), Some(OfferId(7)));
    assert!(table.go_live(ID, Some(degradation.clone()), now).is_none());
    assert_eq!((table.live(), table.most_ticked()), (1, 1));
    assert!(
        table[&ID].is_live() && table[&ID].offer().is_none() && table[&ID].opens_by().is_none()
    );
    assert!(table.get_mut(&ID).unwrap().open(now).is_none());
    assert!(table.remove(ID).is_some());
    assert_eq!((table.live(), table.most_ticked()), (0, 0));
}

#[test]
fn idle_session_rests_until_it_is_measured() {
    let now = Instant::now();
    let mut table = offered(now);
    let degradation = PolicyName { set: "call".into(), hook: evenkeel_model::Hook::Degradation };
    table.admit(ID, None, Decider::Native).unwrap().open(now);
    table.go_live(ID, Some(degradation.clone()), now);
    let counts = |table: &SessionTable| {
        let ours = table.ticked(&degradation).unwrap();
        (ours.awake().len(), ours.resting().len())
    };
    table.rest(&degradation, ID);
    assert_eq!((counts(&table), table.most_ticked()), ((0, 1), 1), "it never had a packet");
    table.wake(ID);
    assert_eq!(counts(&table), (1, 0));
    let report = |table: &mut SessionTable, metric, value| {
        let measures = *Measures::default().set(metric, value);
        table.unrecorded_mut(&ID).unwrap().take_summary(measures, None)
    };
    for metric in [Metric::BitrateUp, Metric::BitrateDown, Metric::LossUp, Metric::RttClient] {
        assert!(report(&mut table, metric, 1), "{metric:?}");
        assert!(!report(&mut table, metric, 2), "{metric:?}: it was not idle");
        table.rest(&degradation, ID);
        assert_eq!(counts(&table), (1, 0), "{metric:?}");
        assert!(!report(&mut table, Metric::BitrateUp, 0), "{metric:?}");
    }
    assert!(report(&mut table, Metric::LossDown, 0), "a measured loss of 0 is a good network");
    assert!(!report(&mut table, Metric::BitrateDown, 0));
    table.rest(&degradation, ID);
    assert_eq!(counts(&table), (0, 1));
    table.wake_all(&degradation);
    assert_eq!(counts(&table), (1, 0));
    table.rest(&degradation, ID);
    table.remove(ID);
    assert_eq!(counts(&table), (0, 0));
}

#[test]
fn reduced_session_returns_to_its_need_by_steps() {
    let now = Instant::now();
    let mut table = offered(now);
    assert_eq!((table[&ID].kbps(), table[&ID].raise_adds()), (1_024, None));
    let before = table.shares(&[ID]);
    assert!(STEPS.into_iter().all(|step| table.reduce(&[ID], step)));
    assert!(!table.reduce(&[ID], STEPS[1]), "it has the smallest share");
    assert_eq!((table[&ID].kbps(), table[&ID].raise_adds()), (24, Some(500)));
    assert!(
        matches!(table[&ID].reshared(now).share, Some(ShareChange::ReducedAt(at)) if at == now)
    );
    table.get_mut(&ID).unwrap().raise();
    assert_eq!(table[&ID].kbps(), 524);
    assert_eq!(table.with_other_shares(&before), [ID]);
    table.restore_shares(&before);
    assert!(matches!(table[&ID].reshared(now).share, Some(ShareChange::Whole)));
    assert!(table.with_other_shares(&before).is_empty());
}
