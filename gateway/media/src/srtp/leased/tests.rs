use std::collections::BTreeSet;

use super::super::SrtpProfile;
use super::super::grant::{CopyNumber, FREE_AFTER, IndexGrant, SentBatch};
use super::super::tests::start;
use super::*;
use crate::rtp;

const SSRC: u32 = 0xcafe_babe;

/// An owner, its standby's acknowledgements, and the packets that it sent.
struct Owner {
    sender: LeasedSender,
    grant: IndexGrant,
    now: Instant,
    follower: u64,
    copies: u64,
    used: BTreeSet<u16>,
}

fn key() -> SrtpKey {
    SrtpKey::new(SrtpProfile::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap()
}

impl Owner {
    fn new() -> Owner {
        let now = start();
        let (sender, grant) = (LeasedSender::new(&key()), IndexGrant::new(1, now));
        Owner { sender, grant, now, follower: 0, copies: 0, used: BTreeSet::new() }
    }

    fn at(&self) -> GrantView<'_> {
        GrantView { grant: &self.grant, worker: 0, now: self.now }
    }

    fn send(&mut self, sequence: u16) -> Result<usize, SrtpError> {
        let timestamp = u32::from(sequence) * 960;
        let fields =
            rtp::Fields { payload_type: 111, marker: false, sequence, timestamp, ssrc: SSRC };
        let mut packet = Vec::new();
        rtp::write(&fields, b"a frame of voice", &mut packet);
        let length = packet.len();
        packet.resize(length + 20, 0);
        let at = GrantView { grant: &self.grant, worker: 0, now: self.now };
        let sent = self.sender.protect_rtp(&mut packet, length, at);
        if sent.is_ok() {
            assert!(self.used.insert(sequence), "{sequence} twice");
        }
        sent
    }

    fn report(&mut self) -> Result<usize, SrtpError> {
        let mut packet = Vec::new();
        crate::rtcp::write_receiver_report(SSRC, &[], &mut packet);
        let length = packet.len();
        packet.resize(length + 20, 0);
        let at = GrantView { grant: &self.grant, worker: 0, now: self.now };
        self.sender.protect_rtcp(&mut packet, length, at)
    }

    fn copy(&mut self) -> Vec<SentIndices> {
        self.copies += 1;
        let at = GrantView { grant: &self.grant, worker: 0, now: self.now };
        self.sender.copy_for_standby(self.copies, at)
    }

    /// The standby has the copies up to this one.
    fn acknowledge(&mut self, copy: u64) {
        let copies = vec![CopyNumber { worker: 0, number: copy }];
        let batch = SentBatch { follower: self.follower, number: copy, copies };
        self.grant.acknowledge(&batch, self.now);
    }

    fn follow(&mut self) {
        self.follower = self.grant.begin(self.now);
    }
}

fn standby(copy: &[SentIndices]) -> LeasedSender {
    let mut sender = LeasedSender::new(&key());
    copy.iter().for_each(|source| sender.restore(*source).unwrap());
    sender
}

fn exhausted(result: Result<usize, SrtpError>) -> bool {
    matches!(result, Err(SrtpError::LeaseExhausted { .. }))
}

#[test]
fn owner_without_standby_has_no_limit() {
    let mut owner = Owner::new();
    assert!((1..20_000).all(|sequence| owner.send(sequence).is_ok()));
    assert!((0..20_000).all(|_| owner.report().is_ok()));
}

#[test]
fn copied_source_ends_at_the_limit_of_its_copy() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.report().unwrap();
    owner.follow();
    let copy = owner.copy();
    let [SentIndices { rtp, rtcp, .. }] = copy[..] else { panic!("{copy:?}") };
    assert_eq!((rtp.next, rtp.limit), (2, 2 + BLOCK_MIN));
    let sent = (2..5_000).take_while(|sequence| owner.send(*sequence).is_ok()).count() as u64;
    assert_eq!(2 + sent, rtp.limit);
    let reported = (0..).take_while(|_| owner.report().is_ok()).count() as u64;
    assert_eq!(1 + reported, rtcp.limit);
}

#[test]
fn acknowledged_copy_renews_the_lease() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.follow();
    owner.copy();
    (2..2_000).for_each(|sequence| _ = owner.send(sequence).unwrap());
    let limit = owner.copy()[0].rtp.limit;
    let first_refused = |owner: &mut Owner, from: u16| {
        (from..).find(|sequence| owner.send(*sequence).is_err()).unwrap()
    };
    let ended = first_refused(&mut owner, 2_000);
    assert!(u64::from(ended) < limit, "not acknowledged: {ended}");
    owner.acknowledge(2);
    assert_eq!(u64::from(first_refused(&mut owner, ended)), limit);
}

#[test]
fn standby_begins_where_the_owner_ends() {
    let mut owner = Owner::new();
    owner.send(63_000).unwrap();
    owner.follow();
    for copy in 1..4 {
        (0..700).for_each(|step| _ = owner.send(63_000_u16.wrapping_add(copy * 700 + step)));
        owner.copy();
        owner.acknowledge(copy.into());
    }
    let copy = owner.copy();
    let mut sequence = 63_000_u16.wrapping_add(2_800);
    while owner.send(sequence).is_ok() {
        sequence = sequence.wrapping_add(1);
    }
    let ended = owner.sender.counters().next().unwrap().rtp.next;
    let began = standby(&copy).counters().next().unwrap().rtp.next;
    assert!(ended <= began && began < ended + BLOCK_MIN, "{ended} {began}");
}

#[test]
fn new_source_of_a_copied_session_waits_for_the_standby() {
    let mut owner = Owner::new();
    owner.follow();
    assert_eq!(owner.copy(), []);
    owner.acknowledge(1);
    for sequence in [0, 1] {
        assert!(exhausted(owner.send(sequence)));
    }
    assert!(exhausted(owner.report()));
    let copy = owner.copy();
    assert_eq!(copy[0].rtp, IndexLease { next: 1, limit: 1 + BLOCK_MIN });
    assert!(exhausted(owner.send(2)));
    owner.acknowledge(2);
    assert!(owner.send(2).is_ok());
    assert!(owner.report().is_ok());
}

#[test]
fn jump_beyond_the_lease_waits_for_the_standby() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.follow();
    owner.copy();
    owner.acknowledge(1);
    assert!(exhausted(owner.send(3_000)));
    let limit = owner.copy()[0].rtp.limit;
    owner.acknowledge(2);
    assert!(owner.send(3_001).is_ok(), "{limit}");
}

#[test]
fn owner_whose_standby_is_silent_goes_on() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.follow();
    owner.copy();
    let ended = (2..).find(|sequence| owner.send(*sequence).is_err()).unwrap();
    owner.now += FREE_AFTER;
    assert!((ended..ended + 5_000).all(|sequence| owner.send(sequence).is_ok()));
    // The standby is back: until its first copy, the session goes on.
    owner.acknowledge(1);
    assert!((ended + 5_000..ended + 10_000).all(|sequence| owner.send(sequence).is_ok()));
    let limit = owner.copy()[0].rtp.limit;
    let ended = (ended + 10_000..).find(|sequence| owner.send(*sequence).is_err()).unwrap();
    assert_eq!(u64::from(ended), limit);
}

#[test]
fn many_copies_wait_for_one_acknowledgement() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.follow();
    for sequence in 2..200 {
        owner.send(sequence).unwrap();
        let limit = owner.copy()[0].rtp.limit;
        assert!(limit <= 2 + COPIES_MAX as u64 + BLOCK_MIN, "{limit}");
    }
    owner.acknowledge(owner.copies);
    owner.send(200).unwrap();
    owner.copy();
    assert!(owner.sender.copies.len() == 1);
}

#[test]
fn fast_source_gets_longer_leases() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.follow();
    owner.copy();
    owner.acknowledge(1);
    (2..2_002).for_each(|sequence| _ = owner.send(sequence).unwrap());
    owner.now += Duration::from_secs(1);
    let IndexLease { next, limit } = owner.copy()[0].rtp;
    assert_eq!(limit, next + 8_000, "4 s of 2,000 packets per second");
    owner.acknowledge(2);
    (2_002..10_002).for_each(|sequence| _ = owner.send(sequence).unwrap());
    owner.now += Duration::from_millis(200);
    let IndexLease { next, limit } = owner.copy()[0].rtp;
    assert_eq!(limit, next + BLOCK_MAX);
}

#[test]
fn process_that_continues_exactly_keeps_leases_and_limits() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    owner.follow();
    owner.copy();
    owner.acknowledge(1);
    let (counters, is_limited) =
        (owner.sender.counters().collect::<Vec<_>>(), owner.sender.is_limited(owner.at()));
    assert!(is_limited);
    for (was_limited, inherits) in [(true, true), (true, false), (false, true)] {
        let mut next = Owner::new();
        next.sender.restore_exact(&counters, was_limited).unwrap();
        if inherits {
            next.grant.inherit(next.now);
        }
        let count = (2..6_000).take_while(|sequence| next.send(*sequence).is_ok()).count();
        let limit = counters[0].rtp.limit as usize;
        let is_bound = was_limited && inherits;
        assert_eq!(count, if is_bound { limit - 2 } else { 5_998 }, "no jump");
    }
}

#[test]
fn process_that_continues_exactly_begins_no_source_without_the_standby() {
    let mut owner = Owner::new();
    owner.follow();
    assert_eq!(owner.copy(), []);
    let mut next = Owner::new();
    let was_limited = owner.sender.is_limited(owner.at());
    next.sender.restore_exact(&[], was_limited).unwrap();
    next.grant.inherit(next.now);
    assert!(exhausted(next.send(1)), "the standby knows the session, and not the source");
    assert!(exhausted(next.report()));
}

#[test]
fn silent_session_is_copied_again_in_a_new_round() {
    let mut owner = Owner::new();
    owner.send(1).unwrap();
    assert!(!owner.sender.needs_copy(owner.at()), "never copied: it has changed");
    owner.follow();
    owner.copy();
    assert!(!owner.sender.needs_copy(owner.at()));
    owner.acknowledge(1);
    assert!(owner.sender.needs_copy(owner.at()));
    owner.copy();
    assert!(!owner.sender.needs_copy(owner.at()));
}
