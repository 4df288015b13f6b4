use std::time::Duration;

use evenkeel_model::{
    AdmitOnFault, Affinity, CapBounds, DegradeOnFault, FailureScope, GatewayLimits, Hook,
    RedundancyMode, RegionId, Scenario, ServiceObjective, Timings,
};

use super::*;

/// The scenarios `a` of set `one`, and `b` of set `two`.
fn settings() -> CoreSettings {
    let scenario = |set: &str| Scenario {
        set: set.into(),
        bound: [false; 4],
        bounds: CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 },
        mode: RedundancyMode::Hot,
        affinity: Affinity::Room,
        regions: Vec::new(),
        spares: 1,
        reserve: Some(FailureScope::Node),
        spares_outside: FailureScope::Node,
        close_after: Duration::from_secs(30),
        priority: 0,
        slo: Some(ServiceObjective {
            objective: 0.99,
            refusals: true,
            set_up: None,
            gap: None,
            r_factor_centi: None,
        }),
        on_admission_fault: AdmitOnFault::Admit,
        on_degradation_fault: DegradeOnFault::Hold,
    };
    CoreSettings {
        home: RegionId(0),
        regions: vec!["east".into()],
        carriers: Vec::new(),
        zones: Vec::new(),
        nodes: Vec::new(),
        scenarios: BTreeMap::from([("a".into(), scenario("one")), ("b".into(), scenario("two"))]),
        timings: Timings::default(),
        limits: GatewayLimits::default(),
    }
}

struct Offers {
    table: SloTable,
    settings: CoreSettings,
    judges: ActivationJudges,
    nodes_up: usize,
    with_canary: BTreeSet<Arc<str>>,
    now: Instant,
}

impl Offers {
    fn new() -> Offers {
        let now = Instant::now();
        let (table, settings) = (SloTable::new(now), settings());
        let (judges, with_canary) = (ActivationJudges::default(), BTreeSet::new());
        let mut offers = Offers { table, settings, judges, nodes_up: 2, with_canary, now };
        ["a", "b"].iter().for_each(|scenario| offers.answer(scenario, 0));
        offers
    }

    /// Answers 20 offers, of which this many are refused.
    fn answer(&mut self, scenario: &str, refused: u32) {
        let Offers { table, settings, now, .. } = self;
        (0..refused).for_each(|_| table.note_turned_away(scenario, settings, *now));
        (refused..20).for_each(|_| table.note_opened(scenario, Duration::ZERO, settings, *now));
    }

    fn activate(&mut self, set: &str, hook: Hook) {
        let (policy, revision) = (PolicyName { set: set.into(), hook }, hook.name().into());
        let Offers { table, settings, nodes_up, now, .. } = self;
        self.judges.begin(policy, revision, table, settings, *nodes_up, *now);
    }

    /// The revisions that are found after so many seconds.
    fn found(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        let Offers { table, settings, nodes_up, with_canary, now, .. } = self;
        let found = self.judges.judge(table, settings, *nodes_up, with_canary, *now);
        found.into_iter().map(|it| format!("{} {}", it.policy.set, it.revision)).collect()
    }
}

#[test]
fn revision_is_judged_for_five_minutes() {
    for (seconds, expected) in [(300, vec!["one routing"]), (310, vec![])] {
        let mut offers = Offers::new();
        offers.activate("one", Hook::Routing);
        let none: Vec<String> = Vec::new();
        assert_eq!(offers.found(seconds), none);
        offers.answer("a", 20);
        assert_eq!(offers.found(0), expected, "after {seconds} s");
        assert_eq!(offers.found(0), none, "it is found once");
    }
}

#[test]
fn harm_while_a_node_was_down_is_not_blamed_later() {
    let mut offers = Offers::new();
    offers.activate("one", Hook::Routing);
    offers.nodes_up = 1;
    let none: Vec<String> = Vec::new();
    assert_eq!(offers.found(10), none);
    offers.answer("a", 20);
    assert_eq!(offers.found(0), none);
    offers.nodes_up = 2;
    assert_eq!(offers.found(10), none, "the node is back");
    offers.answer("a", 20);
    assert_eq!(offers.found(0), ["one routing"], "it does harm by itself");
}

#[test]
fn harm_during_a_canary_of_the_set_is_not_blamed() {
    let mut offers = Offers::new();
    offers.activate("one", Hook::Routing);
    offers.activate("two", Hook::Routing);
    offers.with_canary = BTreeSet::from(["one".into()]);
    offers.found(10);
    offers.answer("a", 20);
    offers.answer("b", 20);
    assert_eq!(offers.found(0), ["two routing"]);
    offers.with_canary.clear();
    assert_eq!(offers.found(10), [] as [String; 0], "the canary is over");
    offers.answer("a", 20);
    assert_eq!(offers.found(0), ["one routing"], "it does harm by itself");
}

#[test]
fn judge_of_another_process_blames_later_harm() {
    let mut offers = Offers::new();
    offers.activate("one", Hook::Routing);
    let none: Vec<String> = Vec::new();
    assert_eq!(offers.found(150), none);
    let found = vec!["one routing"];
    // It is judged for five minutes in all.
    for (seconds, expected) in [(0, vec![]), (10, found.clone()), (150, found), (160, vec![])] {
        let mut next = Offers { now: offers.now, ..Offers::new() };
        let Offers { table, judges, settings, now, .. } = &mut next;
        table.restore(offers.table.record(&offers.judges), judges, settings, *now);
        assert_eq!(next.found(seconds), none);
        next.answer("a", 20);
        assert_eq!(next.found(0), expected, "after {seconds} s");
    }
}

#[test]
fn last_activation_of_the_set_is_blamed() {
    let mut offers = Offers::new();
    offers.activate("one", Hook::Routing);
    offers.activate("one", Hook::Admission);
    offers.activate("two", Hook::Routing);
    offers.found(10);
    offers.answer("a", 20);
    assert_eq!(offers.found(0), ["one admission"]);
    offers.answer("b", 20);
    assert_eq!(offers.found(0), ["two routing"]);
}

#[test]
fn fewer_than_20_offers_are_not_compared() {
    let mut offers = Offers::new();
    offers.activate("one", Hook::Routing);
    offers.found(10);
    let refuse = |offers: &mut Offers| {
        offers.table.note_turned_away("a", &offers.settings, offers.now);
        offers.found(0).len()
    };
    let found: Vec<usize> = (0..20).map(|_| refuse(&mut offers)).collect();
    assert_eq!(found, [vec![0; 19], vec![1]].concat());
}
