use std::collections::BTreeSet;

use super::*;

fn all_formats() -> Vec<Format> {
    let video = VIDEO_NUMBERS.iter().map(|(codec, ..)| *codec);
    let events = [8_000, 48_000].map(|clock_rate| Codec::TelephoneEvent { clock_rate });
    let audio = [Codec::Opus, Codec::Pcmu, Codec::Pcma].into_iter().chain(events);
    let codecs = audio.chain(video);
    let formats = [Format::Media, Format::Retransmission, Format::Redundancy];
    codecs.flat_map(|codec| formats.map(|format| format(codec))).chain([Format::Parity]).collect()
}

#[test]
fn room_numbers_are_unique_and_not_of_rtcp() {
    let formats = all_formats();
    let numbers: Vec<u8> = formats.iter().filter_map(|format| format.room_number()).collect();
    // Opus with its redundancy, G.711 twice, events at two rates, 20 videos with retransmissions, parity.
    assert_eq!(numbers.len(), 2 + 2 + 2 + 40 + 1);
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
    for number in numbers {
        let is_static = number == 0 || number == 8;
        assert!(is_static || (35..64).contains(&number) || (96..128).contains(&number), "{number}");
    }
}

#[test]
fn h264_profiles_are_compared_by_flags() {
    let profile = |level_id| H264Profile::read(level_id);
    // RFC 6184, table 5: one profile may have several values.
    for level_id in ["42e01f", "42C02A", "424015", "4d801f", "4dc01f", "58c00b"] {
        assert_eq!(profile(level_id), Some(H264Profile::ConstrainedBaseline), "{level_id}");
    }
    for level_id in ["42001f", "42a00a", "588015"] {
        assert_eq!(profile(level_id), Some(H264Profile::Baseline), "{level_id}");
    }
    for level_id in ["4d001f", "4d4028"] {
        assert_eq!(profile(level_id), Some(H264Profile::Main), "{level_id}");
    }
    assert_eq!(profile("640028"), Some(H264Profile::High));
    assert_eq!(profile("640c1f"), Some(H264Profile::ConstrainedHigh));
    assert_eq!(profile("f4001f"), Some(H264Profile::High444Predictive));
    // Extended, intra-only and malformed values.
    for level_id in ["580015", "64101f", "42011f", "", "42e0", "42e01f00", "42e01g"] {
        assert_eq!(profile(level_id), None, "{level_id}");
    }
}

#[track_caller]
fn read(rtpmap: &str, parameters: &str) -> Option<Codec> {
    Codec::read(&format!("96 {rtpmap}").parse().unwrap(), parameters)
}

#[test]
fn codecs_are_read_with_their_parameters() {
    for (rtpmap, parameters, codec) in [
        ("OPUS/48000/2", "minptime=10", Codec::Opus),
        ("PCMU/8000", "", Codec::Pcmu),
        ("pcma/8000/1", "", Codec::Pcma),
        ("telephone-event/8000", "0-15", Codec::TelephoneEvent { clock_rate: 8_000 }),
        ("Telephone-Event/48000/1", "", Codec::TelephoneEvent { clock_rate: 48_000 }),
        ("VP8/90000", "max-fr=30", Codec::Vp8),
        ("VP9/90000", "", vp9(0)),
        ("VP9/90000", "max-fr=30; profile-id=2", vp9(2)),
        ("AV1/90000", "level-idx=5;profile=1;tier=0", av1(1)),
        ("H264/90000", "", h264(H264Profile::Baseline, false)),
        (
            "h264/90000",
            "Packetization-Mode=1;profile-level-id=42E01F",
            h264(H264Profile::ConstrainedBaseline, true),
        ),
    ] {
        assert_eq!(read(rtpmap, parameters), Some(codec), "{rtpmap} {parameters}");
    }
    for (rtpmap, parameters) in [
        ("opus/48000", ""),
        ("opus/16000/2", ""),
        ("PCMU/16000", ""),
        ("VP8/48000", ""),
        ("VP9/90000", "profile-id=4"),
        ("VP9/90000", "profile-id=high"),
        ("AV1/90000", "profile=3"),
        ("H264/90000", "packetization-mode=2"),
        ("H264/90000", "profile-level-id=580015"),
        ("H265/90000", ""),
        ("G722/8000", ""),
        ("telephone-event/16000", "0-15"),
    ] {
        assert_eq!(read(rtpmap, parameters), None, "{rtpmap} {parameters}");
    }
}

#[test]
fn h264_answer_has_the_configuration_and_level_of_the_offer() {
    let format = Format::Media(h264(H264Profile::ConstrainedBaseline, true));
    for (offered, answered) in [
        // As browsers offer it.
        (
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        ),
        // Without asymmetry, the answer does not allow it.
        (
            "profile-level-id=42E00B; packetization-mode=0",
            "packetization-mode=0;profile-level-id=42E00B",
        ),
        ("Level-Asymmetry-Allowed=0;profile-level-id=42e01f", "profile-level-id=42e01f"),
        // Level 1b, by constraint_set3_flag.
        ("profile-level-id=42f00b", "profile-level-id=42f00b"),
        // Capabilities of the client alone.
        (
            "profile-level-id=42e01f;max-fs=8160;max-br=9000;max-recv-level=e033;x-google-max-bitrate=9",
            "profile-level-id=42e01f",
        ),
        (
            "profile-level-id=42e01f;sprop-parameter-sets=Z0LAC9oPCg==,aM4BqDXI",
            "profile-level-id=42e01f;in-band-parameter-sets=1",
        ),
        ("", ""),
    ] {
        assert_eq!(format.answered_parameters(offered), answered, "{offered}");
    }
}

#[test]
fn parameters_of_the_client_alone_are_not_answered() {
    let answered = |codec, offered| Format::Media(codec).answered_parameters(offered);
    let opus = "minptime=10; useinbandfec=1;sprop-stereo=1;x-google-start-bitrate=300;";
    assert_eq!(answered(Codec::Opus, opus), "minptime=10;useinbandfec=1");
    assert_eq!(answered(vp9(2), "profile-id=2"), "profile-id=2");
    let codec = h264(H264Profile::ConstrainedBaseline, true);
    assert_eq!(Format::Retransmission(codec).answered_parameters("apt=106"), "apt=106");
}

#[test]
fn documentation_has_the_numbers_of_rooms() {
    let page = include_str!("../../../../docs/webrtc.md");
    let fragmented = |fragmented| h264(H264Profile::ConstrainedBaseline, fragmented);
    let event = |clock_rate| Format::Media(Codec::TelephoneEvent { clock_rate });
    let mut rows = vec![
        [Format::Media(Codec::Opus), Format::Redundancy(Codec::Opus)],
        [Format::Media(Codec::Pcmu), Format::Media(Codec::Pcma)],
        [event(8_000), event(48_000)],
    ];
    let videos = [Codec::Vp8, vp9(0), fragmented(true), fragmented(false), av1(0)];
    rows.extend(videos.map(|codec| [Format::Media(codec), Format::Retransmission(codec)]));
    for formats in rows {
        let [first, second] = formats.map(|format| format.room_number().unwrap());
        let row = format!("\n| {first}, {second} | ");
        assert!(page.contains(&row), "{row:?} is not in docs/webrtc.md");
    }
    let parity = Format::Parity.room_number().unwrap();
    assert!(page.contains(&format!("\n| {parity} | parity ")), "of parity");
}
