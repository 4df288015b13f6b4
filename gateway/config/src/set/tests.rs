use super::*;
use crate::check::source;

#[test]
fn dscp_is_name_or_number() {
    let text = "voice = \"x\"";
    let mut check = ConfigCheck::new(source(Path::new("a.toml"), text), Path::new(""));
    let mut point = |word: &str| {
        let raw = Spanned::new(8..11, word.to_owned());
        dscp(&Some(raw), 99, &mut check)
    };
    let words = ["EF", "ef", "AF41", "AF11", "AF43", "CS5", "BE", "63"];
    assert_eq!(words.map(&mut point), [46, 46, 34, 10, 38, 40, 0, 63]);
    for word in ["AF44", "AF51", "CS8", "64", ""] {
        assert_eq!(point(word), 99, "{word}");
    }
    assert_eq!(check.invalid.len(), 5);
}

#[test]
fn replay_follows_the_nodes_unless_stated() {
    use ReplayedMedia::{All, Audio, Off};
    for (line, replayed) in [
        ("", [Off, Audio]),
        ("replay = \"off\"", [Off, Off]),
        ("replay = \"audio\"", [Audio, Audio]),
        ("replay = \"all\"", [All, All]),
    ] {
        let text = format!("[scenario.call]\n{line}\n");
        let mut check = ConfigCheck::new(source(Path::new("call.toml"), &text), Path::new(""));
        let raw: SetTable = toml::from_str(&text).unwrap();
        let (name, raw) = raw.scenario.iter().next().unwrap();
        let scenario = scenario(name, raw, &mut check);
        assert_eq!([false, true].map(|keeps| scenario.replayed(keeps)), replayed, "{line}");
    }
    assert!(toml::from_str::<SetTable>("[scenario.call]\nreplay = \"video\"\n").is_err());
}

#[test]
fn every_hook_has_its_own_on_fault() {
    for hook in Hook::ALL {
        let others = Hook::ALL.into_iter().filter(|other| *other != hook);
        let others: Vec<_> = others.flat_map(OnFault::of).collect();
        assert!(OnFault::of(hook).iter().all(|mode| !others.contains(&mode)), "{hook:?}");
    }
}

/// The checked `[rollout]`, and its errors.
fn read(text: &str) -> (RolloutSettings, Vec<String>) {
    let mut check = ConfigCheck::new(source(Path::new("call.toml"), text), Path::new(""));
    let raw: SetTable = toml::from_str(text).unwrap();
    let rollout = RolloutSettings::check(raw.rollout.as_ref(), &mut check);
    (rollout, check.invalid.iter().map(ToString::to_string).collect())
}

#[test]
fn omitted_keys_have_defaults() {
    assert_eq!(read("").0, RolloutSettings::default());
    let judge = "{ loss_percent = 2, refused_percent = 30, one_node_percent = 80, faults_allowed = 3, \
                 moves_per_minute = 7, guarded_percent = 40 }";
    let rollout = format!("[rollout]\ncanary = [5, 50]\nhold = true\njudge = {judge}\n");
    let (some, invalid) = read(&rollout);
    assert_eq!(invalid, [""; 0]);
    let judging = Judging {
        loss_ppm: 20_000,
        refused_percent: 30,
        one_node_percent: 80,
        faults_permille: 3,
        moves_per_minute: 7,
        guarded_percent: 40,
        ..Judging::default()
    };
    assert_eq!(
        some,
        RolloutSettings {
            is_stated: true,
            canary: vec![5, 50],
            hold: true,
            judging,
            ..RolloutSettings::default()
        }
    );
}

#[test]
fn held_rollout_awaits_an_operator_at_each_step() {
    assert!(read("[rollout]\nhold = true\n").0.strategy().held);
    assert!(!read("[rollout]\nhold = false\n").0.strategy().held);
}

#[test]
fn empty_canary_activates_at_once() {
    assert!(read("[rollout]\ncanary = []\n").0.strategy().is_at_once());
    assert!(!read("[rollout]\ncanary = []\nshadow = \"1s\"\n").0.strategy().is_at_once());
}

#[test]
fn steps_increase_up_to_100() {
    for (steps, wrong) in [("5, 5", 1), ("25, 5", 1), ("0", 1), ("101", 1), ("1, 100", 0)] {
        let (_, invalid) = read(&format!("[rollout]\ncanary = [{steps}]\n"));
        assert_eq!(invalid.len(), wrong, "{steps}: {invalid:?}");
    }
    let many = (1..=17).map(|step| step.to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(read(&format!("[rollout]\ncanary = [{many}]\n")).1.len(), 1);
    for wrong in [
        "pace = \"50ms\"",
        "rollback_window = \"8\"",
        "judge = { gap = \"10ms\" }",
        "judge = { rung = 0 }",
        "judge = { refused_percent = 0 }",
        "judge = { refused_percent = 101 }",
        "judge = { one_node_percent = 0 }",
        "judge = { faults_allowed = -1 }",
        "judge = { faults_allowed = 1001 }",
    ] {
        assert_eq!(read(&format!("[rollout]\n{wrong}\n")).1.len(), 1, "{wrong}");
    }
}
