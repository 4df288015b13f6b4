use clap::Parser;

use super::*;

#[derive(Parser)]
struct ProbeLine {
    #[command(flatten)]
    probe: ProbeArgs,
}

fn gateways(words: &str) -> Vec<String> {
    let words = ["probe"].into_iter().chain(words.split_whitespace());
    let gateways = ProbeLine::try_parse_from(words).map(|line| line.probe.gateways());
    gateways.map(|all| all.iter().map(ApiArgs::shown).collect()).unwrap_or_default()
}

#[test]
fn gateways_are_those_of_the_command_line() {
    assert_eq!(gateways("--api one.sock"), ["one.sock"]);
    let several = gateways("--to 192.0.2.1:7400 --token secret --to east.sock --json");
    assert_eq!(several, ["192.0.2.1:7400", "east.sock"]);
}

#[test]
fn line_has_verdict_and_figures() {
    let report = ProbeReport {
        verdict: "voice good, video 360p; try Wi-Fi".into(),
        r_factor: 8_960,
        round_trip_us: 40_260,
        jitter_us: 1_240,
        loss_up_ppm: 7_142,
        loss_down_ppm: 0,
        rate_kbps: 612,
        mtu: 1_500,
        ..ProbeReport::default()
    };
    let right = "voice good, video 360p; try Wi-Fi (R 89.6, round trip 40.3 ms, jitter 1.2 ms, loss 0.7 % up and 0.0 % down, \
                 612 kbit/s, MTU 1500)";
    assert_eq!(line(&report), right);
}
