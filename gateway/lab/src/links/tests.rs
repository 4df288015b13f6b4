use super::*;

fn fates(seed: u64, conditions: Conditions, packets: usize) -> Vec<bool> {
    let mut link = Impairment::new(seed);
    link.conditions = conditions;
    let now = Instant::now();
    (0..packets).map(|_| matches!(link.decide(now, 200), PacketOutcome::Drop(_))).collect()
}

#[test]
fn losses_depend_on_the_seed_alone() {
    let tenth = Conditions::loss_percent(10);
    assert_eq!(fates(5, tenth, 2_000), fates(5, tenth, 2_000));
    assert_ne!(fates(5, tenth, 2_000), fates(6, tenth, 2_000));
}

#[test]
fn loss_matches_its_probability() {
    let lost = |conditions| fates(5, conditions, 20_000).into_iter().filter(|&lost| lost).count();
    assert_eq!(lost(Conditions::default()), 0);
    assert_eq!(lost(Conditions::loss_percent(100)), 20_000);
    let tenth = lost(Conditions::loss_percent(10));
    assert!((1_800..2_200).contains(&tenth), "{tenth} of 20,000");
}

#[test]
fn bursts_lose_runs_of_packets() {
    let bursts =
        Bursts { enter_ppm: 10_000, leave_ppm: 100_000, good_loss_ppm: 0, bad_loss_ppm: 1_000_000 };
    let in_bursts = fates(5, Conditions { bursts: Some(bursts), ..Conditions::default() }, 50_000);
    let singly = fates(5, Conditions { loss_ppm: 91_000, ..Conditions::default() }, 50_000);
    assert!(mean_run(&in_bursts) > 7.0, "{}", mean_run(&in_bursts));
    assert!(mean_run(&singly) < 1.3, "{}", mean_run(&singly));
}

fn mean_run(fates: &[bool]) -> f64 {
    let runs: Vec<usize> =
        fates.split(|lost| !lost).map(<[bool]>::len).filter(|&n| n > 0).collect();
    runs.iter().sum::<usize>() as f64 / runs.len() as f64
}

#[test]
fn blackout_does_not_change_later_fates() {
    let tenth = Conditions::loss_percent(10);
    let undisturbed = fates(5, tenth, 1_000);
    let mut link = Impairment::new(5);
    let now = Instant::now();
    let disturbed: Vec<bool> = (0..1_000)
        .map(|i| {
            link.conditions = Conditions { blackout: (300..400).contains(&i), ..tenth };
            matches!(link.decide(now, 200), PacketOutcome::Drop(_))
        })
        .collect();
    assert!(disturbed[300..400].iter().all(|&lost| lost));
    assert_eq!(disturbed[400..], undisturbed[400..]);
    assert_eq!(disturbed[..300], undisturbed[..300]);
}

#[test]
fn jitter_delays_within_its_bounds_and_keeps_order() {
    let mut link = Impairment::new(5);
    let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(10));
    link.conditions = Conditions { delay, jitter, ..Conditions::default() };
    let start = Instant::now();
    let mut last = start;
    for i in 0..500 {
        let now = start + Duration::from_millis(i);
        let PacketOutcome::Deliver { at, copy_at: None, turned: None } = link.decide(now, 200)
        else {
            panic!()
        };
        assert!(at >= now + delay && at <= now + delay + jitter);
        assert!(at >= last);
        last = at;
    }
}

#[test]
fn packets_overtake_if_order_is_not_kept() {
    let jitter = Duration::from_millis(160);
    let mut link = Impairment::new(3);
    link.conditions = Conditions { jitter, overtaking: true, ..Conditions::default() };
    let start = Instant::now();
    let leaves: Vec<_> = (0..500)
        .map(|packet| {
            let now = start + Duration::from_millis(packet);
            let PacketOutcome::Deliver { at, .. } = link.decide(now, 200) else {
                panic!("no loss configured")
            };
            assert!(at >= now && at <= now + jitter);
            at
        })
        .collect();
    let overtaken = leaves.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(overtaken > 200, "{overtaken} of 499");
}

#[test]
fn reordered_packet_leaves_after_its_successor() {
    let mut link = Impairment::new(5);
    let now = Instant::now();
    link.conditions = Conditions { reorder_ppm: 1_000_000, ..Conditions::default() };
    let PacketOutcome::Deliver { at: late, .. } = link.decide(now, 200) else { panic!() };
    link.conditions = Conditions::default();
    let PacketOutcome::Deliver { at: next, .. } = link.decide(now, 200) else { panic!() };
    assert!(next < late);
}

#[test]
fn slow_link_queues_to_its_bound_then_drops() {
    let mut link = Impairment::new(5);
    link.conditions = Conditions { rate_bps: Some(160_000), ..Conditions::default() };
    let now = Instant::now();
    // 200 bytes take 10 ms at 160 kbit/s: the queue of 200 ms holds 21 packets.
    for i in 1..=21 {
        let PacketOutcome::Deliver { at, .. } = link.decide(now, 200) else { panic!("{i}") };
        assert_eq!(at, now + Duration::from_millis(10 * i));
    }
    assert_eq!(link.decide(now, 200), PacketOutcome::Drop(ImpairmentCause::Rate));
    let later = now + Duration::from_millis(10);
    assert!(matches!(link.decide(later, 200), PacketOutcome::Deliver { .. }));
}

#[test]
fn flipped_bit_lies_inside_the_packet() {
    let mut link = Impairment::new(5);
    link.conditions = Conditions { corrupt_ppm: 1_000_000, ..Conditions::default() };
    for _ in 0..1_000 {
        let PacketOutcome::Deliver { turned: Some(bit), .. } = link.decide(Instant::now(), 3)
        else {
            panic!()
        };
        assert!(bit < 24);
    }
    assert!(matches!(link.decide(Instant::now(), 0), PacketOutcome::Deliver { turned: None, .. }));
}
