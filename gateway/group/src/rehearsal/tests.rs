use evenkeel_model::Hook;

use super::*;

fn ready() -> TakeoverReadiness {
    TakeoverReadiness {
        has_node: true,
        capacity_kbps: 640,
        sessions_max: 10,
        not_loaded: Vec::new(),
    }
}

fn needs() -> RecordNeeds {
    RecordNeeds { sessions: 10, kbps: 640, taken_port: None }
}

fn unmet(needs: RecordNeeds, ready: TakeoverReadiness) -> Vec<Unready> {
    needs.unmet(ready).collect()
}

#[test]
fn standby_that_holds_the_load_is_ready() {
    assert_eq!(unmet(needs(), ready()), []);
    assert_eq!(
        unmet(RecordNeeds::default(), TakeoverReadiness { capacity_kbps: 0, ..ready() }),
        []
    );
}

#[test]
fn each_unmet_need_is_named() {
    let no_node = TakeoverReadiness { has_node: false, capacity_kbps: 0, ..ready() };
    assert_eq!(unmet(needs(), no_node), [Unready::NoNode]);
    let more = RecordNeeds { sessions: 11, ..needs() };
    assert_eq!(unmet(more, ready()), [Unready::Sessions(10)]);
    let more = RecordNeeds { kbps: 641, ..needs() };
    assert_eq!(unmet(more, ready()), [Unready::Capacity]);
    let taken = RecordNeeds { taken_port: Some(30_000), ..needs() };
    assert_eq!(unmet(taken, ready()), [Unready::PortTaken(30_000)]);
    let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
    let lacks = vec![(policy.clone(), "d79bc7b08db8".into())];
    let lacks = unmet(needs(), TakeoverReadiness { not_loaded: lacks, ..ready() });
    assert_eq!(lacks, [Unready::NotLoaded { policy, revision: "d79bc7b08db8".into() }]);
    assert!(lacks[0].to_string().contains("revision d79bc7b08db8 of call/routing"), "{}", lacks[0]);
}
