use std::time::Duration;

use evenkeel_model::{
    AdmitOnFault, AdmitVerdict, ClientIdentity, CloseReason, CoreEvent, Decider, DecisionOutcome,
    Hook, HookAnswer, IngressProtocol, OfferRefusal, PluginFault, PolicyQuestion, RegionId,
    StreamKind,
};
use evenkeel_nodes::NodeEvidence;

use super::super::{GatewayEffect, NotOpened};
use super::world::Driver;
use super::*;
use crate::legs::LegState;

const US: Duration = Duration::from_micros(1);

#[test]
fn offer_is_answered_once_hop_is_open() {
    let mut world = World::new(settings());
    world.drive_with(|_, _| Driver::Waits);
    let offer = world.offer("r");
    assert!(world.replies.is_empty());
    let second = world.route("r")[1].0;
    world.finish_opening(second, Ok(()));
    assert!(world.replies.is_empty(), "a standby carries nothing");
    let first = world.stands("r").unwrap();
    world.finish_opening(first, Ok(()));
    assert_eq!(world.accepted(offer).routed_by, Decider::Native);
}

#[test]
fn offer_steps_time_out_to_native() {
    let hooks = [Hook::Scenario, Hook::Admission, Hook::Routing];
    let mut world = World::with_policy(settings(), &hooks, |_| None);
    let offer = world.offer("r");
    for (step, hook) in hooks.into_iter().enumerate() {
        assert_eq!(world.held.len(), step + 1, "{hook:?} is asked");
        assert_eq!(world.held[step].deadline, world.now + ms(2));
        world.pass(ms(2) - US);
        assert_eq!(world.held.len(), step + 1, "{hook:?} still has time");
        assert!(world.replies.is_empty());
        world.pass(US);
    }
    let accepted = world.accepted(offer);
    assert_eq!((&accepted.admitted_by, &accepted.routed_by), (&Decider::Native, &Decider::Native));
    let late = |event: &&CoreEvent| {
        matches!(
            event,
            CoreEvent::Decided { outcome: DecisionOutcome::Faulted(PluginFault::Late), .. }
        )
    };
    assert_eq!(world.events().filter(late).count(), 3);
}

#[test]
fn late_answer_changes_nothing() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |_| None);
    world.offer("r");
    world.pass(ms(3));
    let native = world.route("r");
    world.answer_held(Ok(placement(&[D], 0)));
    assert_eq!(world.route("r"), native);
}

#[test]
fn policy_places_room_with_state() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[C, B]));
    let offer = world.offer("r");
    assert_eq!(world.stands("r"), Some(C));
    assert!(matches!(world.accepted(offer).routed_by, Decider::Policy { .. }));
    assert_eq!(
        world.gateway.rooms[&world.room("r")].memory().read(None).cloned(),
        Some(state(b"placed").into())
    );
}

#[test]
fn invalid_placement_is_dropped_with_state() {
    for hops in [&[NodeIds::NONE][..], &[A, A], &[A, B, C, D, A], &[A, B, NodeIds::NONE]] {
        let hops = hops.to_vec();
        let mut world = World::with_policy(settings(), &[Hook::Routing], move |ask| {
            let PolicyQuestion::Place { .. } = ask.question else { return None };
            Some(Ok(placement(&hops, 0)))
        });
        let offer = world.offer("r");
        assert_eq!(world.accepted(offer).routed_by, Decider::Native);
        assert_eq!(world.gateway.rooms[&world.room("r")].memory().read(None).cloned(), None);
    }
}

struct NodeIds;
impl NodeIds {
    const NONE: evenkeel_model::NodeId = evenkeel_model::NodeId(99);
}

#[test]
fn placement_fits_to_the_last_kbit() {
    for (capacity, fits) in [(64, true), (63, false)] {
        let settings = settings_of(&[(0, capacity), (1, 1_000)]);
        let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, B]));
        world.offer("r");
        assert_eq!(world.stands("r"), Some(if fits { A } else { B }));
    }
}

#[test]
fn later_sessions_use_route_unasked() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[C, B]));
    let first = world.offer("r");
    let later = world.offer("r");
    assert_eq!(world.asked(Hook::Routing), 1);
    let (first, later) = (world.accepted(first), world.accepted(later));
    assert!(std::sync::Arc::ptr_eq(&first.route, &later.route));
}

#[test]
fn sessions_during_placement_open_together() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |_| None);
    let offers = [world.offer("r"), world.offer("r")];
    assert_eq!(world.held.len(), 1);
    world.answer_held(Ok(placement(&[B, A], 0)));
    let routes = offers.map(|offer| world.accepted(offer).route.clone());
    assert!(std::sync::Arc::ptr_eq(&routes[0], &routes[1]));
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn first_packet_asks_no_policy() {
    let hooks = [Hook::Scenario, Hook::Admission, Hook::Routing];
    let mut world = World::with_policy(settings(), &hooks, |_| None);
    let first = |world: &mut World| {
        let address = ([127, 0, 0, 1], 9).into();
        let ingress = IngressProtocol::Udp(ClientIdentity::Open { address, listener: 0 });
        world.offer_with("r", "call", &[(StreamKind::Audio, 111, None)], ingress)
    };
    let offer = first(&mut world);
    assert_eq!(world.accepted(offer).routed_by, Decider::Native);
    assert!(world.held.is_empty());

    // The room does not wait for a policy that others asked either; the policy's answer comes too late for the room.
    let mut world = World::with_policy(settings(), &[Hook::Routing], |_| None);
    let asker = world.offer("r");
    let offer = first(&mut world);
    assert_eq!(world.accepted(offer).routed_by, Decider::Native);
    let route = world.route("r");
    world.accepted(asker);
    world.answer_held(Ok(placement(&[D], 0)));
    assert_eq!(world.route("r"), route);
}

#[test]
fn idle_room_moves_to_next_hop() {
    let mut world = World::new(settings());
    world.drive_with(|_, hop| if hop.node == A { Driver::Refuses } else { Driver::Opens });
    world.open("r");
    assert_eq!(world.stands("r"), Some(B));

    // If a session is live, the failure of a new one does not move the room.
    world.drive_with(|_, hop| if hop.node == B { Driver::Refuses } else { Driver::Opens });
    let offer = world.offer("r");
    assert!(
        matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::NotOpened { node, .. }) if node == B)
    );
    assert_eq!(world.stands("r"), Some(B));

    // Without any node the offer is refused at once.
    let mut world = World::new(settings());
    world.drive_with(|_, _| Driver::Refuses);
    let offer = world.offer("r");
    assert!(matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::NotOpened { .. })));
    assert!(world.gateway.rooms.len() == 0);
}

#[test]
fn session_too_many_is_refused_alone() {
    let mut world = World::new(settings_of(&[(0, 1_000)]));
    world.drive_with(|_, _| Driver::Waits);
    let offers = [(); 3].map(|()| world.offer("r"));
    let (third, hop) = *world.opening.last().unwrap();
    world.opening.remove(&(third, hop));
    world.gateway.handle_room_full(third, hop, world.now);
    world.settle();
    let refused = denied(world.replies.get(&offers[2]));
    assert!(matches!(refused, Some(OfferRefusal::NotOpened { node: A, .. })), "{refused:?}");
    world.finish_opening(A, Ok(()));
    assert_eq!(world.stands("r"), Some(A));
    for offer in &offers[..2] {
        world.accepted(*offer);
    }
}

#[test]
fn live_session_is_opened_again_at_the_only_node() {
    let mut world = World::new(settings_of(&[(0, 1_000)]));
    let session = world.open("r");
    let hop = world.gateway.stands_at(world.room("r")).unwrap();
    world.drive_with(|_, _| Driver::Refuses);
    world.gateway.handle_opened(session, hop, Err(NotOpened), world.now);
    world.pass(ms(2_500));
    assert_eq!(world.gateway.tables.sessions[&session].legs().get(&hop), None);
    world.drive_with(|_, _| Driver::Opens);
    world.pass(ms(1_000));
    assert_eq!(world.gateway.tables.sessions[&session].legs().get(&hop), Some(LegState::Open));
}

#[test]
fn unwilling_node_keeps_rooms_takes_none() {
    let mut world = World::new(settings());
    world.open("old");
    assert_eq!(world.stands("old"), Some(A));
    world.gateway.handle_evidence(A, NodeEvidence::Willing(false), world.now);
    world.gateway.handle_evidence(B, NodeEvidence::Willing(false), world.now);
    world.open("new");
    assert_eq!(world.stands("new"), Some(C));
    assert!(world.route("new").iter().all(|(node, _)| *node != B));
    assert_eq!(world.stands("old"), Some(A));
    assert_eq!(world.route("old")[1].0, B, "its sessions are open there");
    assert!(world.check_hops("old", &[A, B]).is_ok());
    assert!(world.check_hops("new", &[A]).is_err());
    world.gateway.handle_evidence(B, NodeEvidence::Willing(true), world.now);
    assert!(world.check_hops("new", &[B]).is_ok());
    world.pass(ms(5_002));
    assert!(world.check_hops("new", &[A]).is_ok());
}

#[test]
fn failing_admission_uses_scenario_default() {
    for (on_fault, cap) in [(AdmitOnFault::Admit, 0), (AdmitOnFault::AdmitCapped, 24)] {
        let mut world = failing_admission(on_fault);
        let offer = world.offer("r");
        let accepted = world.accepted(offer);
        assert_eq!((accepted.plan.cap_kbps(), &accepted.admitted_by), (cap, &Decider::Native));
    }
    let mut world = failing_admission(AdmitOnFault::Reject);
    let offer = world.offer("r");
    assert!(matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::Rejected { .. })));
    assert!(world.gateway.rooms.len() == 0);
}

fn failing_admission(on_fault: AdmitOnFault) -> World {
    let mut settings = settings();
    for scenario in settings.scenarios.values_mut() {
        scenario.on_admission_fault = on_fault;
    }
    World::with_policy(settings, &[Hook::Admission], |_| Some(Err(PluginFault::Trap("x".into()))))
}

fn with_verdict(verdict: AdmitVerdict) -> World {
    World::with_policy(settings(), &[Hook::Admission], move |_| {
        Some(Ok(HookAnswer::Admit { verdict, reason: 0 }))
    })
}

#[test]
fn admission_cap_stays_in_bounds() {
    for (asked, cap) in [(23, 0), (24, 24), (2_000, 2_000), (2_001, 0)] {
        let mut world = with_verdict(AdmitVerdict::AcceptCapped(asked));
        let offer = world.offer("r");
        assert_eq!(world.accepted(offer).plan.cap_kbps(), cap);
    }
}

#[test]
fn admission_redirect_spares_existing_rooms() {
    let mut world = with_verdict(AdmitVerdict::Redirect(RegionId(1)));
    let offer = world.offer("r");
    assert_eq!(denied(world.replies.get(&offer)), Some(OfferRefusal::Redirected(RegionId(1))));
    for nowhere in [RegionId(0), RegionId(2)] {
        let mut world = with_verdict(AdmitVerdict::Redirect(nowhere));
        let offer = world.offer("r");
        world.accepted(offer);
    }
    let mut world = with_verdict(AdmitVerdict::Accept);
    world.open("r");
    world.answer_with(|_| {
        let verdict = AdmitVerdict::Redirect(RegionId(1));
        Some(Ok(HookAnswer::Admit { verdict, reason: 0 }))
    });
    world.open("r");

    let mut world = with_verdict(AdmitVerdict::Reject(700));
    let offer = world.offer("r");
    let Some(OfferRefusal::Rejected { retry_after }) = denied(world.replies.get(&offer)) else {
        panic!()
    };
    assert!((ms(700)..ms(1_400)).contains(&retry_after), "{retry_after:?}");
}

#[test]
fn scenario_plugin_stays_in_bounds() {
    let params = |params: &'static [(&str, i64)]| {
        World::with_policy(settings(), &[Hook::Scenario], move |_| {
            let params = params.iter().map(|(key, value)| ((*key).into(), *value)).collect();
            Some(Ok(HookAnswer::Params(params)))
        })
    };
    let mut world = params(&[("bitrate-floor", 1), ("bitrate-ceiling", 9_000), ("spares", 9)]);
    let session = world.open("r");
    let bounds = world.gateway.tables.sessions[&session].bounds();
    assert_eq!((bounds.floor_kbps, bounds.ceiling_kbps), (24, 2_000));
    assert_eq!(world.route("r").len(), 4);
    let mut world = params(&[("close-after", 5), ("spares", -1), ("unheard-of", 1)]);
    let session = world.open("r");
    assert_eq!(world.gateway.tables.sessions[&session].close_after(), ms(1_000));
    assert_eq!(world.route("r").len(), 2);
}

#[test]
fn scenario_difference_is_counted_exactly() {
    // The configured values: 24 to 2,000 kbit/s, 30 s, one spare, priority 0.
    for (key, value, outcome) in [
        ("bitrate-floor", 24, DecisionOutcome::Applied { differs: false }),
        ("bitrate-ceiling", 9_000, DecisionOutcome::Applied { differs: false }),
        ("bitrate-ceiling", 1_000, DecisionOutcome::Applied { differs: true }),
        ("close-after", 30_000, DecisionOutcome::Applied { differs: false }),
        ("spares", 1, DecisionOutcome::Applied { differs: false }),
        ("spares", 2, DecisionOutcome::Applied { differs: true }),
        ("priority", -7, DecisionOutcome::Applied { differs: false }),
        ("priority", i64::MAX, DecisionOutcome::Applied { differs: true }),
        ("unheard-of", 1, DecisionOutcome::Abstained),
    ] {
        let mut world = World::with_policy(settings(), &[Hook::Scenario], move |_| {
            Some(Ok(HookAnswer::Params(vec![(key.into(), value)])))
        });
        world.open("r");
        let decided = world.events().find_map(|event| match event {
            CoreEvent::Decided { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        assert_eq!(decided, Some(outcome), "{key} {value}");
        let priority = world.gateway.rooms[&world.room("r")].priority();
        assert!((0..=100).contains(&priority), "{priority}");
    }
}

#[test]
fn invalid_admission_counts_as_fault() {
    for verdict in [AdmitVerdict::Redirect(RegionId(0)), AdmitVerdict::AcceptCapped(1)] {
        for (on_fault, cap) in [
            (AdmitOnFault::Admit, Some(0)),
            (AdmitOnFault::AdmitCapped, Some(24)),
            (AdmitOnFault::Reject, None),
        ] {
            let mut settings = settings();
            for scenario in settings.scenarios.values_mut() {
                scenario.on_admission_fault = on_fault;
            }
            let mut world = World::with_policy(settings, &[Hook::Admission], move |_| {
                Some(Ok(HookAnswer::Admit { verdict, reason: 0 }))
            });
            let offer = world.offer("r");
            let reply = world.replies[&offer].as_ref().ok();
            assert_eq!(reply.map(|accepted| accepted.plan.cap_kbps()), cap, "{on_fault:?}");
        }
    }
}

#[test]
fn refusal_of_carrying_hop_refuses_session() {
    let mut world = World::new(settings());
    world.open("r");
    let route = world.route("r");
    let stands = world.stands("r").unwrap();
    world.drive_with(
        move |_, hop| {
            if hop.node == stands { Driver::Refuses } else { Driver::Opens }
        },
    );
    let offer = world.offer("r");
    assert!(
        matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::NotOpened { node, .. }) if node == stands)
    );
    assert_eq!(world.route("r"), route);
}

#[test]
fn refusing_standby_is_replaced() {
    let mut world = World::new(settings());
    world.drive_with(|_, hop| if hop.node == B { Driver::Refuses } else { Driver::Opens });
    world.open("r");
    world.pass(ms(20));
    assert_eq!(world.stands("r"), Some(A));
    assert_eq!(world.route("r").len(), 2);
    assert!(world.route("r").iter().all(|(node, _)| *node != B));
    let opens = |world: &World| {
        let at_b =
            |o: &&GatewayEffect| matches!(o, GatewayEffect::Open { hop, .. } if hop.node == B);
        world.outputs.iter().filter(at_b).count()
    };
    assert_eq!(opens(&world), 1);
    // The room avoids the node for a while, and then may try it again.
    world.gateway.handle_policy_changed(
        &evenkeel_model::PolicyName { set: "call".into(), hook: Hook::Routing },
        world.now,
    );
    world.pass(ms(9_900));
    assert_eq!(opens(&world), 1);
}

#[test]
fn silent_driver_times_out() {
    let mut world = World::new(settings());
    world.drive_with(|_, _| Driver::Waits);
    let offer = world.offer("r");
    world.pass(ms(1_999));
    assert!(world.replies.is_empty());
    world.pass(ms(1));
    assert!(
        matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::NotOpened { node, .. }) if node == A)
    );
    let opens = world.outputs.iter().filter(|o| matches!(o, GatewayEffect::Open { .. })).count();
    assert_eq!(world.closed_at().len(), opens, "it was told to leave it everywhere");
}

#[test]
fn close_while_opening_closes_all_hops() {
    let mut world = World::new(settings());
    world.drive_with(|_, _| Driver::Waits);
    let offer = world.offer("r");
    let session = world.gateway.tables.sessions.keys().next().unwrap();
    world.close(session);
    assert_eq!(denied(world.replies.get(&offer)), Some(OfferRefusal::Closed));
    let hops: Vec<_> = world.opening.iter().map(|(session, hop)| (*session, hop.node)).collect();
    assert_eq!(world.closed_at(), hops);
    let before = world.outputs.len();
    world.finish_opening(A, Ok(()));
    world.finish_opening(B, Err(NotOpened));
    assert_eq!(world.outputs.len(), before, "late words change nothing");
    assert!(world.gateway.rooms.len() == 0);
    let again = world.gateway.handle_close(session, world.now);
    assert_eq!(again, Ok(()), "a repeated request");
}

#[test]
fn node_death_while_opening_uses_standby() {
    let mut world = World::new(settings());
    world.drive_with(|_, hop| if hop.node == A { Driver::Waits } else { Driver::Opens });
    let offer = world.offer("r");
    world.kill(A);
    assert_eq!(world.accepted(offer).routed_by, Decider::Native);
    assert_eq!(world.stands("r"), Some(B));
    world.finish_opening(A, Ok(()));
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn impossible_offer_is_refused_with_reason() {
    let mut settings = settings();
    settings.limits.sessions_max = 1;
    let mut world = World::new(settings);
    let unknown = world.offer_as("r", "opera");
    assert!(matches!(denied(world.replies.get(&unknown)), Some(OfferRefusal::UnknownScenario(_))));
    world.open("r");
    let full = world.offer("r");
    assert!(matches!(denied(world.replies.get(&full)), Some(OfferRefusal::Full { .. })));
    world.gateway.tables.settings.limits.sessions_max = 2;
    let other = world.offer_as("r", "stream");
    let named = OfferRefusal::ScenarioOfRoom("call".into());
    assert_eq!(denied(world.replies.get(&other)), Some(named));
}

#[test]
fn unplaceable_room_is_refused() {
    let mut world = World::new(settings_of(&[(0, 23), (1, 23)]));
    let offer = world.offer("r");
    assert!(matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::NoNode { .. })));
    let mut world = World::new(settings_of(&[(0, 87)]));
    world.open("r");
    let second = world.offer("r");
    assert!(matches!(denied(world.replies.get(&second)), Some(OfferRefusal::NoNode { .. })));
    let mut world = World::new(settings_of(&[(0, 128)]));
    world.open("r");
    world.open("r");
}

#[test]
fn session_closes_after_scenario_inactivity() {
    let mut world = World::new(settings());
    let quiet = world.open("r");
    let chatty = world.open("r");
    world.pass(ms(29_000));
    world.gateway.handle_summary(chatty, evenkeel_model::Measures::default(), Some(world.now));
    world.pass(ms(499));
    assert_eq!(world.gateway.tables.sessions.len(), 2);
    world.pass(ms(1_000));
    assert!(!world.gateway.tables.sessions.contains_key(&quiet));
    assert!(world.gateway.tables.sessions.contains_key(&chatty));
    let silent =
        |e: &CoreEvent| matches!(e, CoreEvent::Closed { reason: CloseReason::MediaTimeout, .. });
    assert!(world.events().any(silent));
}

#[test]
fn mass_inactivity_closes_in_turns() {
    let mut world = World::new(settings_of(&[(0, 1_000_000), (1, 1_000_000)]));
    for _ in 0..2_100 {
        world.open("r");
    }
    world.pass(ms(30_500));
    let left = world.gateway.live();
    assert!((1..2_100).contains(&left), "{left}");
    world.pass(ms(200));
    assert_eq!(world.gateway.live(), 0);
}

#[test]
fn shutdown_waits_for_sessions_and_reports_once() {
    let mut world = World::with_policy(settings(), &[Hook::Admission], |_| Some(Ok(accept())));
    let session = world.open("r");
    world.answer_with(|_| None);
    let asked = world.offer("r");
    world.gateway.handle_shutdown(ms(5_000), world.now);
    world.settle();
    let offer = world.offer("r");
    assert_eq!(denied(world.replies.get(&offer)), Some(OfferRefusal::Draining));
    world.answer_held(Ok(accept()));
    assert_eq!(denied(world.replies.get(&asked)), Some(OfferRefusal::Draining), "though admitted");
    let finished = |world: &World| {
        world.outputs.iter().filter(|o| matches!(o, GatewayEffect::Finished)).count()
    };
    assert_eq!(finished(&world), 0);
    world.close(session);
    assert_eq!(finished(&world), 1);
    world.pass(ms(6_000));
    assert_eq!(finished(&world), 1);
}

#[test]
fn shutdown_ends_sessions_at_deadline() {
    let mut world = World::new(settings());
    let live = world.open("r");
    world.drive_with(|_, _| Driver::Waits);
    let opening = world.offer("r");
    world.gateway.handle_shutdown(ms(1_000), world.now);
    world.pass(ms(999));
    assert_eq!(world.gateway.tables.sessions.len(), 2);
    world.pass(ms(1));
    assert_eq!(denied(world.replies.get(&opening)), Some(OfferRefusal::Draining));
    let ended = |o: &GatewayEffect| matches!(o, GatewayEffect::End { session, reason: CloseReason::Shutdown } if *session == live);
    assert!(world.outputs.iter().any(ended));
    assert!(matches!(world.outputs.last(), Some(GatewayEffect::Finished)));
}

/// The handover compares the records with those of a follower.
#[test]
fn room_without_a_live_session_has_no_record() {
    let mut world = World::new(settings());
    let live = world.open("r");
    world.drive_with(|_, _| Driver::Waits);
    world.offer("r");
    world.close(live);
    world.hand_over(Duration::ZERO);
}
