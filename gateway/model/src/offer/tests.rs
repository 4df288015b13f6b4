use super::*;

const TRANSPORT_WIDE: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

fn described(kind: StreamKind, feedback: FeedbackSupport, srtp: Srtp) -> MediaDescription {
    let payload_types = vec![PayloadType::new(96, "x", 90_000)];
    let stream = MediaStream { kind, payload_types, feedback, bitrate_kbps: None };
    MediaDescription::new(vec![stream], RtcpPort::Mux, srtp)
}

/// Descriptions in records of earlier versions, which knew no repair.
#[derive(Serialize, Deserialize)]
struct EarlierMedia {
    streams: Vec<EarlierStream>,
    rtcp: RtcpPort,
    srtp: Srtp,
}

#[derive(Serialize, Deserialize)]
struct EarlierStream {
    kind: StreamKind,
    payload_types: Vec<EarlierPayloadType>,
    feedback: EarlierFeedback,
    bitrate_kbps: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct EarlierPayloadType {
    number: u8,
    codec: Box<str>,
    clock_rate: u32,
}

#[derive(Serialize, Deserialize)]
struct EarlierFeedback {
    pli: bool,
    fir: bool,
    remb: bool,
    tmmbr: bool,
}

fn read<T: serde::de::DeserializeOwned>(written: &impl Serialize) -> T {
    let bytes = rmp_serde::to_vec_named(written).unwrap();
    rmp_serde::from_slice(&bytes).unwrap()
}

#[test]
fn records_of_both_versions_are_read_by_both() {
    let pli = FeedbackSupport { pli: true, ..FeedbackSupport::default() };
    let feedback = FeedbackSupport { nack: true, transport_cc: true, ccfb: true, ..pli };
    let mut media = described(StreamKind::Video, feedback, Srtp::Plain);
    let rtx = PayloadType { repairs: Some(96), ..PayloadType::new(97, "rtx", 90_000) };
    media.streams[0].payload_types.push(rtx);
    media.latency = Latency(200);
    let extension =
        |id, uri: &str| HeaderExtension { id, uri: ExtensionUri::from(Box::<str>::from(uri)) };
    media.extensions = vec![extension(3, TRANSPORT_WIDE), extension(200, "urn:example:other")];
    media.simulcast = vec![OfferedLayer { rid: "h".into(), ssrc: Some(1), rtx_ssrc: None }];
    assert_eq!(read::<MediaDescription>(&media), media);

    let earlier: EarlierMedia = read(&media);
    let again: MediaDescription = read(&earlier);
    let mut expected = described(StreamKind::Video, pli, Srtp::Plain);
    expected.streams[0].payload_types.push(PayloadType::new(97, "rtx", 90_000));
    assert_eq!(again, expected);
    assert_eq!(again.latency.duration(), Duration::from_millis(60));
}

#[test]
fn header_extensions_are_found_by_their_uri() {
    let mut media = described(StreamKind::Video, FeedbackSupport::default(), Srtp::Plain);
    assert_eq!(media.extension(&ExtensionUri::TransportWideNumber), None);
    for (id, uri) in (1..).zip(ExtensionUri::KNOWN) {
        assert_eq!(ExtensionUri::from(Box::<str>::from(uri.clone())), uri);
        media.extensions.push(HeaderExtension { id, uri });
    }
    assert_eq!(media.extension(&ExtensionUri::TransportWideNumber), Some(1));
    assert_eq!(ExtensionUri::TransportWideNumber.as_str(), TRANSPORT_WIDE);
    let other = ExtensionUri::from(Box::<str>::from("urn:example:other"));
    assert_eq!((other.as_str(), media.extension(&other)), ("urn:example:other", None));
}

#[test]
fn caps_need_remb_or_tmmbr_of_video() {
    let none = FeedbackSupport::default();
    let remb = FeedbackSupport { remb: true, ..none };
    let tmmbr = FeedbackSupport { tmmbr: true, ..none };
    let takes = |kind, feedback, srtp| described(kind, feedback, srtp).takes_caps();
    assert!(takes(StreamKind::Audio, remb, Srtp::Plain));
    assert!(takes(StreamKind::Video, tmmbr, Srtp::Terminated));
    assert!(!takes(StreamKind::Audio, tmmbr, Srtp::Plain), "it caps video");
    assert!(!takes(StreamKind::Video, none, Srtp::Plain));
    assert!(!takes(StreamKind::Video, remb, Srtp::Opaque));
    assert!(!takes(StreamKind::Video, tmmbr, Srtp::Opaque));
}

#[test]
fn red_is_no_repair_of_other_streams() {
    let [red, rtx, opus] = ["RED", "rtx", "opus"].map(|codec| PayloadType::new(63, codec, 48_000));
    assert!(red.is_red() && !red.is_repair());
    assert!(rtx.is_repair() && !rtx.is_red());
    assert!(!opus.is_red() && !opus.is_repair());
}
