//! Guarantees of each survival mode when nodes die, and mode changes during calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_config::ScenarioSettings;
use evenkeel_contract::gateway::Mode;
use evenkeel_control::{GatewayEvent, SessionAnswer};
use evenkeel_model::{
    CoreEvent, Health, ModeChange, NodeId, NotStarted, RedundancyMode, StartPhase,
};

use crate::drivers::operator;
use crate::harness::{
    Gateway, Node, Phone, World, assert_complete, assert_continuous, declared, offer, talk,
    talk_for, udp_of, wait_until,
};

fn world(nodes: &[&Node], scenario: &str) -> World {
    let mut world = World::of(nodes);
    world.scenario = scenario.to_owned();
    // One session must change the load visibly.
    world.nodes = world.nodes.replace("200 Mbit/s", "40 Mbit/s");
    world
}

/// Two clients that hear each other.
struct Call {
    anna: Phone,
    boris: Phone,
    opened: SessionAnswer,
}

impl Call {
    fn of(gateway: &Gateway, room: &str) -> Call {
        let [mut anna, mut boris] = [Phone::new(1), Phone::new(2)];
        let opened = gateway.open(offer(room, declared(&anna)));
        anna.set_target(udp_of(&opened));
        boris.set_target(udp_of(&gateway.open(offer(room, declared(&boris)))));
        Call { anna, boris, opened }
    }

    /// Both clients send until each has received `more` further packets.
    fn hear(&mut self, what: &str, more: usize) {
        let before = (self.anna.audio_from(2), self.boris.audio_from(1));
        talk(&mut [&mut self.anna, &mut self.boris], what, |phones| {
            phones[0].audio_from(2) >= before.0 + more && phones[1].audio_from(1) >= before.1 + more
        });
    }

    fn talk(&mut self, what: &str, mut until: impl FnMut() -> bool) {
        talk(&mut [&mut self.anna, &mut self.boris], what, |_| until());
    }

    /// Asserts that each received every packet of the other, once and in order, from its first on.
    fn assert_no_loss(mut self) {
        talk_for(&mut [&mut self.anna, &mut self.boris], 20);
        let (anna, boris) = (&mut self.anna, &mut self.boris);
        let sent = (anna.voice.sent, boris.voice.sent);
        wait_until("packets in flight arrive", || {
            anna.listen();
            boris.listen();
            let last = |phone: &Phone, other| {
                phone.heard_from(other, 0).last().map(|heard| heard.mark.number + 1)
            };
            (last(boris, 1), last(anna, 2)) == (Some(sent.0), Some(sent.1))
        });
        for (phone, other) in [(&self.anna, &self.boris), (&self.boris, &self.anna)] {
            let heard = phone.heard_from(other.number, 0);
            assert_eq!(assert_continuous(&heard), 0);
            assert_complete(&heard, heard[0].mark.number, other.voice.sent);
        }
    }
}

fn view(gateway: &Gateway, mode: RedundancyMode) -> Mode {
    let modes = gateway.ask(gateway.handle.modes()).unwrap();
    modes.into_iter().find(|view| view.mode == mode.name()).unwrap()
}

/// Changes the scenario at runtime.
fn change(gateway: &Gateway, to: impl Fn(&mut ScenarioSettings)) {
    let mut sets = gateway.settings.sets.clone();
    let mut scenarios = sets.iter_mut().flat_map(|set| &mut set.scenarios);
    to(scenarios.find(|scenario| &*scenario.name == "call").unwrap());
    gateway.ask(gateway.handle.change_sets(sets)).unwrap().unwrap();
}

/// Waits for copies through the second hop.
fn copies_come(gateway: &Gateway, call: &mut Call) {
    let before = gateway.drops("duplicate");
    call.talk("copies come", || gateway.drops("duplicate") > before + 40);
}

#[test]
fn hitless_room_loses_nothing_whichever_hop_dies() {
    for dies in [0, 1] {
        let mut nodes = ["east-a1", "east-b1", "west-a1"].map(Node::identical);
        let gateway = world(&nodes.each_ref(), "mode = \"hitless\"\nspares = 2\n").start();
        let mut call = Call::of(&gateway, "room");
        copies_come(&gateway, &mut call);
        let route: Vec<usize> = call.opened.route.iter().map(|hop| hop.node.0 as usize).collect();
        nodes[route[dies]].die();
        call.hear("media continues", 50);
        gateway.expect_event("the node is down", |event| match event {
            CoreEvent::Node { to: Health::Down, .. } => Some(()),
            _ => None,
        });
        // The standby has joined the pair, so the other first hop may die too.
        copies_come(&gateway, &mut call);
        nodes[route[1 - dies]].die();
        call.hear("media through the last node", 50);
        call.assert_no_loss();
        let view = view(&gateway, RedundancyMode::Hitless);
        assert_eq!((&*view.scenarios, view.packets_lost), (&["call".into()][..], Some(0)));
        // Copies cost bandwidth in both directions.
        assert!(view.bandwidth_cost.unwrap() > 0.4, "{view:?}");
    }
}

#[test]
fn hitless_with_rewriting_nodes_degrades_to_hot() {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = world(&nodes.each_ref(), "mode = \"hitless\"\n").start();
    let mut call = Call::of(&gateway, "room");
    let unalike = |event: &CoreEvent| match event {
        CoreEvent::Mode { to, why: ModeChange::CopiesDiffer { .. }, .. } => Some(*to),
        _ => None,
    };
    call.talk("the mode change is reported", || {
        gateway.happened(|told| match &told.event {
            GatewayEvent::Core(event) => unalike(event),
            _ => None,
        }) == Some(RedundancyMode::Hot)
    });
    assert_eq!(gateway.session(&call.opened).unwrap().state.mode, RedundancyMode::Hot);
    call.hear("media continues", 20);
    let first = call.opened.route[0].node.0 as usize;
    nodes[first].die();
    call.hear("media through the other", 20);
    for (phone, other) in [(&call.anna, 2), (&call.boris, 1)] {
        assert_continuous(&phone.heard_from(other, 0));
    }
}

#[test]
fn mode_changes_during_call_without_loss() {
    let nodes = ["east-a1", "east-b1", "west-a1"].map(Node::identical);
    let gateway = world(&nodes.each_ref(), "spares = 2\n").start();
    let mut call = Call::of(&gateway, "room");
    call.hear("media flows", 20);
    let carrier = call.opened.route[0];
    for mode in [
        RedundancyMode::Hitless,
        RedundancyMode::Hot,
        RedundancyMode::Hitless,
        RedundancyMode::Cold,
        RedundancyMode::ActiveActive,
    ] {
        change(&gateway, |scenario| scenario.mode = mode);
        let session = gateway.session(&call.opened).unwrap().state;
        assert_eq!((session.mode, session.hop), (mode, Some(carrier)));
        if mode == RedundancyMode::Hitless {
            copies_come(&gateway, &mut call);
        }
        call.hear("media continues", 30);
    }
    call.assert_no_loss();
}

/// The path of a file that a start hook creates.
fn marker(name: &str) -> PathBuf {
    let marker =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&marker);
    marker
}

#[test]
fn cold_node_starts_by_command_and_calls_resume() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let marker = marker("cold");
    let mut world = world(&[&first], "mode = \"cold\"\n");
    let command = format!("[\"/bin/sh\", \"-c\", \"echo on >> {}\"]", marker.display());
    world.nodes += &format!("{}start = {{ command = {command} }}\n", cold.text());
    let gateway = world.start();
    let mut call = Call::of(&gateway, "room");
    assert_eq!(call.opened.route.len(), 1, "no spare");
    call.hear("media flows", 20);
    first.die();
    call.talk("the hook runs", || marker.exists());
    // Simulates the start that the hook's command triggers.
    cold.revive();
    call.hear("media resumes", 20);
    let took = gateway.expect_event("the start is reported", |event| match event {
        CoreEvent::Start { step: StartPhase::Done { took }, node: NodeId(1) } => Some(*took),
        _ => None,
    });
    assert!(!took.is_zero());
    assert_eq!(std::fs::read_to_string(&marker).unwrap().lines().count(), 1, "called once");
    wait_until("both recoveries are measured", || {
        view(&gateway, RedundancyMode::Cold).recoveries == 2
    });
    let view = view(&gateway, RedundancyMode::Cold);
    assert!(view.recovery_ms.unwrap().max >= took.as_micros() as f64 / 1_000.0, "{view:?}");
    for (phone, other) in [(&call.anna, 2), (&call.boris, 1)] {
        assert_continuous(&phone.heard_from(other, 0));
    }
    std::fs::remove_file(&marker).unwrap();
}

#[test]
fn late_start_is_given_up_and_its_command_killed() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let marker = marker("late");
    let mut world = world(&[&first], "mode = \"cold\"\n");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300", marker.display());
    let command = format!("[\"/bin/sh\", \"-c\", \"{script}\"]");
    world.nodes += &format!("{}start = {{ command = {command}, timeout = \"2s\" }}\n", cold.text());
    let gateway = world.start();
    let mut call = Call::of(&gateway, "room");
    call.hear("media flows", 20);
    first.die();
    call.talk("the hook runs", || marker.exists());
    let pid = std::fs::read_to_string(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    gateway.expect_event("the start fails", |event| match event {
        CoreEvent::Start { step: StartPhase::Failed { why: NotStarted::Late, .. }, .. } => Some(()),
        _ => None,
    });
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    call.talk("its command ends", || !process.exists());
}

#[test]
fn cold_node_starts_by_webhook() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let (url, asked) = operator("202 Accepted", String::new());
    let mut world = world(&[&first], "mode = \"cold\"\n");
    world.nodes += &format!("{}start = {{ webhook = \"{url}\" }}\n", cold.text());
    let gateway = world.start();
    let mut call = Call::of(&gateway, "room");
    call.hear("media flows", 20);
    first.die();
    let mut said = None;
    call.talk("the webhook is called", || {
        said = asked.try_recv().ok();
        said.is_some()
    });
    let mut said = said.unwrap().1;
    let attempt = said.as_object_mut().unwrap().remove("attempt");
    assert!(
        attempt.is_some_and(|attempt| attempt.is_string()),
        "the attempt identifies repeated POSTs"
    );
    assert_eq!(said, serde_json::json!({"verb": "start", "node": "east-b1"}));
    cold.revive();
    call.hear("media resumes", 20);
    assert!(asked.try_recv().is_err(), "called once");
}

#[test]
fn regional_room_moves_to_next_region() {
    let mut nodes = ["east-a1", "west-a1", "south-a1"].map(Node::agent);
    let scenario = "mode = \"regional\"\nregions = [\"south\", \"east\", \"west\"]\nspares = 2\n";
    let gateway = world(&nodes.each_ref(), scenario).start();
    let mut call = Call::of(&gateway, "room");
    let names: Vec<u32> = call.opened.route.iter().map(|hop| hop.node.0).collect();
    assert_eq!(names, [0, 1, 2], "regions in order, starting at east");
    call.hear("media flows", 20);
    nodes[0].die();
    call.hear("media through the west", 20);
    assert_eq!(gateway.session(&call.opened).unwrap().state.hop.unwrap().node, NodeId(1));
    wait_until("both recoveries are measured", || {
        view(&gateway, RedundancyMode::Regional).recoveries == 2
    });
}

#[test]
fn active_active_rooms_spread_and_survive() {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = world(&nodes.each_ref(), "mode = \"active-active\"\n").start();
    let mut calls = [Call::of(&gateway, "one"), Call::of(&gateway, "two")];
    let carriers = calls.each_ref().map(|call| call.opened.route[0].node);
    assert_ne!(carriers[0], carriers[1], "load spreads");
    calls.iter_mut().for_each(|call| call.hear("media flows", 10));
    nodes[carriers[0].0 as usize].die();
    for call in &mut calls {
        call.hear("media continues", 20);
        let session = gateway.session(&call.opened).unwrap().state;
        assert_eq!(session.hop.unwrap().node, carriers[1]);
    }
    wait_until("the recovery is measured", || {
        view(&gateway, RedundancyMode::ActiveActive).recoveries == 2
    });
    // Standbys cost only the messages that open and refresh sessions.
    let cost = view(&gateway, RedundancyMode::ActiveActive).bandwidth_cost.unwrap();
    assert!(cost > 0.0, "{cost}");
}

#[test]
fn session_affinity_places_each_session_alone() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway =
        world(&nodes.each_ref(), "mode = \"active-active\"\naffinity = \"session\"\n").start();
    let phones = [Phone::new(1), Phone::new(2)];
    let opened = phones.each_ref().map(|phone| gateway.open(offer("room", declared(phone))));
    assert_ne!(opened[0].room, opened[1].room);
    assert_ne!(opened[0].route[0].node, opened[1].route[0].node, "load spreads by session");
    let rooms = gateway.ask(gateway.handle.rooms()).unwrap();
    let names: Vec<Arc<str>> = rooms.iter().map(|room| Arc::clone(&room.name)).collect();
    assert_eq!(names, opened.each_ref().map(|opened| format!("room~{}", opened.session).into()));
}
