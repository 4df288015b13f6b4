//! Whether a queue on the path grows or drains, from the one-way delay of packets.

/// Packets that were sent within this time are a group (gcc-02, section 5.2).
const BURST_US: i64 = 5_000;

/// Packets that arrive within [`BURST_US`] of one another, in less time than they were sent, are a group up to this length: a queue of the
/// access network let them go together (gcc-02, section 5.2).
const BURST_MAX_US: i64 = 100_000;

/// Two groups whose delays differ by more belong to different clocks.
const JUMP_MAX_US: i64 = 3_000_000;

/// Groups of the linear regression, which replaces the Kalman filter of gcc-02, section 5.3.
const POINTS: usize = 20;

/// Groups from which on there is a trend.
const POINTS_MIN: usize = 8;

/// Weight of the former smoothed delay.
const SMOOTHING: f64 = 0.8;

/// The trend is compared with a threshold in milliseconds, as the growth of the delay over this many groups ...
const GROUPS_MAX: u32 = 60;

/// ... with this gain.
const GAIN: f64 = 4.0;

/// The growth must last for this time of sending, and for more than one group (gcc-02, section 5.4).
const OVERUSE_MS: f64 = 10.0;

/// Where the adaptive threshold begins, its bounds, and its gains per millisecond while the trend is above and below it (gcc-02, sections 5.4
/// and 5.6).
const THRESHOLD_MS: f64 = 12.5;
const THRESHOLD_MIN_MS: f64 = 6.0;
const THRESHOLD_MAX_MS: f64 = 600.0;
const THRESHOLD_RISE: f64 = 0.0087;
const THRESHOLD_FALL: f64 = 0.039;

/// A trend that exceeds the threshold by more is a sudden fault, to which it does not adapt (gcc-02, section 5.4).
const THRESHOLD_REACH_MS: f64 = 15.0;

/// The threshold adapts to a pause no longer than this.
const THRESHOLD_STEP_MAX_MS: f64 = 100.0;

/// The state of the path's queue (gcc-02, section 5.4).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum PathUse {
    /// It drains.
    Under,
    #[default]
    Normal,
    /// It grows.
    Over,
}

/// The trend of the one-way delay over the last groups of packets.
#[derive(Debug)]
pub(super) struct DelayTrend {
    threshold_ms: f64,
    adapted_ms: Option<f64>,
    filter: TrendFilter,
}

/// What [`DelayTrend::restart`] forgets.
#[derive(Default, Debug)]
struct TrendFilter {
    group: Option<PacketGroup>,
    previous: Option<PacketGroup>,
    /// The delay relative to the first group.
    delay_ms: f64,
    smoothed_ms: f64,
    points: [Point; POINTS],
    filled: usize,
    groups: u32,
    slope: Option<f64>,
    last_trend_ms: f64,
    overuse_ms: f64,
    overuse_groups: u32,
    path_use: PathUse,
}

/// Packets that count as one.
#[derive(Clone, Copy, Debug)]
struct PacketGroup {
    first_sent_us: i64,
    sent_us: i64,
    first_arrived_us: i64,
    arrived_us: i64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Point {
    arrived_ms: f64,
    delay_ms: f64,
}

impl Default for DelayTrend {
    fn default() -> Self {
        let filter = TrendFilter::default();
        DelayTrend { threshold_ms: THRESHOLD_MS, adapted_ms: None, filter }
    }
}

impl DelayTrend {
    /// Forgets all packets, but not the threshold.
    pub(super) fn restart(&mut self) {
        self.filter = TrendFilter::default();
    }

    pub(super) fn path_use(&self) -> PathUse {
        self.filter.path_use
    }

    /// The growth of the delay per time, without a unit. `None` before there are enough groups.
    pub(super) fn slope(&self) -> Option<f64> {
        self.filter.slope
    }

    /// Adds a packet that arrived, in the order of sending. Returns the state of the queue.
    pub(super) fn note(&mut self, sent_us: i64, arrived_us: i64) -> PathUse {
        let group = PacketGroup {
            first_sent_us: sent_us,
            sent_us,
            first_arrived_us: arrived_us,
            arrived_us,
        };
        let Some(current) = &mut self.filter.group else {
            self.filter.group = Some(group);
            return self.path_use();
        };
        if sent_us < current.sent_us {
            return self.path_use();
        }
        if current.includes(sent_us, arrived_us) {
            current.sent_us = sent_us;
            current.arrived_us = current.arrived_us.max(arrived_us);
            return self.path_use();
        }
        let complete = std::mem::replace(current, group);
        if let Some(previous) = self.filter.previous.replace(complete) {
            let sent_us = complete.sent_us - previous.sent_us;
            let arrived_us = complete.arrived_us - previous.arrived_us;
            if arrived_us < 0 || (arrived_us - sent_us).abs() > JUMP_MAX_US {
                self.restart();
                self.filter.group = Some(group);
            } else {
                self.add(sent_us as f64 / 1e3, arrived_us as f64 / 1e3, complete.arrived_us);
            }
        }
        self.path_use()
    }

    /// Adds a group by its distances from the group before.
    fn add(&mut self, sent_ms: f64, arrived_ms: f64, arrived_us: i64) {
        let filter = &mut self.filter;
        filter.groups = (filter.groups + 1).min(GROUPS_MAX);
        filter.delay_ms += arrived_ms - sent_ms;
        filter.smoothed_ms = SMOOTHING * filter.smoothed_ms + (1.0 - SMOOTHING) * filter.delay_ms;
        let now_ms = arrived_us as f64 / 1e3;
        if filter.filled == POINTS {
            filter.points.copy_within(1.., 0);
            filter.filled -= 1;
        }
        let point = Point { arrived_ms: now_ms, delay_ms: filter.smoothed_ms };
        filter.points[filter.filled] = point;
        filter.filled += 1;
        let points = &filter.points[..filter.filled];
        if points.len() < POINTS_MIN {
            return;
        }
        let Some(slope) = slope_of(points) else { return };
        filter.slope = Some(slope);
        let trend_ms = f64::from(filter.groups) * slope * GAIN;
        if trend_ms > self.threshold_ms {
            filter.overuse_ms += sent_ms;
            filter.overuse_groups += 1;
            let is_over = filter.overuse_ms > OVERUSE_MS
                && filter.overuse_groups > 1
                && trend_ms >= filter.last_trend_ms;
            filter.path_use = if is_over { PathUse::Over } else { PathUse::Normal };
        } else {
            (filter.overuse_ms, filter.overuse_groups) = (0.0, 0);
            let is_under = trend_ms < -self.threshold_ms;
            filter.path_use = if is_under { PathUse::Under } else { PathUse::Normal };
        }
        filter.last_trend_ms = trend_ms;
        self.adapt_threshold(trend_ms.abs(), now_ms);
    }

    fn adapt_threshold(&mut self, trend_ms: f64, now_ms: f64) {
        let passed_ms = now_ms - self.adapted_ms.replace(now_ms).unwrap_or(now_ms);
        let above_ms = trend_ms - self.threshold_ms;
        if above_ms > THRESHOLD_REACH_MS {
            return;
        }
        let gain = if above_ms > 0.0 { THRESHOLD_RISE } else { THRESHOLD_FALL };
        self.threshold_ms += gain * above_ms * passed_ms.clamp(0.0, THRESHOLD_STEP_MAX_MS);
        self.threshold_ms = self.threshold_ms.clamp(THRESHOLD_MIN_MS, THRESHOLD_MAX_MS);
    }
}

impl PacketGroup {
    fn includes(&self, sent_us: i64, arrived_us: i64) -> bool {
        let after_us = arrived_us - self.arrived_us;
        sent_us - self.first_sent_us <= BURST_US
            || (0..=BURST_US).contains(&after_us)
                && after_us < sent_us - self.sent_us
                && arrived_us - self.first_arrived_us < BURST_MAX_US
    }
}

/// Returns the slope of the line through these points with the least squares; `None` if all arrived at once.
fn slope_of(points: &[Point]) -> Option<f64> {
    let count = points.len() as f64;
    let origin = points.first()?.arrived_ms;
    let mean_at = points.iter().map(|point| point.arrived_ms - origin).sum::<f64>() / count;
    let mean_delay = points.iter().map(|point| point.delay_ms).sum::<f64>() / count;
    let (mut squares, mut products) = (0.0, 0.0);
    for point in points {
        let at = point.arrived_ms - origin - mean_at;
        squares += at * at;
        products += at * (point.delay_ms - mean_delay);
    }
    (squares > 0.0).then(|| products / squares)
}

#[cfg(test)]
mod tests;
