use super::*;
use crate::rtp::RtpError;
use evenkeel_fuzz::Corpus;
use index::{RTCP_INDICES, RTP_INDICES, WINDOW};
use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::Instant;

mod libsrtp;

const SSRC: u32 = 0xcafe_babe;
const FULL: SrtpError = SrtpError::SourcesFull { max: SOURCES_MAX };
const TAG80: SrtpProfile = SrtpProfile::Aes128CmHmacSha1Tag80;

/// Only distances from it count.
pub(super) fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    *ORIGIN
}

fn key(profile: SrtpProfile) -> SrtpKey {
    let bytes: Vec<u8> = (1..).take(profile.key_len() + profile.salt_len()).collect();
    let (key, salt) = bytes.split_at(profile.key_len());
    SrtpKey::new(profile, key, salt).unwrap()
}

/// Both ends of one direction, with all indices leased.
fn ends(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let (mut sender, receiver) = (SrtpSender::new(&key(profile)), SrtpReceiver::new(&key(profile)));
    sender.lease(SSRC, u64::MAX, u64::MAX).unwrap();
    (sender, receiver)
}

fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let fields = crate::rtp::Fields {
        payload_type: 111,
        marker: false,
        sequence,
        timestamp: u32::from(sequence) * 960,
        ssrc,
    };
    let mut packet = Vec::new();
    crate::rtp::write(&fields, b"a frame of voice", &mut packet);
    packet
}

fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    crate::rtcp::write_receiver_report(ssrc, &[<_>::default()], &mut packet);
    crate::rtcp::write_cname(ssrc, b"cname", &mut packet);
    packet
}

/// A buffer with the packet and room behind it.
fn with_space(packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + 40, 0xee);
    buffer
}

impl SrtpSender {
    fn rtp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        self.protect_rtp(&mut with_space(packet), packet.len()).map(|packet| packet.to_vec())
    }

    fn rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        self.protect_rtcp(&mut with_space(packet), packet.len()).map(|packet| packet.to_vec())
    }

    fn sequence(&mut self, sequence: u16) -> Result<Vec<u8>, SrtpError> {
        self.rtp(&rtp(SSRC, sequence))
    }
}

impl SrtpReceiver {
    fn rtp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        self.unprotect_rtp(&mut packet.to_vec()).map(|packet| packet.to_vec())
    }

    fn rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        self.unprotect_rtcp(&mut packet.to_vec()).map(|packet| packet.to_vec())
    }
}

#[test]
fn protected_packets_are_read_back() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = ends(profile);
        for sequence in 1..=3 {
            let plain = rtp(SSRC, sequence);
            let protected = sender.rtp(&plain).unwrap();
            assert_eq!(protected.len(), plain.len() + profile.rtp_overhead());
            assert_eq!(protected[..12], plain[..12]);
            assert_ne!(protected[12..plain.len()], plain[12..], "{profile:?}");
            assert_eq!(receiver.rtp(&protected), Ok(plain));
            let plain = rtcp(SSRC);
            let protected = sender.rtcp(&plain).unwrap();
            assert_eq!(protected.len(), plain.len() + profile.rtcp_overhead());
            assert_eq!(protected[..8], plain[..8]);
            assert_ne!(protected[8..plain.len()], plain[8..], "{profile:?}");
            assert_eq!(receiver.rtcp(&protected), Ok(plain));
        }
    }
}

#[test]
fn header_with_csrcs_extension_and_padding_stays_clear() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = ends(profile);
        let mut plain = rtp(SSRC, 7);
        plain[0] |= 0x20 | 0x10 | 1;
        plain.splice(12..12, [1, 2, 3, 4, 0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        plain.extend_from_slice(&[0, 0, 3]);
        let protected = sender.rtp(&plain).unwrap();
        assert_eq!(protected[..24], plain[..24]);
        assert_ne!(protected[24..plain.len()], plain[24..]);
        assert_eq!(receiver.rtp(&protected), Ok(plain));
    }
}

#[test]
fn empty_payload_is_protected() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = ends(profile);
        let plain = rtp(SSRC, 7)[..12].to_vec();
        let protected = sender.rtp(&plain).unwrap();
        assert_eq!(receiver.rtp(&protected), Ok(plain));
    }
}

#[test]
fn index_follows_two_rollovers() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = ends(profile);
        // Slowly across the rollovers, and by the longest jumps between them.
        let steps = [65_530..=65_545, 98_312..=98_312, 131_070..=131_080, 163_847..=163_847];
        for index in steps.into_iter().flatten() {
            let plain = rtp(SSRC, index as u16);
            let protected = sender.rtp(&plain).unwrap();
            assert_eq!(receiver.rtp(&protected), Ok(plain), "{profile:?} {index}");
            let [sent] = sender.counters().collect::<Vec<_>>()[..] else { panic!("one source") };
            let [heard] = receiver.counters().collect::<Vec<_>>()[..] else { panic!("one source") };
            assert_eq!((sent.rtp.next, heard.rtp_next), (index + 1, index + 1));
        }
    }
}

#[test]
fn reordering_across_a_rollover_is_followed() {
    let (mut sender, mut receiver) = ends(TAG80);
    let packets: Vec<_> = (65_500_u32..65_570)
        .map(|index| rtp(SSRC, index as u16))
        .map(|plain| (sender.rtp(&plain).unwrap(), plain))
        .collect();
    assert!(receiver.rtp(&packets[0].0).is_ok());
    for (protected, plain) in packets[1..].iter().rev() {
        assert_eq!(receiver.rtp(protected).as_ref(), Ok(plain));
    }
    assert_eq!(receiver.counters().next().map(|of| of.rtp_next), Some(65_570));
}

#[test]
fn replayed_packets_are_refused() {
    let (mut sender, mut receiver) = ends(TAG80);
    let packets: Vec<_> = (1_000..1_200).map(|number| sender.sequence(number).unwrap()).collect();
    let newest = packets.len() - 1;
    let window = WINDOW as usize;
    assert!(receiver.rtp(&packets[newest]).is_ok());
    assert_eq!(receiver.rtp(&packets[newest]), Err(SrtpError::Replayed));
    assert_eq!(receiver.rtp(&packets[newest - window]), Err(SrtpError::Replayed), "too old");
    for at in (newest + 1 - window..newest).rev() {
        assert!(receiver.rtp(&packets[at]).is_ok(), "{at} was not received yet");
        assert_eq!(receiver.rtp(&packets[at]), Err(SrtpError::Replayed), "{at}");
    }
}

#[test]
fn replayed_srtcp_is_refused() {
    let (mut sender, mut receiver) = ends(TAG80);
    let packets: Vec<_> = (0..200).map(|_| sender.rtcp(&rtcp(SSRC)).unwrap()).collect();
    let window = WINDOW as usize;
    for at in [0, 199, 200 - window] {
        assert!(receiver.rtcp(&packets[at]).is_ok(), "{at}");
    }
    for at in [0, 1, 199 - window, 200 - window, 199] {
        assert_eq!(receiver.rtcp(&packets[at]), Err(SrtpError::Replayed), "{at}");
    }
}

#[test]
fn flipped_bits_are_refused_and_change_nothing() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = ends(profile);
        receiver.rtp(&sender.sequence(1).unwrap()).unwrap();
        receiver.rtcp(&sender.rtcp(&rtcp(SSRC)).unwrap()).unwrap();
        let before: Vec<_> = receiver.counters().collect();
        let plain = rtp(SSRC, 2);
        let protected = sender.rtp(&plain).unwrap();
        for bit in 0..protected.len() * 8 {
            let mut changed = protected.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.rtp(&changed).is_err(), "{profile:?}, bit {bit} of SRTP");
        }
        let plain_rtcp = rtcp(SSRC);
        let protected_rtcp = sender.rtcp(&plain_rtcp).unwrap();
        for bit in 0..protected_rtcp.len() * 8 {
            let mut changed = protected_rtcp.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.rtcp(&changed).is_err(), "{profile:?}, bit {bit} of SRTCP");
        }
        assert_eq!(receiver.counters().collect::<Vec<_>>(), before);
        assert_eq!(receiver.rtp(&protected), Ok(plain));
        assert_eq!(receiver.rtcp(&protected_rtcp), Ok(plain_rtcp));
    }
}

#[test]
fn packets_of_another_key_are_forged() {
    for profile in SrtpProfile::ALL {
        let (mut sender, _) = ends(profile);
        let mut other = key(profile).key().to_vec();
        other[0] ^= 1;
        let other = SrtpKey::new(profile, &other, key(profile).salt()).unwrap();
        let mut receiver = SrtpReceiver::new(&other);
        assert_eq!(receiver.rtp(&sender.sequence(1).unwrap()), Err(SrtpError::Forged));
        assert_eq!(receiver.rtcp(&sender.rtcp(&rtcp(SSRC)).unwrap()), Err(SrtpError::Forged));
        assert_eq!(receiver.counters().count(), 0, "no source is added");
    }
}

#[test]
fn truncated_packets_are_refused() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = ends(profile);
        let protected = sender.sequence(1).unwrap();
        for length in 0..protected.len() {
            let expected = match length {
                0..12 => SrtpError::Rtp(RtpError::Short),
                12.. if length < 12 + profile.rtp_overhead() => SrtpError::Short,
                _ => SrtpError::Forged,
            };
            assert_eq!(receiver.rtp(&protected[..length]), Err(expected), "{profile:?} {length}");
        }
        let protected = sender.rtcp(&rtcp(SSRC)).unwrap();
        for length in 0..protected.len() {
            let error = receiver.rtcp(&protected[..length]).unwrap_err();
            match length {
                0..8 => assert_eq!(error, SrtpError::Rtcp),
                8.. if length < 8 + profile.rtcp_overhead() => assert_eq!(error, SrtpError::Short),
                _ => assert_eq!(error, SrtpError::Forged),
            }
        }
    }
}

#[test]
fn other_versions_are_refused() {
    let (mut sender, mut receiver) = ends(TAG80);
    let (mut packet, mut control) = (rtp(SSRC, 1), rtcp(SSRC));
    (packet[0], control[0]) = (0x40, 0x41);
    assert_eq!(sender.rtp(&packet), Err(SrtpError::Rtp(RtpError::Version)));
    assert_eq!(receiver.rtp(&packet), Err(SrtpError::Rtp(RtpError::Version)));
    assert_eq!(sender.rtcp(&control), Err(SrtpError::Rtcp));
    assert_eq!(receiver.rtcp(&control), Err(SrtpError::Rtcp));
}

#[test]
fn protected_packet_must_fit_its_buffer() {
    for profile in SrtpProfile::ALL {
        let (mut sender, _) = ends(profile);
        let plain = rtp(SSRC, 1);
        let needed = plain.len() + profile.rtp_overhead();
        let mut buffer = with_space(&plain);
        let refused = sender.protect_rtp(&mut buffer[..needed - 1], plain.len());
        assert_eq!(refused, Err(SrtpError::NoRoom { needed, found: needed - 1 }));
        assert_eq!(buffer, with_space(&plain), "it is unchanged");
        assert!(sender.protect_rtp(&mut buffer[..needed], plain.len()).is_ok());
        let plain = rtcp(SSRC);
        let needed = plain.len() + profile.rtcp_overhead();
        let mut buffer = with_space(&plain);
        let refused = sender.protect_rtcp(&mut buffer[..needed - 1], plain.len());
        assert_eq!(refused, Err(SrtpError::NoRoom { needed, found: needed - 1 }));
        assert!(sender.protect_rtcp(&mut buffer[..needed], plain.len()).is_ok());
    }
}

#[test]
fn longest_overhead_is_known() {
    let overheads = SrtpProfile::ALL.map(|of| of.rtp_overhead().max(of.rtcp_overhead()));
    assert_eq!(overheads.into_iter().max(), Some(OVERHEAD_MAX));
}

#[test]
fn packets_above_64_kib_are_refused() {
    let (mut sender, mut receiver) = ends(TAG80);
    let mut plain = rtp(SSRC, 1);
    plain.resize(PACKET_MAX - TAG80.rtp_overhead() + 1, 7);
    assert_eq!(sender.rtp(&plain), Err(SrtpError::Long));
    plain.pop();
    let mut protected = sender.rtp(&plain).unwrap();
    assert_eq!(receiver.rtp(&protected), Ok(plain));
    protected.push(0);
    assert_eq!(receiver.rtp(&protected), Err(SrtpError::Long));
    assert_eq!(receiver.rtcp(&protected), Err(SrtpError::Long));
    assert_eq!(sender.rtcp(&protected), Err(SrtpError::Long));
}

#[test]
fn table_of_sources_is_bounded() {
    let (mut sender, mut receiver) = (SrtpSender::new(&key(TAG80)), SrtpReceiver::new(&key(TAG80)));
    let mut strangers = SrtpSender::new(&key(TAG80));
    let max = SOURCES_MAX as u32;
    // In an order that is not that of the numbers.
    let ssrcs = (0..max).map(|number| number.wrapping_mul(0x9e37_79b9));
    for ssrc in ssrcs.clone() {
        sender.lease(ssrc, 10, 10).unwrap();
        assert!(receiver.rtp(&sender.rtp(&rtp(ssrc, 1)).unwrap()).is_ok());
    }
    assert_eq!(sender.lease(7, 10, 10), Err(FULL));
    assert_eq!(sender.rtp(&rtp(7, 1)), Err(SrtpError::NotLeased));
    strangers.lease(7, 10, 10).unwrap();
    let (packet, control) = (strangers.rtp(&rtp(7, 1)).unwrap(), strangers.rtcp(&rtcp(7)).unwrap());
    assert_eq!(receiver.rtp(&packet), Err(FULL));
    assert_eq!(receiver.rtcp(&control), Err(FULL));
    let counters = ReceivedIndices { ssrc: 7, rtp_next: 1, rtcp_next: 1 };
    assert_eq!(receiver.restore(counters), Err(FULL));
    for ssrc in ssrcs {
        assert!(receiver.rtp(&sender.rtp(&rtp(ssrc, 2)).unwrap()).is_ok(), "{ssrc:x} is known");
    }
    assert_eq!((sender.counters().count(), receiver.counters().count()), (256, 256));
}

#[test]
fn sources_have_indices_of_their_own() {
    let (mut sender, mut receiver) = ends(TAG80);
    sender.lease(5, 100, 100).unwrap();
    for (ssrc, sequence) in [(SSRC, 70), (5, 10), (SSRC, 71), (5, 11)] {
        let plain = rtp(ssrc, sequence);
        assert_eq!(receiver.rtp(&sender.rtp(&plain).unwrap()), Ok(plain));
        let plain = rtcp(ssrc);
        assert_eq!(receiver.rtcp(&sender.rtcp(&plain).unwrap()), Ok(plain));
    }
    let next: Vec<_> = receiver.counters().map(|of| (of.ssrc, of.rtp_next, of.rtcp_next)).collect();
    assert_eq!(next, [(5, 12, 2), (SSRC, 72, 2)]);
}

#[test]
fn nothing_is_protected_without_a_lease() {
    let mut sender = SrtpSender::new(&key(TAG80));
    assert_eq!(sender.sequence(0), Err(SrtpError::NotLeased));
    assert_eq!(sender.rtcp(&rtcp(SSRC)), Err(SrtpError::NotLeased));
    sender.lease(SSRC, 0, 1).unwrap();
    assert_eq!(sender.sequence(0), Err(SrtpError::LeaseExhausted { limit: 0 }));
    assert!(sender.rtcp(&rtcp(SSRC)).is_ok());
}

#[test]
fn exhausted_lease_refuses_until_it_is_renewed() {
    let (mut sender, mut receiver) = (SrtpSender::new(&key(TAG80)), SrtpReceiver::new(&key(TAG80)));
    sender.lease(SSRC, 1_001, 1).unwrap();
    assert!(receiver.rtp(&sender.sequence(1_000).unwrap()).is_ok());
    assert_eq!(sender.sequence(1_001), Err(SrtpError::LeaseExhausted { limit: 1_001 }));
    assert!(receiver.rtcp(&sender.rtcp(&rtcp(SSRC)).unwrap()).is_ok());
    assert_eq!(sender.rtcp(&rtcp(SSRC)), Err(SrtpError::LeaseExhausted { limit: 1 }));
    sender.lease(SSRC, 900, 0).unwrap();
    assert!(sender.sequence(1_000 - 5).is_ok(), "a limit never falls");
    sender.lease(SSRC, 1_002, 2).unwrap();
    assert!(receiver.rtp(&sender.sequence(1_001).unwrap()).is_ok());
    assert!(receiver.rtcp(&sender.rtcp(&rtcp(SSRC)).unwrap()).is_ok());
}

#[test]
fn key_ends_with_its_last_index() {
    let (mut sender, mut receiver) = (SrtpSender::new(&key(TAG80)), SrtpReceiver::new(&key(TAG80)));
    let (rtp, rtcp_limit) = (RTP_INDICES - 1, RTCP_INDICES - 1);
    let lease = |limit| IndexLease { next: limit, limit };
    sender.restore(SentIndices { ssrc: SSRC, rtp: lease(rtp), rtcp: lease(rtcp_limit) }).unwrap();
    receiver.restore(ReceivedIndices { ssrc: SSRC, rtp_next: rtp, rtcp_next: rtcp_limit }).unwrap();
    sender.lease(SSRC, u64::MAX, u64::MAX).unwrap();
    assert!(receiver.rtp(&sender.sequence(0xffff).unwrap()).is_ok());
    assert!(receiver.rtcp(&sender.rtcp(&rtcp(SSRC)).unwrap()).is_ok());
    assert_eq!(sender.sequence(0), Err(SrtpError::Reused), "the next index has 49 bits");
    let end = SrtpError::LeaseExhausted { limit: RTCP_INDICES };
    assert_eq!(sender.rtcp(&rtcp(SSRC)), Err(end));
}

#[test]
fn outbound_index_is_used_once() {
    let (mut sender, mut receiver) = ends(TAG80);
    let protected = sender.sequence(1_000).unwrap();
    assert_eq!(sender.sequence(1_000), Err(SrtpError::Reused), "also for the same packet");
    let window = WINDOW as u16;
    assert_eq!(sender.sequence(1_000 - window), Err(SrtpError::Reused), "too old to tell");
    let overtaken = sender.sequence(1_000 - (window - 1)).unwrap();
    assert_eq!(sender.sequence(1_000 - (window - 1)), Err(SrtpError::Reused));
    assert!(receiver.rtp(&protected).is_ok() && receiver.rtp(&overtaken).is_ok());
}

#[test]
fn jump_of_half_the_numbers_is_refused() {
    let (mut sender, mut receiver) = ends(TAG80);
    assert!(receiver.rtp(&sender.sequence(40_000).unwrap()).is_ok());
    assert_eq!(sender.sequence(7_232), Err(SrtpError::Reused), "32,768 ahead, or behind");
    assert!(receiver.rtp(&sender.sequence(7_231).unwrap()).is_ok(), "32,767 ahead");
}

#[test]
fn standby_begins_at_the_limit_of_the_owner() {
    let (mut owner, mut receiver) = (SrtpSender::new(&key(TAG80)), SrtpReceiver::new(&key(TAG80)));
    owner.lease(SSRC, 66_000, 50).unwrap();
    for index in 65_000_u32..65_100 {
        receiver.rtp(&owner.sequence(index as u16).unwrap()).unwrap();
    }
    receiver.rtcp(&owner.rtcp(&rtcp(SSRC)).unwrap()).unwrap();
    let copied: Vec<_> = owner.counters().collect();
    let (rtp, rtcp_lease) =
        (IndexLease { next: 65_100, limit: 66_000 }, IndexLease { next: 1, limit: 50 });
    assert_eq!(copied, [SentIndices { ssrc: SSRC, rtp, rtcp: rtcp_lease }]);
    let mut standby = SrtpSender::new(&key(TAG80));
    standby.restore(copied[0]).unwrap();
    assert_eq!(
        standby.sequence(66_000_u32 as u16),
        Err(SrtpError::LeaseExhausted { limit: 66_000 })
    );
    assert_eq!(standby.rtcp(&rtcp(SSRC)), Err(SrtpError::LeaseExhausted { limit: 50 }));
    standby.lease(SSRC, 70_000, 100).unwrap();
    for index in 65_900_u32..66_000 {
        assert_eq!(standby.sequence(index as u16), Err(SrtpError::Reused), "{index}");
    }
    receiver.rtp(&standby.sequence(66_000_u32 as u16).unwrap()).unwrap();
    receiver.rtcp(&standby.rtcp(&rtcp(SSRC)).unwrap()).unwrap();
    let counters = receiver.counters().next().unwrap();
    assert_eq!((counters.rtp_next, counters.rtcp_next), (66_001, 51));
    // The owner, which was only stopped, continues: below its limit.
    assert!(owner.sequence(65_999_u32 as u16).is_ok());
    assert_eq!(owner.sequence(66_000_u32 as u16), Err(SrtpError::LeaseExhausted { limit: 66_000 }));
}

#[test]
fn copy_that_receivers_cannot_follow_is_refused() {
    let copy = |next, limit| SentIndices {
        ssrc: SSRC,
        rtp: IndexLease { next, limit },
        rtcp: IndexLease::default(),
    };
    for (next, limit, is_followed) in [
        (40_000, 72_766, true),
        (40_000, 72_767, false),
        (105_536, 138_302, true),
        (105_536, 138_303, false),
        (0, 65_535, true),
        (0, 65_536, false),
    ] {
        let mut standby = SrtpSender::new(&key(TAG80));
        let refused = SrtpError::JumpTooFar { skipped: limit - next };
        let expected = if is_followed { Ok(()) } else { Err(refused) };
        assert_eq!(standby.restore(copy(next, limit)), expected, "{next} {limit}");
        assert_eq!(standby.counters().count(), usize::from(is_followed), "no source is added");
        // The receiver has the last copied index, or none.
        let (mut sender, mut receiver) = ends(TAG80);
        sender.restore(copy(limit, limit)).unwrap();
        receiver.restore(ReceivedIndices { ssrc: SSRC, rtp_next: next, rtcp_next: 0 }).unwrap();
        let received = receiver.rtp(&sender.sequence(limit as u16).unwrap());
        assert_eq!(received.is_ok(), is_followed, "{next} {limit}: {received:?}");
    }
}

#[test]
fn older_copy_takes_no_index_back() {
    let (mut sender, _) = ends(TAG80);
    for limit in [1_000, 900, 0] {
        let lease = IndexLease { next: 0, limit };
        sender.restore(SentIndices { ssrc: SSRC, rtp: lease, rtcp: lease }).unwrap();
        assert_eq!(sender.sequence(999), Err(SrtpError::Reused));
        assert_eq!(sender.counters().next().map(|of| of.rtcp.next), Some(1_000));
    }
    assert!(sender.sequence(1_000).is_ok());
}

#[test]
fn restored_receiver_refuses_all_that_was_copied() {
    let (mut sender, mut receiver) = ends(TAG80);
    let packets: Vec<_> =
        (65_500_u32..65_600).map(|index| sender.sequence(index as u16).unwrap()).collect();
    let controls: Vec<_> = (0..4).map(|_| sender.rtcp(&rtcp(SSRC)).unwrap()).collect();
    // The packets between were lost.
    receiver.rtp(&packets[0]).unwrap();
    receiver.rtp(&packets[90]).unwrap();
    receiver.rtcp(&controls[2]).unwrap();
    let mut standby = SrtpReceiver::new(&key(TAG80));
    for counters in receiver.counters() {
        standby.restore(counters).unwrap();
    }
    assert!(standby.counters().eq(receiver.counters()));
    for packet in &packets[..=90] {
        assert_eq!(standby.rtp(packet), Err(SrtpError::Replayed));
    }
    for packet in &packets[91..] {
        assert!(standby.rtp(packet).is_ok());
    }
    for control in &controls[..3] {
        assert_eq!(standby.rtcp(control), Err(SrtpError::Replayed));
    }
    assert!(standby.rtcp(&controls[3]).is_ok());
}

#[test]
fn debug_and_errors_contain_no_key() {
    for profile in SrtpProfile::ALL {
        let (sender, receiver) = ends(profile);
        let text = format!("{sender:?} {receiver:?}");
        for bytes in key(profile).key().windows(2).chain(key(profile).salt().windows(2)) {
            assert!(!text.contains(&format!("{}, {}", bytes[0], bytes[1])), "{text}");
        }
    }
}

/// Accepts no input but the two packets of the corpus.
fn fuzz(profile: SrtpProfile, target: &'static str) {
    let (mut sender, receiver) = ends(profile);
    let sent = [sender.sequence(1).unwrap(), sender.rtcp(&rtcp(SSRC)).unwrap()];
    let receiver = RefCell::new(receiver);
    Corpus::of(target).with(sent[0].clone()).with(sent[1].clone()).check(|packet| {
        let mut receiver = receiver.borrow_mut();
        let is_accepted = receiver.rtp(packet).is_ok() || receiver.rtcp(packet).is_ok();
        assert!(!is_accepted || sent.iter().any(|sent| sent == packet));
    });
}

#[test]
fn fuzz_srtp_gcm() {
    fuzz(SrtpProfile::AeadAes128Gcm, "srtp_gcm");
}

#[test]
fn fuzz_srtp_cm() {
    fuzz(TAG80, "srtp_cm");
}
