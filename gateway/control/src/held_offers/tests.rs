use std::sync::Arc;

use evenkeel_model::{ClientIdentity, IngressProtocol, MediaDescription, RtcpPort, Srtp};

use super::*;

type Answer = oneshot::Receiver<Result<SessionAnswer, ControlError>>;

fn hold(waiting: &mut Waiting, room: usize) -> Answer {
    let (reply, answer) = oneshot::channel();
    let address = ([127, 0, 0, 1], 9).into();
    let wanted = OfferedSession {
        scenario: "call".into(),
        room: room.to_string().into(),
        labels: Arc::new([]),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: Arc::new(MediaDescription {
            streams: Vec::new(),
            rtcp: RtcpPort::Mux,
            srtp: Srtp::Plain,
        }),
        nodes: Vec::new(),
        traceparent: None,
    };
    waiting.hold(Box::new(wanted), reply);
    answer
}

fn next(waiting: &mut Waiting) -> Option<String> {
    waiting.next().map(|held| held.request.room.to_string())
}

#[test]
fn offers_keep_order_and_abandoned_ones_go() {
    let mut waiting = Waiting::default();
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
    let mut waiting = Waiting::default();
    let mut answers: Vec<Answer> = (0..REQUESTS_MAX).map(|room| hold(&mut waiting, room)).collect();
    assert_eq!(hold(&mut waiting, 5_000).try_recv(), Ok(Err(ControlError::Unavailable)));
    answers.remove(7);
    let mut last = hold(&mut waiting, 5_001);
    assert!(last.try_recv().is_err(), "it waits");
    assert_eq!(hold(&mut waiting, 5_002).try_recv(), Ok(Err(ControlError::Unavailable)));
    assert_eq!(waiting.offers.len(), REQUESTS_MAX);
    assert_eq!(waiting.offers[7].request.room, "8".into());
}
