//! Bit rates and durations as text: `400 Mbit/s`, `24 kbit/s`, `8s`, `200ms`.

use std::fmt;
use std::time::Duration;

/// A bit rate in bit/s: `500 kbit/s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConfigBitRate(pub u64);

impl ConfigBitRate {
    /// The rate in kbit/s, rounded down.
    pub fn kbps(self) -> u64 {
        self.0 / 1_000
    }
}

impl fmt::Display for ConfigBitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, unit) =
            RATES.iter().rev().find(|(scale, _)| self.0 >= *scale).unwrap_or(&RATES[0]);
        let (whole, rest) = (self.0 / scale, self.0 % scale);
        if rest == 0 {
            return write!(f, "{whole} {unit}");
        }
        let digits = scale.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        write!(f, "{whole}.{} {unit}", fraction.trim_end_matches('0'))
    }
}

/// Units in ascending order; the last one that fits is the largest.
const RATES: [(u64, &str); 4] =
    [(1, "bit/s"), (1_000, "kbit/s"), (1_000_000, "Mbit/s"), (1_000_000_000, "Gbit/s")];

const SPANS: [(u64, &str); 5] =
    [(1, "us"), (1_000, "ms"), (1_000_000, "s"), (60_000_000, "m"), (3_600_000_000, "h")];

/// Reads a bit rate; the error is a hint, if there is one.
pub(super) fn bit_rate(text: &str) -> Result<ConfigBitRate, Option<String>> {
    let unit = split(text).1;
    quantity(text, &RATES).map(ConfigBitRate).ok_or_else(|| {
        let meant = match unit {
            "bps" | "b/s" => "bit/s",
            "kbps" | "kb/s" | "Kbit/s" | "kbit" | "k" => "kbit/s",
            "Mbps" | "mbps" | "Mb/s" | "mbit/s" | "Mbit" | "M" => "Mbit/s",
            "Gbps" | "gbps" | "Gb/s" | "gbit/s" | "Gbit" | "G" => "Gbit/s",
            _ => return None,
        };
        Some(format!("write the unit as `{meant}`"))
    })
}

/// Reads a duration such as `8s`. The error names the expected syntax.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    let right = "expected a duration such as `60s`, `5m` or `200ms`";
    duration(text).map_err(|hint| hint.unwrap_or_else(|| right.to_owned()))
}

/// Reads a duration, exact to the microsecond; the error is a hint, if there is one.
pub(super) fn duration(text: &str) -> Result<Duration, Option<String>> {
    let unit = split(text).1;
    quantity(text, &SPANS).map(Duration::from_micros).ok_or_else(|| {
        let meant = match unit {
            "" => return Some("a duration needs a unit, as in `8s` or `200ms`".to_owned()),
            "sec" | "secs" | "second" | "seconds" => "s",
            "msec" | "millis" | "milliseconds" => "ms",
            "µs" | "usec" | "micros" => "us",
            "min" | "mins" | "minute" | "minutes" => "m",
            "hour" | "hours" => "h",
            _ => return None,
        };
        Some(format!("write the unit as `{meant}`"))
    })
}

/// Formats a duration for [`duration`].
pub(super) fn spell(duration: Duration) -> String {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let whole = SPANS.iter().rev().find(|(scale, _)| us >= *scale && us.is_multiple_of(*scale));
    let (scale, unit) = whole.unwrap_or(&SPANS[0]);
    format!("{}{unit}", us / scale)
}

fn split(text: &str) -> (&str, &str) {
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(number.unwrap_or(text.len()));
    (number, unit.trim_start())
}

/// Reads `number unit` in the smallest unit; `None` unless it is a whole number of those.
fn quantity(text: &str, units: &[(u64, &str)]) -> Option<u64> {
    let (number, unit) = split(text);
    let &(scale, _) = units.iter().find(|(_, name)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.replace('_', "").parse::<u64>().ok()?.checked_mul(scale)?;
    let digits = u32::try_from(fraction.len()).ok()?;
    let fraction = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
    let divisor = 10u64.checked_pow(digits)?;
    if fraction % divisor != 0 {
        return None;
    }
    whole.checked_add(fraction / divisor)
}

#[cfg(test)]
mod tests;
