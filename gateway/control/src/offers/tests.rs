use super::*;

type Answer = oneshot::Receiver<Result<SessionAnswer, ControlError>>;

fn hold(waiting: &mut WaitingOffers, room: usize) -> Answer {
    let (reply, answer) = oneshot::channel();
    let address = ([127, 0, 0, 1], 9).into();
    let request = OfferedSession {
        scenario: "call".into(),
        room: room.to_string().into(),
        labels: Arc::new([]),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: Arc::new(MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain)),
        srtp: None,
        nodes: Vec::new(),
        caller: None,
    };
    waiting.hold(Box::new(request), reply);
    answer
}

fn next(waiting: &mut WaitingOffers) -> Option<String> {
    waiting.next().map(|(request, _)| request.room.to_string())
}

#[test]
fn offers_keep_order_and_abandoned_ones_go() {
    let mut waiting = WaitingOffers::default();
    let mut answers: Vec<Answer> = (0..4).map(|room| hold(&mut waiting, room)).collect();
    answers.remove(2);
    answers.remove(0);
    assert_eq!(next(&mut waiting).as_deref(), Some("1"));
    let _late = hold(&mut waiting, 4);
    assert_eq!(next(&mut waiting).as_deref(), Some("3"));
    assert_eq!(next(&mut waiting).as_deref(), Some("4"));
    assert_eq!(next(&mut waiting), None);
}

#[test]
fn abandoned_offer_frees_its_place() {
    let mut waiting = WaitingOffers::default();
    let mut answers: Vec<Answer> = (0..REQUESTS_MAX).map(|room| hold(&mut waiting, room)).collect();
    assert_eq!(hold(&mut waiting, 5_000).try_recv(), Ok(Err(ControlError::Unavailable)));
    answers.remove(7);
    let mut last = hold(&mut waiting, 5_001);
    assert!(last.try_recv().is_err(), "it waits");
    assert_eq!(hold(&mut waiting, 5_002).try_recv(), Ok(Err(ControlError::Unavailable)));
    assert_eq!(waiting.offers.len(), REQUESTS_MAX);
    assert_eq!(waiting.offers[7].0.room, "8".into());
}

#[test]
fn refused_source_may_try_again_after_a_second() {
    let now = Instant::now();
    let source: SocketAddr = "10.0.0.1:4000".parse().unwrap();
    let mut first_packets = FirstPackets::default();
    assert!(first_packets.is_new(0, source, now));
    assert!(!first_packets.is_new(0, source, now));
    assert!(first_packets.is_new(1, source, now), "another listener");
    first_packets.finished(0, source, false, now);
    assert!(!first_packets.is_new(0, source, now + Duration::from_millis(999)));
    assert!(first_packets.is_new(0, source, now + Duration::from_millis(1_000)));
}

#[test]
fn remembered_sources_are_bounded() {
    let now = Instant::now();
    let mut first_packets = FirstPackets::default();
    let new = (0..5_000_u16)
        .filter(|port| first_packets.is_new(0, ([10, 0, 0, 1], *port).into(), now))
        .count();
    assert_eq!(new, SOURCES_MAX);
    assert!(first_packets.is_new(0, ([10, 0, 0, 2], 1).into(), now + AGAIN_AFTER));
}

#[test]
fn equal_parts_are_shared_and_bounded() {
    let mut values: SharedValues<Arc<str>> = SharedValues::default();
    let first = values.share("voice".into());
    assert!(Arc::ptr_eq(&values.share("voice".into()), &first));
    for number in 0..SHARED_MAX {
        values.share(number.to_string().into());
    }
    assert_eq!(values.0.len(), SHARED_MAX);
    assert!(!Arc::ptr_eq(&values.share("voice".into()), &first), "it gave way");
}
