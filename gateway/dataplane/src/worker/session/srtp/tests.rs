use evenkeel_media::srtp::{IndexGrant, SrtpKey, SrtpProfile};
use evenkeel_model::{Incarnation, NodeId};

use super::*;

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

fn keys(byte: u8) -> Arc<SrtpKeys> {
    let key = |byte| SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes| bytes.fill(byte));
    Arc::new(SrtpKeys { client: key(byte), gateway: key(byte + 1), tag: None })
}

/// Returns the reason for which RTP with this number is not encrypted for the node.
fn refused(ends: &mut SrtpEnds, sequence: u8) -> Option<DropReason> {
    let now = Instant::now();
    let grant = IndexGrant::new(0, now);
    let packet = [0x80, 0, 0, sequence, 0, 0, 0, 1, 0, 0, 0, 5, 1];
    let at = GrantView { grant: &grant, worker: 0, now };
    let sent = ends.protect_to_node(HOP, RtpSide::Rtp, &packet, &mut Vec::new(), at);
    sent.err().map(|refused| refused.reason)
}

#[test]
fn leg_with_other_keys_begins_anew() {
    let mut ends = SrtpEnds::default();
    assert_eq!(refused(&mut ends, 1), Some(DropReason::SrtpNoKeys));
    ends.set_leg(HOP, &keys(1));
    assert_eq!([1, 1].map(|number| refused(&mut ends, number)), [None, Some(DropReason::Stale)]);
    ends.set_leg(HOP, &keys(1));
    assert_eq!(refused(&mut ends, 1), Some(DropReason::Stale), "the same keys");
    ends.set_leg(HOP, &keys(3));
    assert_eq!(refused(&mut ends, 1), None);
    ends.forget_leg(HOP);
    assert!(ends.is_empty());
}

#[test]
fn continued_leg_needs_its_counters() {
    let mut before = SrtpEnds::default();
    before.set_leg(HOP, &keys(1));
    assert_eq!(refused(&mut before, 1), None);
    let counters = before.leg_counters();
    for (counters, is_behind, begins) in
        [(&counters[..], false, true), (&counters, true, false), (&[], false, false)]
    {
        let (mut ends, keys) = (SrtpEnds::default(), keys(1));
        ends.continue_legs([(HOP, &keys)].into_iter(), counters, is_behind);
        assert_eq!(ends.begin_to_send(Instant::now()), begins);
        let wanted = if begins { None } else { Some(DropReason::SrtpIndex) };
        assert_eq!(refused(&mut ends, 2), wanted);
    }
}

#[test]
fn keys_of_dtls_do_not_change() {
    let mut ends = SrtpEnds::default();
    ends.set_keys(&keys(1));
    assert!(ends.is_empty() && ends.client_counters().is_none(), "plain RTP takes no keys");
    ends.set_client(SrtpKeying::Sdes(keys(1)));
    let now = Instant::now();
    let grant = IndexGrant::new(0, now);
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5, 1];
    let at = GrantView { grant: &grant, worker: 0, now };
    assert_eq!(ends.protect_to_client(RtpSide::Rtp, &mut packet, at), Ok(()));
    let used = |ends: &SrtpEnds| ends.client_counters().map(|counters| counters.sent.len());
    ends.set_keys(&keys(3));
    assert_eq!(used(&ends), Some(1), "the contexts of other keys have used no index");
}
