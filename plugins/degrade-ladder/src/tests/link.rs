//! Runs the policy on a simulated link, which its actions affect. The link loses packets above its capacity; loss is
//! smoothed over about a second, as by workers.

use super::{BitrateDown, Call, Duration, TICK};

/// Bit rate of the sender without a cap, kbit/s.
const WANTS: u32 = 1_000;

struct Link {
    call: Call,
    loss_ppm: f64,
}

/// Result of a period.
struct Came {
    rungs: usize,
    /// Share of the period with 3 % loss or more.
    lossy: f64,
    /// Average throughput, kbit/s.
    through: f64,
}

impl Link {
    fn with(settings: &str) -> Link {
        Link { call: Call::with(settings), loss_ppm: 0.0 }
    }

    fn carries(&mut self, kbps: u32, time: Duration) -> Came {
        let ticks = (time.as_millis() / TICK.as_millis()) as u32;
        let (mut rungs, mut lossy, mut through) = (0, 0, 0.0);
        for _ in 0..ticks {
            let cap = self.call.path().cap;
            let sends = if cap == 0 { WANTS } else { cap.min(WANTS) };
            let lost = 1.0 - f64::from(kbps.min(sends)) / f64::from(sends);
            self.loss_ppm += (lost * 1e6 - self.loss_ppm) / 10.0;
            self.call.measure(BitrateDown, sends);
            rungs += usize::from(self.call.tick(self.loss_ppm as u32).is_some());
            lossy += u32::from(lost >= 0.03);
            through += f64::from(kbps.min(sends));
        }
        let of = f64::from(ticks);
        Came { rungs, lossy: f64::from(lossy) / of, through: through / of }
    }
}

const CALL: &str = r#"{"down_after": "600ms", "up_after": "2s", "cap_factor": 0.85}"#;

#[test]
fn session_settles_below_reduced_bandwidth() {
    for kbps in [60, 110, 200, 270, 400, 550, 800, 940] {
        let mut link = Link::with(CALL);
        assert_eq!(link.carries(2_000, Duration::from_secs(60)).rungs, 0);
        let first = link.carries(kbps, Duration::from_secs(60));
        // The lowest rungs are a cap of 100 kbit/s and then voice only.
        if kbps >= 100 {
            assert!(first.lossy < 0.35, "{kbps}: {}", first.lossy);
        }
        let settled = link.carries(kbps, Duration::from_secs(600));
        assert!(settled.rungs <= 18, "{kbps}: {} rungs in ten minutes", settled.rungs);
        if kbps >= 100 {
            assert!(settled.lossy < 0.03, "{kbps}: {}", settled.lossy);
            assert!(settled.through > 0.6 * f64::from(kbps), "{kbps}: {}", settled.through);
        }
    }
}

#[test]
fn session_recovers_full_bandwidth_within_minutes() {
    for kbps in [60, 200, 400, 800] {
        let mut link = Link::with(CALL);
        link.carries(kbps, Duration::from_secs(600));
        link.carries(2_000, Duration::from_secs(200));
        assert_eq!(link.call.path().cap, 0, "{kbps}");
        assert!(!link.call.session.state.voice_only, "{kbps}");
        assert_eq!(link.carries(2_000, Duration::from_secs(600)).rungs, 0, "{kbps}");
    }
}

#[test]
fn flapping_link_causes_few_upgrades() {
    let mut link = Link::with(CALL);
    let mut rungs = Vec::new();
    for _ in 0..40 {
        let good = link.carries(2_000, Duration::from_secs(7)).rungs;
        rungs.push(good + link.carries(200, Duration::from_secs(7)).rungs);
    }
    let (early, late): (usize, usize) = (rungs[..10].iter().sum(), rungs[30..].iter().sum());
    assert!(late < early && late <= 10, "{rungs:?}");
}
