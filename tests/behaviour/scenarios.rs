//! The same faults hit a call and a live stream under the shipped policies, which decide differently.

use std::time::Duration;

use evenkeel_control::GatewayEvent;
use evenkeel_lab::crowd::{Crowd, CrowdPlan};
use evenkeel_lab::links::Conditions;
use evenkeel_lab::relay::Direction;
use evenkeel_model::{CoreEvent, DecisionOutcome, Hook, Hop, Metric, Op, Plan};
use tokio::runtime::Runtime;

use crate::harness::{Gateway, Node, World, wait_until, wait_within};
use crate::lab_clients::Api;

const SCENARIOS: [&str; 2] = ["call", "live"];

/// Enough for decisions that follow several receiver reports, 5 s apart (RFC 3550, 6.2).
const REPORTED_WITHIN: Duration = Duration::from_secs(60);

/// Nodes of the gateway's region, which are the first in the list.
const NODES_NEAR: usize = 2;

/// Opens a room of real clients behind a simulated network: two that talk, or a publisher and its viewers.
fn enter(runtime: &Runtime, api: &Api, scenario: &str) -> Crowd {
    let is_call = scenario == "call";
    let sessions = if is_call { 2 } else { 3 };
    let plan = CrowdPlan {
        room_size: sessions,
        both_ways: is_call,
        feedback: true,
        video: true,
        scenario: scenario.to_owned(),
        rooms: scenario.to_owned(),
        natted: true,
        seed: sessions.into(),
        ..CrowdPlan::new(sessions)
    };
    runtime.block_on(Crowd::enter(&plan, || api.admin())).unwrap()
}

/// Impairs both directions of all clients' networks.
fn impair(crowds: &[Crowd], conditions: Conditions) {
    for crowd in crowds {
        let sessions = crowd.by_id().values().copied().collect();
        for direction in [Direction::Up, Direction::Down] {
            crowd.impair(&sessions, direction, conditions);
        }
    }
}

fn route(gateway: &Gateway, scenario: &str) -> Vec<Hop> {
    let rooms = gateway.ask(gateway.handle.rooms()).unwrap();
    rooms.into_iter().find(|room| &*room.scenario == scenario).unwrap().route
}

/// The hops that the scenario's room took after its first one.
fn hops_taken(gateway: &Gateway, scenario: &str) -> Vec<Hop> {
    let mut taken = Vec::new();
    gateway.happened(|told| {
        if let GatewayEvent::Core(CoreEvent::Moved { scenario: of, to, .. }) = &told.event
            && &**of == scenario
        {
            taken.extend(*to);
        }
        None::<()>
    });
    taken
}

/// Number of answers of the scenario's degradation policy that came in time and changed nothing.
fn ticks(gateway: &Gateway, scenario: &str) -> usize {
    let mut ticks = 0;
    gateway.happened(|told| {
        if let GatewayEvent::Core(CoreEvent::Decided { policy, outcome, .. }) = &told.event
            && (&*policy.set, policy.hook) == (scenario, Hook::Degradation)
        {
            ticks += usize::from(*outcome == DecisionOutcome::Kept);
        }
        None::<()>
    });
    ticks
}

fn plans(gateway: &Gateway, scenario: &str) -> Vec<Plan> {
    let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
    let of_scenario = sessions.iter().filter(|session| &*session.state.scenario == scenario);
    of_scenario.map(|session| session.state.plan).collect()
}

/// The measured values of the scenario's sessions.
fn measured(gateway: &Gateway, scenario: &str, metric: Metric) -> Vec<u32> {
    let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
    let of_scenario = sessions.iter().filter(|session| &*session.state.scenario == scenario);
    of_scenario.filter_map(|session| session.state.measures.measured(metric)).collect()
}

/// Round trips of the sessions that receive media.
fn round_trips(gateway: &Gateway, scenario: &str) -> Vec<Duration> {
    let measured = measured(gateway, scenario, Metric::RttClient).into_iter();
    measured.map(|us| Duration::from_micros(us.into())).collect()
}

/// Returns whether no session measures the loss of the moves, or is degraded because of it.
fn have_recovered(gateway: &Gateway) -> bool {
    let losses = [Metric::LossUp, Metric::LossDown];
    SCENARIOS.iter().all(|scenario| {
        plans(gateway, scenario).iter().all(|plan| plan.rung() == 0)
            && losses
                .iter()
                .all(|loss| measured(gateway, scenario, *loss).iter().all(|&ppm| ppm < 10_000))
    })
}

#[test]
fn same_faults_hit_call_and_live_differently() {
    let mut nodes = ["east-a1", "east-b1", "west-a1", "west-b1", "north-a1"].map(Node::agent);
    let mut world = World::of(&nodes.each_ref()).with_identities("[\"stun\"]");
    let call = include_str!("../../policies/call.toml").split_once("[scenario.call]\n");
    // On a busy machine an admission may be answered too late, which would cap a session from its start.
    world.scenario = call.unwrap().1.replace("admit-capped", "admit");
    let live = include_str!("../../policies/live.toml").replace("admit-capped", "admit");
    // The lab's video has 400 kbit/s: a cap at the shipped floor would save nothing once a fifth is lost.
    let floors = [["\"300 kbit/s\"", "\"200 kbit/s\""], ["floor = 300", "floor = 200"]];
    world.live = floors.iter().fold(live, |live, [shipped, low]| live.replace(shipped, low));
    let gateway = world.start();
    gateway.ask(gateway.handle.policies_stand()).unwrap();
    let api = Api::of(&gateway);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let crowds = SCENARIOS.map(|scenario| enter(&runtime, &api, scenario));
    let routes = || SCENARIOS.map(|scenario| route(&gateway, scenario));
    let have_standbys = || routes().map(|route| route.len()) == [3, 2];
    wait_until("the call has two standbys, the stream one", have_standbys);

    // A node dies, and with it the standby in the region.
    let is_near = |hop: &Hop| (hop.node.0 as usize) < NODES_NEAR;
    let before = routes();
    assert!(before.iter().all(|route| route[..NODES_NEAR].iter().all(is_near)), "{before:?}");
    for node in &mut nodes[..NODES_NEAR] {
        node.die();
    }
    wait_until("both have their standbys again, elsewhere", || {
        have_standbys() && !routes().iter().flatten().any(is_near)
    });
    wait_until("its second standby carries the call", || {
        hops_taken(&gateway, "call").last() == Some(&before[0][2])
    });
    wait_until("the stream takes a hop that it had not", || {
        hops_taken(&gateway, "live").iter().any(|hop| !before[1].contains(hop))
    });

    let quick = Duration::from_millis(100);
    wait_within(REPORTED_WITHIN, "the round trips of all receivers are measured", || {
        let trips = SCENARIOS.map(|scenario| round_trips(&gateway, scenario));
        trips.iter().all(|trips| trips.len() == 2 && trips.iter().all(|trip| *trip < quick))
    });
    wait_within(REPORTED_WITHIN, "no session is degraded", || have_recovered(&gateway));
    // A policy that is late on a busy machine is suspended, and would learn the delay as the usual round trip.
    let ticks = || SCENARIOS.map(|scenario| ticks(&gateway, scenario));
    let before = ticks();
    wait_within(REPORTED_WITHIN, "the policies have seen the usual round trips", || {
        ticks().iter().zip(before).all(|(ticks, before)| *ticks > before + 1)
    });
    let delay = Duration::from_millis(150);
    impair(&crowds, Conditions { delay, ..Conditions::default() });
    wait_within(REPORTED_WITHIN, "the call is capped", || {
        let is_capped = |plan: &Plan| plan.cap_kbps() > 0 || plan.cap_down_kbps() > 0;
        plans(&gateway, "call").iter().any(is_capped)
    });
    wait_within(REPORTED_WITHIN, "the delay of the stream is measured", || {
        round_trips(&gateway, "live").iter().all(|trip| *trip > 2 * quick)
    });
    let streamed = plans(&gateway, "live");
    assert!(streamed.iter().all(|plan| plan.rung() == 0), "delay caps no stream: {streamed:?}");
    assert!(
        plans(&gateway, "call").iter().all(|plan| plan.arg(Op::VoiceOnly) == 0),
        "delay drops no video"
    );

    impair(&crowds, Conditions::loss_percent(20));
    wait_within(REPORTED_WITHIN, "the call has voice only, the publisher a cap", || {
        plans(&gateway, "call").iter().all(|plan| plan.arg(Op::VoiceOnly) > 0)
            && plans(&gateway, "live").iter().any(|plan| (200..250).contains(&plan.cap_kbps()))
    });
    let streamed = plans(&gateway, "live");
    assert!(
        streamed.iter().all(|plan| plan.arg(Op::VoiceOnly) == 0),
        "the stream keeps its video: {streamed:?}"
    );
    let capped = streamed.iter().filter(|plan| plan.cap_kbps() > 0).count();
    assert_eq!(capped, 1, "viewers are not capped: {streamed:?}");
    for crowd in crowds {
        runtime.block_on(crowd.leave(&mut api.admin())).unwrap();
    }
}
