use evenkeel_model::Incarnation;

use super::*;

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

fn home(slot: u32) -> Home {
    Home { worker: 0, slot, generation: 1 }
}

fn early() -> Early {
    Early::new(EarlyLimits { packets: 2, wait: Duration::from_millis(200) })
}

fn keep(early: &mut Early, slot: u32, byte: u8, now: Instant) -> bool {
    early.keep_outbound(home(slot), HOP, RtpSide::Rtp, StreamKind::Audio, &[byte], now)
}

#[test]
fn packets_leave_in_order_once_their_leg_is_there() {
    let (now, mut early) = (Instant::now(), early());
    assert!(
        keep(&mut early, 1, 10, now)
            && keep(&mut early, 2, 20, now)
            && keep(&mut early, 1, 11, now)
    );
    assert_eq!(early.sort_out(now, |_, _| false), 0);
    assert!(early.ready.pop_front().is_none());
    assert_eq!(early.sort_out(now, |home, _| home.slot == 1), 0);
    let ready = std::iter::from_fn(|| early.ready.pop_front());
    assert_eq!(ready.map(|waiting| waiting.packet[0]).collect::<Vec<_>>(), [10, 11]);
    assert!(!early.is_empty());
}

#[test]
fn session_is_limited_to_its_own_share() {
    let (now, mut early) = (Instant::now(), early());
    assert!(keep(&mut early, 1, 0, now) && keep(&mut early, 1, 1, now));
    assert!(!keep(&mut early, 1, 2, now));
    assert!(keep(&mut early, 2, 0, now));
}

#[test]
fn expired_packet_is_counted_and_dropped() {
    let (now, mut early) = (Instant::now(), early());
    keep(&mut early, 1, 0, now);
    assert_eq!(early.sort_out(now + Duration::from_millis(199), |_, _| false), 0);
    assert_eq!(early.sort_out(now + Duration::from_millis(200), |_, _| false), 1);
    assert!(early.is_empty());
}
