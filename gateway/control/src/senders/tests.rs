use evenkeel_model::{FeedbackSupport, MediaStream, PayloadType, RtcpPort, Srtp};

use super::*;

const OPUS: u8 = 111;
const VP8: u8 = 96;

fn labels(participant: &str) -> Labels {
    [("region".into(), "east".into()), ("participant".into(), participant.into())].into()
}

fn media() -> MediaDescription {
    let stream = |kind, number| MediaStream {
        kind,
        payload_types: vec![PayloadType::new(number, "any", 90_000)],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    let streams = vec![stream(StreamKind::Audio, OPUS), stream(StreamKind::Video, VP8)];
    MediaDescription::new(streams, RtcpPort::Mux, Srtp::Terminated)
}

fn stream(kind: StreamKind, ssrc: u32) -> ClientStream {
    ClientStream { kind, ssrcs: vec![ssrc] }
}

/// A sender of voice and pictures, with the SSRCs 10 and 11 times its number.
fn sender(number: u32, participant: &str) -> RoomSender {
    let streams =
        vec![stream(StreamKind::Audio, 10 * number), stream(StreamKind::Video, 11 * number)];
    RoomSender::new(SessionId(number.into()), &labels(participant), streams)
}

/// M-lines with these payload types, in their order.
fn announced(payload_types: &[u8]) -> AnnouncedStreams {
    let section = |(index, payload_type): (u8, &u8)| AnnouncedSection {
        index,
        payload_types: vec![*payload_type],
        has_retransmissions: false,
        sender: None,
    };
    let sections = (0..).zip(payload_types).map(section).collect();
    AnnouncedStreams { seed: 1, in_sync: Vec::new(), sections }
}

/// The names of the m-lines' senders, each with its SSRC.
fn names(announced: &AnnouncedStreams) -> Vec<Option<(&str, u32)>> {
    let senders = announced.sections.iter().map(|section| section.sender.as_ref());
    senders.map(|sender| sender.map(|it| (&*it.stream, it.ssrcs[0]))).collect()
}

#[test]
fn stream_id_names_session_and_participant() {
    let session = SessionId(17);
    assert_eq!(stream_id(session, None), "s17");
    assert_eq!(stream_id(session, participant(&labels(""))), "s17");
    assert_eq!(stream_id(session, participant(&labels("anna"))), "s17.anna");
    assert_eq!(stream_id(session, Some("Anna B@x é")), "s17.Anna%20B%40x%20%C3%A9");
    let long = stream_id(session, Some(&"é".repeat(60)));
    assert_eq!(
        long,
        format!("s17.{}", "%C3%A9".repeat(10)),
        "at most 64 characters, no half of a byte"
    );
}

#[test]
fn each_sender_gets_an_m_line_of_each_kind() {
    let senders = [sender(1, "anna"), sender(2, "ben"), sender(3, "carl")];
    let mut answer = announced(&[OPUS, VP8, VP8, OPUS]);
    name_senders(&mut answer, &AnnouncedStreams::default(), &media(), &senders, true);
    let [anna, ben] = ["s1.anna", "s2.ben"];
    let expected = [(anna, 10), (anna, 11), (ben, 22), (ben, 20)].map(Some);
    assert_eq!(names(&answer), expected, "none is left for carl");

    // Anna has left, and Ben keeps his m-lines.
    let mut later = announced(&[OPUS, VP8, VP8, OPUS, VP8]);
    name_senders(&mut later, &answer, &media(), &senders[1..], true);
    let [ben, carl] = ["s2.ben", "s3.carl"];
    let expected = [Some((carl, 30)), Some((carl, 33)), Some((ben, 22)), Some((ben, 20)), None];
    assert_eq!(names(&later), expected);
}

#[test]
fn node_with_ssrcs_of_its_own_leaves_several_unnamed() {
    let senders = [sender(1, "anna"), sender(2, "ben"), sender(3, "carl")];
    let mut answer = announced(&[OPUS, VP8, OPUS]);
    let none = AnnouncedStreams::default();
    name_senders(&mut answer, &none, &media(), &senders, false);
    assert_eq!(names(&answer), [None; 3]);
    name_senders(&mut answer, &none, &media(), &senders[..1], false);
    let anna = "s1.anna";
    assert_eq!(names(&answer), [Some((anna, 10)), Some((anna, 11)), None]);
    // One that comes later is the one that is not known yet.
    let mut later = announced(&[OPUS, VP8, OPUS]);
    name_senders(&mut later, &answer, &media(), &senders[..2], false);
    assert_eq!(names(&later), [Some((anna, 10)), Some((anna, 11)), Some(("s2.ben", 20))]);
}

#[test]
fn session_that_only_receives_sends_no_stream() {
    let answered = |may_send, sends| AnsweredMedia {
        ufrag: "ufra".into(),
        may_send,
        may_receive: true,
        sends,
        numbers: None,
        announced: Arc::default(),
        password: Default::default(),
    };
    let voice = vec![stream(StreamKind::Audio, 5)];
    assert_eq!(sent_streams(Some(&answered(true, voice.clone())), &media()), voice);
    assert_eq!(sent_streams(Some(&answered(false, Vec::new())), &media()), []);
    let kinds = |answered: Option<&AnsweredMedia>| {
        let sent = described_streams(
            SessionId(4),
            &"room-1".into(),
            &labels("dora"),
            &sent_streams(answered, &media()),
        );
        assert!(
            sent.iter().all(|it| (&*it.id, it.participant.as_deref()) == ("s4.dora", Some("dora")))
        );
        sent.iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(None), [StreamKind::Audio, StreamKind::Video], "a phone");
    let earlier = answered(true, Vec::new());
    assert_eq!(kinds(Some(&earlier)).len(), 2, "of an older version");
}
