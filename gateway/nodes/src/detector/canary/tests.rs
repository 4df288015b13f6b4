use fastrand::Rng;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Counts accusations during hours of canaries. Each canary is lost with this probability in each direction, and
/// delayed by up to `late` ms.
fn accusations(hours: u32, loss_percent: u8, late: u64, rng: &mut Rng) -> u32 {
    let mut now = Instant::now();
    let (mut canary, mut accused, mut times) = (CanaryPacket::default(), false, 0);
    let mut coming: Vec<(Instant, u64)> = Vec::new();
    let passes = |rng: &mut Rng| (0..2).all(|_| rng.u8(0..100) >= loss_percent);
    for sequence in 0..u64::from(hours) * 36_000 {
        if sequence.is_multiple_of(5) && passes(rng) && passes(rng) {
            canary.confirm(now);
        }
        canary.send(sequence, now);
        if passes(rng) {
            coming.push((now + MS * (rng.u64(0..=late) as u32), sequence));
        }
        now += MS * 100;
        coming.retain(|&(at, sequence)| {
            let comes = at <= now;
            if comes {
                canary.pass(sequence);
            }
            !comes
        });
        let accuses = canary.weigh(MS * 20, now).is_some();
        times += u32::from(accuses && !accused);
        accused = accuses;
    }
    times
}

#[test]
fn lossy_link_does_not_accuse_the_node() {
    let mut rng = Rng::with_seed(4);
    assert_eq!(accusations(20, 15, 160, &mut rng), 0);
    assert_eq!(accusations(2, 100, 0, &mut rng), 0, "a dead node does not say that it is open");
}
