//! What each mode promises, with nodes that die, and modes that change under calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_core::{Event, Health, Mode, ModeChange, NodeId, NotStarted, Scenario, Start};
use evenkeel_server::control::{Happened, ModeView, Opened};

use crate::drivers::operator;
use crate::harness::{
    Gateway, Node, Phone, World, complete, continuous, declared, offer, talk, talk_for, udp_of,
    wait_until,
};

fn world(nodes: &[&Node], scenario: &str) -> World {
    let mut world = World::of(nodes);
    world.scenario = scenario.to_owned();
    // So that a session or two can be told from none.
    world.nodes = world.nodes.replace("200 Mbit/s", "40 Mbit/s");
    world
}

/// Two who hear each other.
struct Call {
    anna: Phone,
    boris: Phone,
    opened: Opened,
}

impl Call {
    fn of(gateway: &Gateway, room: &str) -> Call {
        let [mut anna, mut boris] = [Phone::new(1), Phone::new(2)];
        let opened = gateway.open(offer(room, declared(&anna)));
        anna.dial(udp_of(&opened));
        boris.dial(udp_of(&gateway.open(offer(room, declared(&boris)))));
        Call { anna, boris, opened }
    }

    /// They talk until each heard so many more packets of the other.
    fn hear(&mut self, what: &str, more: usize) {
        let before = (self.anna.voices_of(2), self.boris.voices_of(1));
        talk(&mut [&mut self.anna, &mut self.boris], what, |phones| {
            phones[0].voices_of(2) >= before.0 + more && phones[1].voices_of(1) >= before.1 + more
        });
    }

    /// They talk until something holds.
    fn talk(&mut self, what: &str, mut until: impl FnMut() -> bool) {
        talk(&mut [&mut self.anna, &mut self.boris], what, |_| until());
    }

    /// Each heard every packet of the other, once and in order, from the first that it heard.
    fn lost_nothing(mut self) {
        talk_for(&mut [&mut self.anna, &mut self.boris], 20);
        let (anna, boris) = (&mut self.anna, &mut self.boris);
        let sent = (anna.voice.sent, boris.voice.sent);
        wait_until("what was on its way came", || {
            anna.listen();
            boris.listen();
            let last = |phone: &Phone, other| {
                phone.heard_of(other, 0).last().map(|heard| heard.mark.number + 1)
            };
            (last(boris, 1), last(anna, 2)) == (Some(sent.0), Some(sent.1))
        });
        for (phone, other) in [(&self.anna, &self.boris), (&self.boris, &self.anna)] {
            let heard = phone.heard_of(other.number, 0);
            assert_eq!(continuous(&heard), 0);
            complete(&heard, heard[0].mark.number, other.voice.sent);
        }
    }
}

fn view(gateway: &Gateway, mode: Mode) -> ModeView {
    let modes = gateway.ask(gateway.handle.modes()).unwrap();
    modes.into_iter().find(|view| view.mode == mode).unwrap()
}

/// The scenario says something else from now on.
fn change(gateway: &Gateway, to: impl Fn(&mut Scenario)) {
    let mut scenarios = gateway.settings.core().scenarios;
    to(scenarios.get_mut("call").unwrap());
    gateway.ask(gateway.handle.change_scenarios(scenarios)).unwrap();
}

/// Whether copies come back by the second hop, packet by packet.
fn copies_come(gateway: &Gateway, call: &mut Call) {
    let before = gateway.drops("copy");
    call.talk("copies come", || gateway.drops("copy") > before + 40);
}

#[test]
fn in_hitless_mode_nothing_is_lost_whichever_hop_dies_and_the_next_one_joins() {
    for dies in [0, 1] {
        let mut nodes = ["east-a1", "east-b1", "west-a1"].map(Node::copying);
        let gateway = world(&nodes.each_ref(), "mode = \"hitless\"\nspares = 2\n").start();
        let mut call = Call::of(&gateway, "room");
        copies_come(&gateway, &mut call);
        let route: Vec<usize> = call.opened.route.iter().map(|hop| hop.node.0 as usize).collect();
        nodes[route[dies]].die();
        call.hear("they go on", 50);
        gateway.expect_event("it is known", |event| match event {
            Event::Node { to: Health::Down, .. } => Some(()),
            _ => None,
        });
        // The one that stood by has joined: so the other of the first two may die as well.
        copies_come(&gateway, &mut call);
        nodes[route[1 - dies]].die();
        call.hear("they go on by the last one", 50);
        call.lost_nothing();
        let view = view(&gateway, Mode::Hitless);
        assert_eq!((&*view.scenarios, view.packets_lost), (&["call".into()][..], Some(0)));
        // Copies went there and came back.
        assert!(view.bandwidth_cost.unwrap() > 0.4, "{view:?}");
    }
}

#[test]
fn nodes_that_rewrite_are_noticed_in_hitless_mode_and_the_room_goes_on_as_in_hot_mode() {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = world(&nodes.each_ref(), "mode = \"hitless\"\n").start();
    let mut call = Call::of(&gateway, "room");
    let unalike = |event: &Event| match event {
        Event::Mode { to, why: ModeChange::Unalike { .. }, .. } => Some(*to),
        _ => None,
    };
    call.talk("it is noticed", || {
        gateway.happened(|told| match &told.event {
            Happened::Core(event) => unalike(event),
            Happened::Rollout(_)
            | Happened::Shed { .. }
            | Happened::NodeList(_)
            | Happened::NodeGone { .. }
            | Happened::TurnedAway { .. }
            | Happened::NotOpened { .. } => None,
        }) == Some(Mode::Hot)
    });
    assert_eq!(gateway.session(&call.opened).unwrap().mode, Mode::Hot);
    call.hear("they go on", 20);
    let first = call.opened.route[0].node.0 as usize;
    nodes[first].die();
    call.hear("by the other", 20);
    for (phone, other) in [(&call.anna, 2), (&call.boris, 1)] {
        continuous(&phone.heard_of(other, 0));
    }
}

#[test]
fn modes_change_under_a_call_and_nothing_is_lost() {
    let nodes = ["east-a1", "east-b1", "west-a1"].map(Node::copying);
    let gateway = world(&nodes.each_ref(), "spares = 2\n").start();
    let mut call = Call::of(&gateway, "room");
    call.hear("they talk", 20);
    let carrier = call.opened.route[0];
    for mode in [Mode::Hitless, Mode::Hot, Mode::Hitless, Mode::Cold, Mode::ActiveActive] {
        change(&gateway, |scenario| scenario.mode = mode);
        let session = gateway.session(&call.opened).unwrap();
        assert_eq!((session.mode, session.hop), (mode, Some(carrier)));
        if mode == Mode::Hitless {
            copies_come(&gateway, &mut call);
        }
        call.hear("they go on", 30);
    }
    call.lost_nothing();
}

/// A file that a hook makes, in a place of its own.
fn sign(name: &str) -> PathBuf {
    let sign =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&sign);
    sign
}

#[test]
fn a_cold_node_is_started_by_its_command_and_those_who_waited_go_on() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let sign = sign("cold");
    let mut world = world(&[&first], "mode = \"cold\"\n");
    let command = format!("[\"/bin/sh\", \"-c\", \"echo on >> {}\"]", sign.display());
    world.nodes += &format!("{}start = {{ command = {command} }}\n", cold.text());
    let gateway = world.start();
    let mut call = Call::of(&gateway, "room");
    assert_eq!(call.opened.route.len(), 1, "no spare");
    call.hear("they talk", 20);
    first.die();
    call.talk("the hook is called", || sign.exists());
    // As the command has it started, which takes its time.
    cold.revive();
    call.hear("those who waited go on", 20);
    let took = gateway.expect_event("it is told", |event| match event {
        Event::Start { step: Start::Done { took }, node: NodeId(1) } => Some(*took),
        _ => None,
    });
    assert!(!took.is_zero());
    assert_eq!(std::fs::read_to_string(&sign).unwrap().lines().count(), 1, "called once");
    let view = view(&gateway, Mode::Cold);
    assert_eq!(view.recoveries, 2, "{view:?}");
    assert!(view.recovery_max.unwrap() >= took, "{view:?}");
    for (phone, other) in [(&call.anna, 2), (&call.boris, 1)] {
        continuous(&phone.heard_of(other, 0));
    }
    std::fs::remove_file(&sign).unwrap();
}

#[test]
fn a_start_that_takes_too_long_is_given_up_and_its_command_ends() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let sign = sign("late");
    let mut world = world(&[&first], "mode = \"cold\"\n");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300", sign.display());
    let command = format!("[\"/bin/sh\", \"-c\", \"{script}\"]");
    world.nodes += &format!("{}start = {{ command = {command}, within = \"2s\" }}\n", cold.text());
    let gateway = world.start();
    let mut call = Call::of(&gateway, "room");
    call.hear("they talk", 20);
    first.die();
    call.talk("the hook is called", || sign.exists());
    let pid = std::fs::read_to_string(&sign).unwrap();
    std::fs::remove_file(&sign).unwrap();
    gateway.expect_event("it is given up", |event| match event {
        Event::Start { step: Start::Failed { why: NotStarted::Late, .. }, .. } => Some(()),
        _ => None,
    });
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    call.talk("its command ends", || !process.exists());
}

#[test]
fn a_cold_node_is_started_by_its_operators_server_where_it_has_a_webhook() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let (url, asked) = operator("202 Accepted", String::new());
    let mut world = world(&[&first], "mode = \"cold\"\n");
    world.nodes += &format!("{}start = {{ webhook = \"{url}\" }}\n", cold.text());
    let gateway = world.start();
    let mut call = Call::of(&gateway, "room");
    call.hear("they talk", 20);
    first.die();
    let mut said = None;
    call.talk("the server is asked", || {
        said = asked.try_recv().ok();
        said.is_some()
    });
    let mut said = said.unwrap().1;
    let attempt = said.as_object_mut().unwrap().remove("attempt");
    assert!(
        attempt.is_some_and(|attempt| attempt.is_string()),
        "a repeated POST says which it repeats"
    );
    assert_eq!(said, serde_json::json!({"verb": "start", "node": "east-b1"}));
    cold.revive();
    call.hear("those who waited go on", 20);
    assert!(asked.try_recv().is_err(), "asked once");
}

#[test]
fn in_regional_mode_a_room_goes_to_the_next_region_in_order() {
    let mut nodes = ["east-a1", "west-a1", "south-a1"].map(Node::agent);
    let scenario = "mode = \"regional\"\nregions = [\"south\", \"east\", \"west\"]\nspares = 2\n";
    let gateway = world(&nodes.each_ref(), scenario).start();
    let mut call = Call::of(&gateway, "room");
    let names: Vec<u32> = call.opened.route.iter().map(|hop| hop.node.0).collect();
    assert_eq!(names, [0, 1, 2], "behind the east, and around");
    call.hear("they talk", 20);
    nodes[0].die();
    call.hear("they go on in the west", 20);
    assert_eq!(gateway.session(&call.opened).unwrap().hop.unwrap().node, NodeId(1));
    assert_eq!(view(&gateway, Mode::Regional).recoveries, 2);
}

#[test]
fn in_active_active_mode_rooms_are_on_all_nodes_and_go_on_when_one_dies() {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = world(&nodes.each_ref(), "mode = \"active-active\"\n").start();
    let mut calls = [Call::of(&gateway, "one"), Call::of(&gateway, "two")];
    let carriers = calls.each_ref().map(|call| call.opened.route[0].node);
    assert_ne!(carriers[0], carriers[1], "load spreads");
    calls.iter_mut().for_each(|call| call.hear("they talk", 10));
    nodes[carriers[0].0 as usize].die();
    for call in &mut calls {
        call.hear("they go on", 20);
        let session = gateway.session(&call.opened).unwrap();
        assert_eq!(session.hop.unwrap().node, carriers[1]);
    }
    wait_until("it was measured", || view(&gateway, Mode::ActiveActive).recoveries == 2);
    // What opens sessions at standbys and keeps them open is all that they cost.
    let cost = view(&gateway, Mode::ActiveActive).bandwidth_cost.unwrap();
    assert!(cost > 0.0, "{cost}");
}

#[test]
fn where_nodes_are_meshed_each_session_is_placed_by_itself() {
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
