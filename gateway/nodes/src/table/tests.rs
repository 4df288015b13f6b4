mod pace;

use evenkeel_model::{
    EvidenceSource, FailureDomain, Health, NodeSettings, Stamp, StartPhase, Starts, ZoneId,
};

use super::*;
use crate::node::{NodeEvidence, NodeTransition};

const A: NodeId = NodeId(0);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn listed(zone: u32) -> NodeSettings {
    NodeSettings::new("new", ZoneId(zone), 100_000)
}

/// Two zones at home and one in another region. One node each, and a second in the first zone.
fn settings() -> CoreSettings {
    let zone = |name: &str, region| Zone { name: name.into(), region: RegionId(region) };
    CoreSettings {
        home: RegionId(0),
        regions: ["home".into(), "away".into()].into(),
        carriers: Vec::new(),
        zones: vec![zone("z0", 0), zone("z1", 0), zone("z2", 1)],
        nodes: [0, 1, 0, 2].map(listed).into(),
        scenarios: BTreeMap::new(),
        timings: Timings::default(),
        limits: GatewayLimits::default(),
    }
}

#[test]
fn added_node_is_down_and_a_left_slot_rests() {
    let now = Instant::now();
    let mut nodes = NodeTable::new(&mut settings(), now);
    let slots = nodes.slots();
    let (new, drains) = nodes.add(listed(0), now).unwrap();
    assert!(!drains && !nodes.is_up(nodes[new].hop()));
    nodes.forget(new, now);
    assert!(nodes.get(new).is_none());
    let (other, _) = nodes.add(listed(0), now + RESTS - ms(1)).unwrap();
    assert_eq!((other == new, nodes.slots()), (false, slots + 2));
    let (again, _) = nodes.add(listed(0), now + RESTS).unwrap();
    assert_eq!((again, nodes.slots()), (new, slots + 2));
    assert!(nodes[again].incarnation > evenkeel_model::Incarnation(1));
}

#[test]
fn node_added_to_a_drained_region_drains() {
    let now = Instant::now();
    let mut nodes = NodeTable::new(&mut settings(), now);
    nodes.set_drained(FailureDomain::Region(RegionId(0)), true);
    assert!(nodes.add(listed(0), now).unwrap().1);
    nodes.set_drained(FailureDomain::Region(RegionId(0)), false);
    assert!(!nodes.add(listed(0), now).unwrap().1);
}

/// `A` sends media, then falls silent. The other nodes carry none.
#[test]
fn silent_node_has_its_zone_probed() {
    for answers in [true, false] {
        let mut now = Instant::now();
        let mut nodes = NodeTable::new(&mut settings(), now);
        let mut stamps = [Stamp::default(); 4];
        let mut probes = BTreeMap::<NodeId, Vec<Instant>>::new();
        let mut fell = now;
        for watch in 0..1_010 {
            now += ms(2);
            stamps[0].last_sent = Some(now);
            if watch < 1_000 {
                (stamps[0].received, stamps[0].last_received) = (4 * watch, Some(now));
                fell = now;
            }
            nodes.watch(&stamps, Duration::ZERO, now);
            while let Some(output) = nodes.poll_output() {
                let NodeOutput::Effect(NodeEffect::Probe { node, sequence }) = output else {
                    continue;
                };
                probes.entry(node).or_default().push(now);
                if answers && node != A {
                    nodes[node].handle_evidence(NodeEvidence::ProbeAnswered(sequence), now);
                }
            }
        }
        let beside = &probes[&NodeId(2)];
        assert!(beside[0] - fell <= ms(14), "{:?}", beside[0] - fell);
        assert_eq!(beside.len() == 1, answers, "an answer suffices: {}", beside.len());
        assert!(![1, 3].iter().any(|other| probes.contains_key(&NodeId(*other))), "other zones");
    }
}

#[test]
fn ejected_node_is_down_until_it_returns() {
    let now = Instant::now();
    let mut nodes = NodeTable::new(&mut settings(), now);
    let hop = nodes[A].hop();
    let change = nodes.eject(A, now).unwrap();
    assert!(matches!(change.change, NodeTransition::Died { from: Health::Up }));
    assert_eq!(change.witnesses, [(EvidenceSource::Operator, now)]);
    assert!(nodes.is_up(hop), "rooms go on first");
    nodes.mark_down(hop, change.since);
    assert!(!nodes.is_up(hop));
    nodes.reincarnate(A);
    assert!(!nodes.is_up(hop) && nodes.is_up(nodes[A].hop()));
    assert!(nodes.eject(A, now).is_none(), "it is Down already");
}

/// Nodes that hooks start, and that do not run.
fn cold(mut settings: CoreSettings, now: Instant) -> NodeTable {
    for node in &mut settings.nodes {
        node.starts = Starts::ByHook { within: ms(1_000) };
    }
    let mut nodes = NodeTable::new(&mut settings, now);
    for node in nodes.iter_mut() {
        node.detector.handle_agent(false, now);
    }
    nodes
}

fn starting(nodes: &NodeTable) -> Vec<bool> {
    nodes.iter().map(Node::is_starting).collect()
}

#[test]
fn start_goes_to_the_nearest_node_and_one_at_a_time() {
    let now = Instant::now();
    let mut nodes = cold(settings(), now);
    nodes.start_nearest(RegionId(1), now);
    nodes.start_nearest(RegionId(0), now);
    assert_eq!(starting(&nodes), [false, false, false, true]);
}

#[test]
fn start_in_region_starts_no_node_elsewhere() {
    let now = Instant::now();
    let mut settings = settings();
    settings.limits.start_budget.cost_milli_max = Some(1);
    settings.nodes[..3].iter_mut().for_each(|node| node.hook.cost_milli = 2);
    let mut nodes = cold(settings, now);
    nodes.start_in_region(RegionId(0), now);
    assert_eq!(starting(&nodes), [false; 4]);
    nodes.start_in_region(RegionId(1), now);
    assert_eq!(starting(&nodes), [false, false, false, true]);
}

#[test]
fn each_reason_of_refused_starts_is_reported_rarely() {
    let start = Instant::now();
    let mut settings = settings();
    settings.limits.start_budget.cost_milli_max = Some(1);
    settings.nodes[..3].iter_mut().for_each(|node| node.hook.cost_milli = 2);
    settings.nodes[3].hook.provider = "cloud".into();
    let mut nodes = cold(settings, start);
    let mut refused = |seconds: u32| {
        let now = start + ms(1_000) * seconds;
        (0..5).for_each(|_| nodes.providers.judge("cloud", false, now));
        nodes.start_in_region(RegionId(0), now);
        nodes.start_in_region(RegionId(1), now);
        let outputs = std::iter::from_fn(|| nodes.poll_output());
        let why = |output: NodeOutput| match output {
            NodeOutput::Event(CoreEvent::Start { step: StartPhase::Refused { why }, .. }) => {
                Some(why)
            }
            _ => None,
        };
        outputs.filter_map(why).collect::<Vec<_>>()
    };
    let both = [StartRefusal::Cost, StartRefusal::Provider];
    assert_eq!(refused(0), both);
    assert!(refused(1).is_empty() && refused(59).is_empty());
    assert_eq!(refused(60), both);
}
