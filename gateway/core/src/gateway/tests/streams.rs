//! Sessions that change their streams.

use std::sync::Arc;

use evenkeel_model::{
    Impossible, IngressProtocol, MediaDescription, MediaLimits, SessionId, StreamKind,
};

use super::super::GatewayEffect;
use super::*;

const VOICE: (StreamKind, u8, Option<u32>) = (StreamKind::Audio, 111, None);
const VIDEO: (StreamKind, u8, Option<u32>) = (StreamKind::Video, 96, Some(2_000));

fn media(world: &World, id: SessionId) -> Arc<MediaDescription> {
    Arc::clone(world.gateway.tables.sessions[&id].media())
}

/// The load of all nodes, kbit/s.
fn load(world: &World) -> u64 {
    world.gateway.views().nodes().map(|node| node.carried_kbps).sum()
}

fn limits(world: &World, session: SessionId) -> Option<MediaLimits> {
    world.outputs.iter().rev().find_map(|output| match output {
        GatewayEffect::Plan { session: of, limits, .. } if *of == session => Some(*limits),
        _ => None,
    })
}

#[test]
fn load_follows_the_streams() {
    let mut world = World::new(settings_of(&[(0, 10_000), (0, 10_000)]));
    let open = |world: &mut World, room: &str, streams: &[_]| {
        let offer = world.offer_with(room, "call", streams, IngressProtocol::Quic);
        world.accepted(offer).session
    };
    let voice = open(&mut world, "voice", &[VOICE]);
    let before = load(&world);
    let video = open(&mut world, "video", &[VOICE, VIDEO]);
    let added = load(&world) - before;
    let [small, large] = [voice, video].map(|id| media(&world, id));
    world.gateway.handle_streams(voice, Arc::clone(&large), world.now).unwrap();
    world.settle();
    assert_eq!(load(&world), 2 * added);
    let changed = limits(&world, voice);
    assert!(changed.is_some_and(|limits| !limits.withholds(96)), "{changed:?}");
    world.gateway.handle_streams(voice, small, world.now).unwrap();
    world.settle();
    assert_eq!(load(&world), before + added);
    let none = world.gateway.handle_streams(SessionId(99), large, world.now);
    assert_eq!(none, Err(Impossible::NoSuchSession));
}
