mod invalid;

use super::*;

#[test]
fn bit_rates_parse() {
    assert_eq!(parse_bit_rate("400 Mbit/s"), Ok(ConfigBitRate(400_000_000)));
    assert_eq!(parse_bit_rate("24kbit/s"), Ok(ConfigBitRate(24_000)));
    assert_eq!(parse_bit_rate("1.5 Gbit/s"), Ok(ConfigBitRate(1_500_000_000)));
    assert_eq!(parse_bit_rate("10_000 bit/s"), Ok(ConfigBitRate(10_000)));
}

#[test]
fn invalid_bit_rate_gets_a_hint() {
    assert_eq!(parse_bit_rate("2 Mbps"), Err(Some("write the unit as `Mbit/s`".to_owned())));
    for text in ["", "fast", "-3 kbit/s", "1.0005 bit/s", "3 MB/s", "99999999999 Gbit/s", "1. s"] {
        assert!(parse_bit_rate(text).is_err(), "{text}");
    }
}

#[test]
fn durations_parse() {
    assert_eq!(parse_duration("8s"), Ok(Duration::from_secs(8)));
    assert_eq!(parse_duration("200 ms"), Ok(Duration::from_millis(200)));
    assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
    assert_eq!(parse_duration("0.25ms"), Ok(Duration::from_micros(250)));
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
}

#[test]
fn duration_without_unit_gets_a_hint() {
    let hint = parse_duration("200").unwrap_err().unwrap();
    assert!(hint.contains("needs a unit"), "{hint}");
    assert_eq!(parse_duration("0.1us"), Err(None));
}

#[test]
fn quantities_round_trip() {
    for text in ["400 Mbit/s", "24 kbit/s", "1.5 Gbit/s", "7 bit/s"] {
        assert_eq!(parse_bit_rate(text).unwrap().to_string(), text);
    }
    for text in ["8s", "200ms", "90s", "2m", "250us", "3h"] {
        assert_eq!(spell(parse_duration(text).unwrap()), text);
    }
}
