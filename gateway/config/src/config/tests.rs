//! Files with any content.

use std::fs;
use std::time::Duration;

use evenkeel_fuzz::Corpus;

use super::*;
use crate::Colour;
use crate::driver::samples::DRIVERS;

/// An error about the file is within it and can be shown.
fn assert_is_shown(loaded: Result<GatewayConfig, Vec<InvalidSetting>>, file: &Path, text: &[u8]) {
    let Err(invalid) = loaded else { return };
    let lines = text.split(|byte| *byte == b'\n').count();
    for invalid in &invalid {
        let is_within = (1..=lines).contains(&invalid.line);
        assert!(is_within || Path::new(&invalid.file) != file, "{}: {invalid}", invalid.place());
        assert!(!invalid.found.is_empty() && !invalid.expected.is_empty(), "{invalid:?}");
    }
    assert!(!InvalidSetting::render(&invalid, Colour::Plain).is_empty());
}

#[test]
fn fuzz_policy_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("call.toml");
    let sets = SHIPPED_SETS.iter().map(|(_, text)| text.as_bytes());
    sets.fold(Corpus::of("policy_set"), Corpus::with).check(|text| {
        fs::write(&file, text).unwrap();
        assert_is_shown(GatewayConfig::load(None, Some(folder.path()), &[]), &file, text);
    });
}

#[test]
fn misspelt_region_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    let notes = |regions: &[&str], head: &str| {
        let nodes = regions.iter().enumerate().map(|(place, region)| {
            format!(
                "[[node]]\nname = \"n{place}\"\naddress = \"10.0.0.{place}:1\"\nregion = \"{region}\"\n\
                 zone = \"a\"\ndriver = \"plain\"\ncapacity = \"1 Mbit/s\"\n"
            )
        });
        let nodes: String = nodes.collect();
        let text = format!("[gateway]\nregion = \"{}\"\n{head}{nodes}", regions[0]);
        fs::write(&file, text).unwrap();
        let notes = GatewayConfig::load(Some(&file), None, &DRIVERS).unwrap().notes();
        notes.into_iter().filter(|note| note.contains("with one node")).collect::<Vec<_>>()
    };
    let found = notes(&["east", "east", "eats"], "");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("found region `eats` with one node, expected `east`, or"),
        "{found:?}"
    );
    assert!(
        notes(&["eats", "east"], "")[0]
            .contains("found region `east` with one node, expected `eats`")
    );
    let meant: [&[&str]; 4] =
        [&["east", "east", "west"], &["eu1", "eu1", "eu2"], &["east", "east", "east"], &["a", "b"]];
    for meant in meant {
        assert_eq!(notes(meant, ""), [""; 0], "{meant:?}");
    }
    let declared = "[[region]]\nname = \"east\"\n[[region]]\nname = \"eats\"\n";
    assert_eq!(notes(&["east", "east", "eats"], declared), [""; 0]);
}

#[test]
fn core_knows_the_terms_of_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    let node = |name: &str, port: u16, start: &str| {
        format!(
            "[[node]]\nname = \"{name}\"\naddress = \"10.0.0.1:{port}\"\nregion = \"east\"\nzone = \"a\"\n\
             driver = \"plain\"\ncapacity = \"1 Mbit/s\"\nstart = {{ {start} }}\n"
        )
    };
    let command = "command = [\"/bin/media\", \"1\"], stop_after = \"30m\", replace_after = \"1m\", \
                   cost_per_hour = 0.125";
    let webhook = "webhook = \"http://10.0.0.9:80/start\"";
    let elastic = "[elastic]\nmax_nodes = 3\nbudget_per_hour = 2\nexceed_for_calls = true\n";
    let text = [node("a", 1, command), node("b", 2, webhook), elastic.to_owned()].concat();
    fs::write(&file, text).unwrap();
    let core = GatewayConfig::load(Some(&file), None, &DRIVERS).unwrap().core();
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    let hook = &core.nodes[0].hook;
    assert_eq!((&*hook.provider, hook.cost_milli), ("/bin/media", 125));
    assert_eq!((hook.stop_after, hook.replace_after), (minutes(30), minutes(1)));
    let hook = &core.nodes[1].hook;
    assert_eq!((&*hook.provider, hook.stop_after), ("10.0.0.9", None));
    let budget = core.limits.start_budget;
    assert_eq!((budget.nodes_max, budget.cost_milli_max), (Some(3), Some(2_000)));
    assert!(budget.exceeded_for_calls);
}

#[test]
fn disabled_forecast_starts_no_node_early() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    for (keys, starts) in [("", true), ("enabled = false", false), ("early_start = false", false)] {
        fs::write(&file, format!("[forecast]\n{keys}\n")).unwrap();
        let settings = GatewayConfig::load(Some(&file), None, &DRIVERS).unwrap();
        assert_eq!(settings.core().limits.early_start, starts, "{keys}");
    }
}

#[test]
fn check_names_the_load_that_zones_reserve_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    let sets = folder.path().join("policies");
    fs::create_dir(&sets).unwrap();
    let reserves = |zones: &[&str], scenario: &str| {
        let nodes = zones.iter().enumerate().map(|(place, zone)| {
            format!(
                "[[node]]\nname = \"n{place}\"\naddress = \"10.0.0.{place}:1\"\nregion = \"east\"\n\
                 zone = \"{zone}\"\ndriver = \"plain\"\ncapacity = \"1 Mbit/s\"\n"
            )
        });
        let nodes: String = nodes.collect();
        fs::write(&file, format!("[gateway]\nregion = \"east\"\n{nodes}")).unwrap();
        for name in ["call", "conference", "live"] {
            let set = format!("[scenario.{name}]\n{scenario}\n");
            fs::write(sets.join(format!("{name}.toml")), set).unwrap();
        }
        GatewayConfig::load(Some(&file), Some(&sets), &DRIVERS).unwrap().zone_reserves()
    };
    let found = reserves(&["a", "a", "b"], "");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("region `east`"), "{found:?}");
    assert!(found[0].contains("at most 1 Mbit/s, the capacity without zone `a`"), "{found:?}");
    for (zones, scenario) in [(&["a", "a"], ""), (&["a", "b"], "reserve = \"node\"")] {
        assert_eq!(reserves(zones, scenario), [""; 0], "{zones:?} {scenario}");
    }
}
