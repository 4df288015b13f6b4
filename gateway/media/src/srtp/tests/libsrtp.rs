//! Packets of libsrtp, which `libsrtp.py` wrote beside this file. The protection of a packet is determined by key and
//! index, so equal bytes mean that each side opens the packets of the other.

use super::*;
use data_encoding::HEXLOWER;

const PACKETS: &str = include_str!("libsrtp.txt");

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).unwrap()
}

#[test]
fn packets_equal_those_of_libsrtp() {
    let (mut ends, mut rtp_packets, mut rtcp_packets) = (None, 0, 0);
    for line in PACKETS.lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let [name, key] = words[..] {
            let profile: SrtpProfile = name.parse().unwrap();
            let key = bytes(key);
            let (key, salt) = key.split_at(profile.key_len());
            let key = SrtpKey::new(profile, key, salt).unwrap();
            let mut sender = SrtpSender::new(&key);
            // libsrtp begins with index 1, RFC 3711 with 0.
            let (rtp, rtcp) = (IndexLease::default(), IndexLease { next: 1, limit: 1 });
            sender.restore(SentIndices { ssrc: 0x0ec0_ffee, rtp, rtcp }).unwrap();
            sender.lease(0x0ec0_ffee, u64::MAX, u64::MAX).unwrap();
            ends = Some((sender, SrtpReceiver::new(&key)));
            continue;
        }
        let [kind, plain, protected] = words[..] else { panic!("{line}") };
        let (sender, receiver) = ends.as_mut().unwrap();
        let (plain, protected) = (bytes(plain), bytes(protected));
        let (sealed, opened) = if kind == "rtp" {
            rtp_packets += 1;
            (sender.rtp(&plain), receiver.rtp(&protected))
        } else {
            rtcp_packets += 1;
            (sender.rtcp(&plain), receiver.rtcp(&protected))
        };
        assert_eq!((sealed, opened), (Ok(protected), Ok(plain)), "{line}");
    }
    let profiles = SrtpProfile::ALL.len();
    assert_eq!((rtp_packets, rtcp_packets), (15 * profiles, 4 * profiles));
}
