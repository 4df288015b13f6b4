use evenkeel_config::GatewayConfig;
use evenkeel_telemetry::Telemetry;

use super::*;

/// The value of the metric `evenkeel_group_takeover_duration_seconds_<part>` for this phase.
fn value(text: &str, part: &str, phase: &str) -> Option<f64> {
    let start = format!("evenkeel_group_takeover_duration_seconds_{part}{{");
    let phase = format!("evenkeel_phase=\"{phase}\"");
    let mut lines = text.lines().filter(|it| it.starts_with(&start) && it.contains(&phase));
    lines.next().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn phases_add_up_from_the_last_beat_to_the_sessions() {
    let telemetry = Telemetry::start(&GatewayConfig::load(None, None).unwrap(), "test").unwrap();
    let (instruments, start) = (telemetry.instruments(), Instant::now());
    let owned = start + Duration::from_millis(25);
    let now = owned + Duration::from_millis(5);
    TakeoverTimes { owner_heard: Some(start), owned }.record(&instruments, now);
    let text = telemetry.prometheus().render();
    assert_eq!(value(&text, "sum", "decision"), Some(0.025));
    assert_eq!(value(&text, "sum", "continuation"), Some(0.005));

    TakeoverTimes { owner_heard: None, owned }.record(&instruments, now);
    let text = telemetry.prometheus().render();
    assert_eq!(value(&text, "count", "decision"), Some(1.0));
    assert_eq!(value(&text, "count", "continuation"), Some(2.0));
}
