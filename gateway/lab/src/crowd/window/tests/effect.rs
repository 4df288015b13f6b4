use super::super::*;

const MS: u64 = 1_000_000;

fn fault() -> InjectedFault {
    InjectedFault { at_ns: 100 * MS, scope: Scope::Nodes([1].into()) }
}

/// Arrivals in ms, each from a node.
fn heard(arrivals: &[(u64, u32)]) -> Vec<(u64, u32)> {
    arrivals.iter().map(|&(ms, node)| (ms * MS, node)).collect()
}

fn listened(arrivals: &[(u64, u32)], hit: bool) -> FaultEffect {
    let mut effect = FaultEffect::default();
    effect.listen(&heard(arrivals), &fault(), hit, 400 * MS);
    effect
}

#[test]
fn gap_spans_the_change_of_node() {
    // A packet of the dead node was in flight when it died.
    let steady = (9..=19).map(|twenty| (twenty * 20, 2));
    let all: Vec<_> = [(90, 1), (101, 1), (141, 2)].into_iter().chain(steady).collect();
    let effect = listened(&all, true);
    assert_eq!((effect.gaps_ns, effect.freezes), (vec![40 * MS], 0));
}

#[test]
fn longer_pause_after_the_change_is_the_gap() {
    let twice = [(90, 1), (130, 2), (150, 2), (290, 3), (380, 3)];
    assert_eq!(listened(&twice, true).gaps_ns, [140 * MS]);
    let silent = [(90, 1), (130, 2), (150, 2)];
    assert_eq!(listened(&silent, true).gaps_ns, [250 * MS], "until the window's end");
}

#[test]
fn gap_without_end_lasts_until_the_window_ends() {
    let effect = listened(&[(80, 1), (100, 1)], true);
    assert_eq!(effect.gaps_ns, [300 * MS]);
    assert_eq!((effect.unheard, effect.freezes), (1, 1));
}

#[test]
fn receiver_silent_at_the_end_is_unheard() {
    let unheard = |last| {
        let mut effect = FaultEffect::default();
        effect.listen(&heard(&[(90, 1), (last, 2)]), &fault(), true, 1_000 * MS);
        effect.unheard
    };
    assert_eq!([101, 500, 501].map(unheard), [1, 1, 0]);
}

#[test]
fn freeze_begins_at_184_ms() {
    assert_eq!(listened(&[(100, 1), (284, 2), (380, 2)], true).freezes, 1);
    assert_eq!(listened(&[(100, 1), (283, 2), (380, 2)], true).freezes, 0);
}

#[test]
fn unaffected_pauses_are_kept_apart() {
    let effect = listened(&[(100, 2), (150, 2), (380, 2)], false);
    assert_eq!(effect.gaps_ns, [0_u64; 0]);
    assert_eq!(effect.freezes_of_others, 1);
}

#[test]
fn pause_before_the_fault_does_not_count() {
    let steady = (6..=19).map(|twenty| (twenty * 20, 2));
    let all: Vec<_> = [(10, 1), (90, 1), (110, 2)].into_iter().chain(steady).collect();
    let effect = listened(&all, true);
    assert_eq!(effect.gaps_ns, [20 * MS]);
    let before = listened(&[(10, 2), (90, 2), (110, 2), (380, 2)], false);
    assert_eq!(before.freezes_of_others, 1);
}
