//! The oracle: harm of revisions beside the noise of chance.

use evenkeel_host::shipped;
use evenkeel_simulate::{Harm, Noise, Oracle, OracleRevision, policy_name};
use serde_json::{Value, json};

fn scenario_call(settings: Value) -> OracleRevision {
    let plugin =
        shipped().iter().find(|one| one.name == "scenario-call").expect("a shipped plugin");
    let policy = policy_name("call/scenario").expect("a policy");
    OracleRevision { policy, plugin: plugin.bytes.to_vec(), settings }
}

#[test]
fn low_ceilings_are_worse_than_chance() {
    let mut oracle = Oracle::new(0..8);
    let sound = scenario_call(json!({"floor": 24, "ceiling": 2000}));
    let runs: Vec<Harm> =
        (1..4).map(|chance| oracle.play(&sound, None, chance).unwrap().harm).collect();
    let noise = Noise::of(&runs);
    let low = scenario_call(json!({"ceiling": 24, "ceiling_360": 24, "ceiling_720": 24}));
    let run = oracle.play(&low, Some(&sound), 0).unwrap();
    assert!(noise.exceeded_by(&run.harm).contains(&"caps"), "{noise:?} {run:?}");
    assert!(run.compared > 0 && run.differing == run.compared, "{run:?}");
    assert!(runs.iter().all(|run| run.r > 0.0 && run.r < 93.2), "{runs:?}");
}

#[test]
fn revision_decides_like_itself() {
    let mut oracle = Oracle::new(0..1);
    let sound = scenario_call(json!({"floor": 24, "ceiling": 2000}));
    let alone = oracle.play(&sound, None, 0).unwrap();
    let run = oracle.play(&sound, Some(&sound), 0).unwrap();
    assert!(run.compared > 0 && run.differing == 0, "{run:?}");
    assert_eq!(run.harm, alone.harm, "the comparison has no effect");
}

#[test]
fn clients_of_rated_worlds_differ_in_device() {
    let mut oracle = Oracle::new(0..2);
    let sound = scenario_call(json!({"floor": 24, "ceiling": 2000}));
    let small = scenario_call(json!({"floor": 24, "ceiling": 2000, "ceiling_360": 300}));
    let run = oracle.play(&small, Some(&sound), 0).unwrap();
    assert!(run.differing > 0 && run.differing < run.compared, "{run:?}");
}

#[test]
fn invalid_settings_are_refused() {
    let refused = Oracle::new(0..1).play(&scenario_call(json!({"spares": 9})), None, 0);
    assert!(refused.unwrap_err().contains("spares"));
}

#[test]
fn figure_counts_beyond_four_deviations() {
    let run = |moves| Harm { moves, ..Harm::default() };
    // The mean is 20, the deviation 10.
    let noise = Noise::of(&[run(10.0), run(20.0), run(30.0)]);
    assert_eq!((noise.mean.moves, noise.deviation.moves), (20.0, 10.0));
    assert_eq!(noise.exceeded_by(&run(60.0)), [""; 0]);
    assert_eq!(noise.exceeded_by(&run(60.1)), ["moves"]);
    assert_eq!(noise.exceeded_by(&run(0.0)), [""; 0]);
    let steady = Noise::of(&[run(5.0), run(5.0)]);
    assert_eq!(steady.exceeded_by(&run(7.0)), [""; 0], "a difference of two does not count");
    assert_eq!(steady.exceeded_by(&run(7.1)), ["moves"]);
}
