//! Impairments of links over time.

use std::time::Duration;

use evenkeel_lab::links::Conditions;
use evenkeel_lab::relay::Direction;
use tokio::time::{Instant, sleep};

use crate::stage::Stage;

/// Update interval of an impairment that changes.
const CHANGES_EVERY: Duration = Duration::from_millis(100);

/// The way in which a link is bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Impairment {
    Cut,
    /// Packets from the node are dropped.
    OneWay,
    /// Loss grows evenly to this many per cent.
    LossRamp(u32),
    /// This percentage of packets is lost.
    Loss(u32),
    /// All packets are dropped for 200 ms of every 5 s.
    Blackouts,
    /// Additional delay, milliseconds.
    Later(u64),
    /// Additional delay of this much, plus or minus as much, milliseconds. It grows over the first half: a step within
    /// one packet, with order kept, looks like a death.
    Jitter(u64),
    /// Like `Jitter`, with reordering.
    Scatter(u64),
    /// 10 % of packets are delayed, 5 % are duplicated.
    Unsteady,
    /// 1 % of packets have a flipped bit.
    Corrupt,
    /// Datagrams longer than this do not cross.
    Mtu(usize),
    /// The link carries this many bits per second.
    Rate(u64),
}

impl Impairment {
    /// Impairs the links of these nodes; they stay impaired after the return.
    pub(crate) async fn impair(
        self,
        stage: &Stage,
        names: &[String],
        long: Duration,
    ) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let past = began.elapsed();
            for name in names {
                let node = stage.node(name)?;
                let Some(link) = &node.link else { return Err(format!("no link to {name}")) };
                let clear = stage.clear(node.region);
                for direction in [Direction::Up, Direction::Down] {
                    link.set(direction, self.conditions(clear, direction, past, long));
                }
                if let Impairment::Mtu(bytes) = self {
                    link.set_mtu(bytes);
                }
            }
            if past >= long {
                return Ok(());
            }
            sleep(CHANGES_EVERY.min(long - past)).await;
        }
    }

    fn conditions(
        self,
        clear: Conditions,
        direction: Direction,
        past: Duration,
        long: Duration,
    ) -> Conditions {
        let ms = Duration::from_millis;
        let percent = |percent: u32| percent * 10_000;
        let share = (past.as_secs_f64() / long.as_secs_f64().max(0.001)).min(1.0);
        match self {
            Impairment::Cut => Conditions { blackout: true, ..clear },
            Impairment::OneWay => Conditions { blackout: direction == Direction::Down, ..clear },
            Impairment::LossRamp(most) => {
                Conditions { loss_ppm: (f64::from(percent(most)) * share) as u32, ..clear }
            }
            Impairment::Loss(loss) => Conditions { loss_ppm: percent(loss), ..clear },
            Impairment::Blackouts => {
                Conditions { blackout: past.as_millis() % 5_000 < 200, ..clear }
            }
            Impairment::Later(later) => Conditions { delay: clear.delay + ms(later), ..clear },
            Impairment::Jitter(most) | Impairment::Scatter(most) => Conditions {
                jitter: ms(2 * most).mul_f64((2.0 * share).min(1.0)),
                overtaking: matches!(self, Impairment::Scatter(_)),
                ..clear
            },
            Impairment::Unsteady => {
                Conditions { reorder_ppm: percent(10), duplicate_ppm: percent(5), ..clear }
            }
            Impairment::Corrupt => Conditions { corrupt_ppm: percent(1), ..clear },
            Impairment::Mtu(_) => clear,
            Impairment::Rate(bits) => Conditions { rate_bps: Some(bits), ..clear },
        }
    }
}
