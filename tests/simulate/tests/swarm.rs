//! The swarm keeps the promises: a fixed budget of seeds, and every seed that ever broke one.

use evenkeel_simulate::{Library, Script, Swarm, World};

/// Half a minute of a debug build on two cores.
const SEEDS: u64 = 120;

#[test]
fn promises_hold_in_every_world() {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let totals = Swarm { seeds: 0..SEEDS, threads, until_broken: false }.play();
    for outcome in &totals.broken {
        eprintln!("make simulate SEED={}: {}", outcome.seed, outcome.violations[0]);
    }
    assert!(totals.broken.is_empty());
    // What never happens is not tested.
    let sum = &totals.sum;
    assert!(sum.deaths > 50 && sum.refused > 50 && sum.asked > 10_000, "{totals:?}");
    let listed = &sum.listed;
    assert!(listed.forgotten > 10 && listed.taken_again > 2 && listed.kept > 2, "{listed:?}");
    assert!(listed.changed > 50, "{listed:?}");
    assert!(sum.struck > 10 && sum.started > 0, "{totals:?}");
    assert!(sum.drained > 10, "{totals:?}");
    for fault in ["backends-dead", "policies-dead", "policies-late", "policies-trap"] {
        assert!(sum.begun.contains_key(fault), "no {fault}: {:?}", sum.begun);
    }
    for witness in ["agent", "canary", "kernel-error", "probe", "silence"] {
        assert!(sum.witnesses.contains_key(witness), "no {witness}: {:?}", sum.witnesses);
    }
    for budget in ["agent", "alone", "bent", "kernel", "kernel, bent", "kernel, busy", "two"] {
        assert!(sum.known.contains_key(budget), "no death by {budget}: {:?}", sum.known);
    }
    for cause in ["drain", "fail-back", "link", "manual", "node-down", "quality"] {
        assert!(sum.moves.contains_key(cause), "nobody moved for {cause}: {:?}", sum.moves);
    }
}

/// A region among others, and bad enough: one world in fifty.
#[test]
fn a_breaker_opens_in_some_world_and_promises_hold_there() {
    let outcome = World::new(Script::from_seed(304), &Library::new()).play();
    assert!(outcome.violations.is_empty(), "{}", outcome.violations[0]);
    assert!(outcome.breakers > 0);
}

#[test]
fn one_seed_is_one_history() {
    let library = Library::new();
    let play = || World::new(Script::from_seed(11), &library).play();
    let first = play();
    assert!(first.packets > 1_000);
    assert_eq!(first, play());
}

/// Seeds that broke a promise once, by what it was.
mod seeds_that_broke {
    use super::*;

    fn holds(seed: u64) {
        let outcome = World::new(Script::from_seed(seed), &Library::new()).play();
        assert!(outcome.violations.is_empty(), "{}", outcome.violations[0]);
    }

    /// Two nodes found dead in one watch: rooms of the first were told to go to the second.
    #[test]
    fn two_nodes_of_a_region_die_in_one_watch() {
        holds(14);
    }

    /// Who fell silent and left was kept in mind until flows were judged again.
    #[test]
    fn who_left_in_silence_is_kept() {
        holds(113);
    }
}
