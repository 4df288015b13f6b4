use evenkeel_media::rtcp::{FirEntry, Pli, SenderInfo};

use super::*;

const S: u64 = 1_000_000_000;
const START: u64 = 1_000 * S;

fn talker(voice: bool, video: bool) -> Talker {
    Talker::new(Persona { session: 7, seed: 3, voice, video }, START)
}

#[derive(Default)]
struct SentPackets {
    rtp: Vec<(SentPacket, rtp::RtpHeader, Vec<u8>)>,
    rtcp: Vec<Vec<u8>>,
}

impl SentPackets {
    fn stream(&self, stream: u8) -> impl Iterator<Item = &(SentPacket, rtp::RtpHeader, Vec<u8>)> {
        self.rtp.iter().filter(move |(sent, ..)| sent.stream == stream)
    }

    fn bits(&self, stream: u8) -> usize {
        self.stream(stream).map(|(.., packet)| packet.len() * 8).sum()
    }

    fn keys(&self) -> usize {
        let key = |header: &rtp::RtpHeader, packet: &[u8]| {
            Content::of(header.payload(packet)) == Some(Content::Key)
        };
        self.stream(1).filter(|(_, header, packet)| header.marker && key(header, packet)).count()
    }
}

fn listen(talker: &mut Talker, from_ns: u64, until_ns: u64) -> SentPackets {
    let mut said = SentPackets::default();
    for now_ns in (from_ns..until_ns).step_by(1_000_000) {
        let mut packet = Vec::new();
        while let Some(transmit) = talker.poll_transmit(now_ns, &mut packet) {
            let packet = std::mem::take(&mut packet);
            match transmit {
                Transmit::Rtp(sent) => {
                    said.rtp.push((sent, rtp::RtpHeader::parse(&packet).unwrap(), packet));
                }
                Transmit::Rtcp => said.rtcp.push(packet),
            }
        }
        assert!(talker.poll_timeout() > now_ns);
    }
    said
}

fn hear(talker: &mut Talker, write: impl FnOnce(&mut Vec<u8>)) {
    let mut packet = Vec::new();
    write(&mut packet);
    assert_eq!(talker.handle_packet(&packet, START), None);
}

fn heard_packet(sequence: u16, timestamp: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    let mark = TestHeader { session: 9, number: sequence.into(), sent_ns: 5, node: 6, stream: 0 };
    mark.write(&mut payload);
    let mut packet = Vec::new();
    let fields = rtp::Fields { payload_type: 111, marker: false, sequence, timestamp, ssrc: 44 };
    rtp::write(&fields, &payload, &mut packet);
    packet
}

#[test]
fn voice_is_fifty_numbered_packets_a_second() {
    let said = listen(&mut talker(true, false), START, START + 2 * S);
    assert!((99..=100).contains(&said.rtp.len()), "it begins somewhere in the first 20 ms");
    for (place, (sent, header, packet)) in said.rtp.iter().enumerate() {
        let mark = TestHeader::read(header.payload(packet)).unwrap();
        assert_eq!((mark.session, mark.stream, mark.number, mark.node), (7, 0, place as u64, 0));
        assert_eq!(
            (sent.number, sent.timestamp, sent.at_ns),
            (mark.number, header.timestamp, mark.sent_ns)
        );
        assert!((60..=200).contains(&header.payload_len()));
    }
    for pair in said.rtp.windows(2) {
        assert_eq!(pair[1].1.sequence, pair[0].1.sequence.wrapping_add(1));
        assert_eq!(pair[1].1.timestamp.wrapping_sub(pair[0].1.timestamp), 960);
    }
    let sizes: std::collections::BTreeSet<_> =
        said.rtp.iter().map(|(.., packet)| packet.len()).collect();
    assert!(sizes.len() > 20);
}

#[test]
fn video_is_frames_of_several_packets_at_its_rate() {
    let said = listen(&mut talker(true, true), START, START + 10 * S);
    let bps = said.bits(1) / 10;
    assert!((380_000..=420_000).contains(&bps), "{bps}");
    assert_eq!(said.keys(), 1);
    let frames = said.stream(1).filter(|(_, header, _)| header.marker).count();
    assert_eq!(frames, 250);
    assert!(said.stream(1).count() > 2 * frames);
    let timestamps: std::collections::BTreeSet<_> =
        said.stream(1).map(|(_, header, _)| header.timestamp).collect();
    assert_eq!(timestamps.len(), frames);
}

#[test]
fn cap_lowers_video_and_never_voice() {
    let mut talker = talker(true, true);
    listen(&mut talker, START, START + S);
    let mut at = START + S;
    let mut rates = Vec::new();
    for cap in [200_000, 10_000, 2_000_000] {
        hear(&mut talker, |out| rtcp::write_remb(1, cap, &[], out));
        let said = listen(&mut talker, at, at + 5 * S);
        at += 5 * S;
        assert_eq!(said.stream(0).count(), 250);
        rates.push(said.bits(1) / 5);
    }
    assert!((130_000..=150_000).contains(&rates[0]), "{rates:?}");
    assert!((25_000..=35_000).contains(&rates[1]), "{rates:?}");
    assert!((380_000..=420_000).contains(&rates[2]), "{rates:?}");
}

#[test]
fn key_frame_answers_pli_and_fir_of_its_stream() {
    let mut talker = talker(true, true);
    let video = listen(&mut talker, START, START + S).stream(1).next().unwrap().1.ssrc;
    hear(&mut talker, |out| rtcp::write_pli(Pli { sender: 1, media: video.wrapping_add(1) }, out));
    assert_eq!(listen(&mut talker, START + S, START + 2 * S).keys(), 0);
    hear(&mut talker, |out| rtcp::write_pli(Pli { sender: 1, media: video }, out));
    assert_eq!(listen(&mut talker, START + 2 * S, START + 3 * S).keys(), 1);
    hear(&mut talker, |out| rtcp::write_fir(1, &[FirEntry { media: video, number: 1 }], out));
    assert_eq!(listen(&mut talker, START + 3 * S, START + 4 * S).keys(), 1);
}

#[test]
fn reports_are_sent_at_once_and_each_second() {
    let mut talker = talker(true, true);
    hear(&mut talker, |out| {
        rtcp::write_sender_report(
            &SenderInfo { ssrc: 44, ntp: 0x5_0000_0000, timestamp: 0, packets: 0, octets: 0 },
            &[],
            out,
        );
    });
    for sequence in [1, 2, 4] {
        assert!(
            talker
                .handle_packet(&heard_packet(sequence, u32::from(sequence) * 960), START)
                .is_some()
        );
    }
    let said = listen(&mut talker, START, START + 2 * S + 1);
    assert_eq!(said.rtcp.len(), 3);
    let first: Vec<_> = rtcp::packets(&said.rtcp[0]).map(Result::unwrap).collect();
    let RtcpPacket::ReceiverReport(_) = first[0] else { panic!("nothing was sent yet: {first:?}") };
    let block = first[0].blocks().next().unwrap();
    assert_eq!((block.ssrc, block.fraction_lost, block.lost, block.last_sr), (44, 64, 1, 0x5_0000));
    let second: Vec<_> = rtcp::packets(&said.rtcp[1]).map(Result::unwrap).collect();
    let [RtcpPacket::SenderReport(voice), RtcpPacket::SenderReport(_), RtcpPacket::Other { .. }] =
        second[..]
    else {
        panic!("{second:?}")
    };
    let sent = said.stream(0).filter(|(sent, ..)| sent.at_ns < START + S).count();
    assert_eq!(voice.info.packets as usize, sent);
    let block = second[0].blocks().next().unwrap();
    assert_eq!((block.ssrc, block.fraction_lost, block.delay_since_last_sr), (44, 0, 65_536));
}

#[test]
fn arrival_says_who_sent_it_and_in_what_numbers() {
    let mut talker = talker(false, false);
    let arrival = talker.handle_packet(&heard_packet(8, 99), 1_234).unwrap();
    let expected = ReceivedPacket {
        receiver: 7,
        sender: 9,
        stream: 0,
        number: 8,
        node: 6,
        sent_ns: 5,
        at_ns: 1_234,
        ssrc: 44,
        sequence: 8,
        timestamp: 99,
    };
    assert_eq!(arrival, expected);
    assert_eq!(talker.handle_packet(b"\x80\x6f\0\0", 0), None);
    assert_eq!((talker.tally.packets_received, talker.tally.unreadable), (1, 1));
}

#[test]
fn stalled_client_skips_no_number() {
    let mut talker = talker(true, false);
    let before = listen(&mut talker, START, START + S).rtp.len() as u64;
    let said = listen(&mut talker, START + 2 * S, START + 2 * S + 1);
    let numbers: Vec<u64> = said.rtp.iter().map(|(sent, ..)| sent.number).collect();
    assert_eq!(numbers, (before..before + numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() >= 50);
}

#[test]
fn frame_rate_of_video_is_set_and_restored() {
    let mut talker = talker(true, true);
    let frames = |said: &SentPackets| said.stream(1).filter(|(_, header, _)| header.marker).count();
    assert!((24..=26).contains(&frames(&listen(&mut talker, START, START + S))));
    let fault = DeviceFault { frames_per_second: Some(5), ..DeviceFault::default() };
    talker.set_device_fault(fault);
    assert!((5..=6).contains(&frames(&listen(&mut talker, START + S, START + 2 * S))));
    talker.set_device_fault(DeviceFault::default());
    let frames = frames(&listen(&mut talker, START + 2 * S, START + 3 * S));
    assert!((20..=26).contains(&frames), "{frames}");
}
