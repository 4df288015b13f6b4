use std::path::Path;

use super::*;
use crate::check::source;

/// The checked table, and its errors.
fn read(keys: &str) -> (ServiceObjective, Vec<String>) {
    #[derive(Deserialize)]
    struct SloFile {
        slo: Spanned<SloConfig>,
    }
    let text = format!("[slo]\n{keys}\n");
    let mut check = ConfigCheck::new(source(Path::new("call.toml"), &text), Path::new(""));
    let raw: SloFile = toml::from_str(&text).unwrap();
    let slo = SloConfig::check(&raw.slo, &mut check);
    (slo, check.invalid.iter().map(|it| format!("{}: {}", it.found, it.expected)).collect())
}

#[test]
fn omitted_limits_are_not_judged() {
    let none = ServiceObjective {
        objective: 0.99,
        refusals: true,
        set_up: None,
        gap: None,
        r_factor_centi: None,
    };
    assert_eq!(read(""), (none, Vec::new()));
    let keys =
        "objective = 0.999\nrefusals = false\nset_up = \"2s\"\ngap = \"100ms\"\nr_factor = 70";
    let all = ServiceObjective {
        objective: 0.999,
        refusals: false,
        set_up: Some(Duration::from_secs(2)),
        gap: Some(Duration::from_millis(100)),
        r_factor_centi: Some(7_000),
    };
    assert_eq!(read(keys), (all, Vec::new()));
}

#[test]
fn errors_name_the_bounds() {
    for (keys, error) in [
        ("objective = 0.49", "0.49: 0.5 to 0.9999"),
        ("objective = 1.0", "1: 0.5 to 0.9999"),
        ("objective = 99", "99: 0.5 to 0.9999"),
        ("set_up = \"2\"", "`2`: a duration such as `8s` or `200ms`"),
        ("gap = \"5ms\"", "`5ms`: 10ms to 1m"),
        ("r_factor = 0", "0: 1 to 100"),
        (
            "refusals = false",
            "`slo` without a limit: at least one of `refusals`, `set_up`, `gap` and `r_factor`",
        ),
    ] {
        assert_eq!(read(keys).1, [error], "{keys}");
    }
    for keys in ["objective = 0.5", "objective = 0.9999", "gap = \"10ms\"", "r_factor = 100"] {
        assert_eq!(read(keys).1, [""; 0], "{keys}");
    }
}

#[test]
fn fast_burn_follows_the_largest_budget() {
    let slo = |objective| ServiceObjective { objective, ..read("").0 };
    assert_eq!(fast_burn_ppm([].into_iter()), None);
    assert_eq!(fast_burn_ppm([slo(0.999), slo(0.99)].into_iter()), Some(144_000));
    assert_eq!(fast_burn_ppm([slo(0.5)].into_iter()), Some(1_000_000));
}
