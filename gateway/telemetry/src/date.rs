//! Dates in labels and log lines.

use std::time::SystemTime;

use evenkeel_process::unix_us;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Date and minute in UTC: `2027-01-31 09:41 UTC`. Times after the year 9999 have the end of that year.
pub fn date(at: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let seconds = i64::try_from(unix_us(at) / 1_000_000).unwrap_or(i64::MAX);
    let last = PrimitiveDateTime::MAX.assume_utc();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(last);
    at.format(format).expect("the format has parts of a date and a time")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn date_has_the_minute_in_utc() {
        let date = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(date(67_090_118_400), "4096-01-01 00:00 UTC");
        assert_eq!(date(253_402_300_800), "9999-12-31 23:59 UTC");
    }
}
