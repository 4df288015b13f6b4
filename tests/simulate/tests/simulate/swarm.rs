//! Invariants hold for a fixed number of seeds, and for each seed that violated one before.

use evenkeel_simulate::{Library, Script, Swarm, World, losses};

/// These seeds take half a minute in a debug build on two cores.
const SEEDS: u64 = 120;

#[test]
fn invariants_hold_for_all_seeds() {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let totals = Swarm { seeds: 0..SEEDS, threads, until_broken: false }.play();
    for outcome in &totals.broken {
        eprintln!("make simulate SEED={}: {}", outcome.seed, outcome.violations[0]);
    }
    assert!(totals.broken.is_empty());
    // Each kind of event must occur to be tested.
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
    for budget in
        ["agent", "alone", "irregular", "kernel", "kernel, irregular", "kernel, busy", "two"]
    {
        assert!(sum.known.contains_key(budget), "no death by {budget}: {:?}", sum.known);
    }
    for evidence in ["ended", "hand-over", "operator", "restarted", "silence", "start"] {
        let takeovers = &sum.group.takeovers;
        assert!(takeovers.contains_key(evidence), "no takeover by {evidence}: {takeovers:?}");
    }
    for how in ["hand-over", "restart", "standby restarted", "takeover", "upgrade"] {
        assert!(sum.records.replaced.contains_key(how), "no {how}: {:?}", sum.records.replaced);
    }
    assert!(sum.records.acknowledged > 1_000, "{:?}", sum.records);
    for how in ["former standby", "takeover", "upgrade"] {
        assert!(sum.indices.replaced.contains_key(how), "no {how}: {:?}", sum.indices.replaced);
    }
    let indices = &sum.indices;
    assert!(indices.sent > 200_000 && indices.refused * 4 < indices.sent, "{indices:?}");
    assert!(indices.continued > 100 && indices.ended > 50, "{indices:?}");
    let losses = &sum.losses;
    for scope in ["gateway", "node", "region", "zone"] {
        assert!(losses.worlds.contains_key(scope), "no loss of a {scope}: {losses:?}");
    }
    assert!(losses.worlds.values().sum::<u64>() > 2 * SEEDS, "most worlds rest: {losses:?}");
    assert!(losses.rooms > 500 && losses.unplaced > 20 && losses.reduced > 10, "{losses:?}");
    assert!(losses.covered_worlds > SEEDS / 4, "{losses:?}");
    assert!(losses.detected > 100 && losses.elsewhere * 20 <= losses.detected, "{losses:?}");
    for cause in ["drain", "failback", "link", "manual", "node-down", "quality"] {
        assert!(sum.moves.contains_key(cause), "no move for {cause}: {:?}", sum.moves);
    }
}

/// An open breaker needs several regions and enough loss, which one seed in fifty has.
#[test]
fn invariants_hold_with_open_breaker() {
    let outcome = World::new(Script::from_seed(304), &Library::new()).play();
    assert!(outcome.violations.is_empty(), "{}", outcome.violations[0]);
    assert!(outcome.breakers > 0);
}

#[test]
fn same_seed_gives_same_outcome() {
    let library = Library::new();
    let play = || World::new(Script::from_seed(11), &library).play();
    let first = play();
    assert!(first.packets > 1_000);
    assert_eq!(first, play());
}

/// Seeds that violated an invariant before.
mod regressions {
    use super::*;

    fn holds(seed: u64) {
        let outcome = World::new(Script::from_seed(seed), &Library::new()).play();
        assert!(outcome.violations.is_empty(), "{}", outcome.violations[0]);
    }

    /// Both nodes were marked down in one watch, and rooms of the first were moved to the second.
    #[test]
    fn two_node_deaths_in_one_watch() {
        holds(14);
    }

    /// A client that closed its session while silent was kept until the next review of flows.
    #[test]
    fn silent_client_that_left_is_dropped() {
        holds(113);
    }

    /// One burst dropped the agent's report of a death, its repetition and all ICMP errors.
    #[test]
    fn death_with_lost_reports_is_not_late() {
        let outcome = losses::play(2852, &Library::new());
        assert!(outcome.violations.is_empty(), "{}", outcome.violations[0]);
    }
}
