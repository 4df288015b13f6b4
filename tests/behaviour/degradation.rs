//! A lossy client is capped, then gets voice only, then video again with a key frame.

use std::process::Command;

use evenkeel_control::GatewayEvent;
use evenkeel_media::rtcp;
use evenkeel_testkit::binary::evenkeel;

use crate::harness::{
    Gateway, GatewayProcess, Heard, Node, Phone, World, assert_continuous, declared, ids, offer,
    talk, udp_of, wait_until,
};

/// A ladder that steps down within two ticks of 3 % loss, and up equally fast.
const QUICK: &str = "[degradation]\nplugin = \"degrade-ladder\"\n\
    settings = { steps = [\"cap\", \"voice-only\"], down_at_loss = 0.03, down_after = \"50ms\", \
    hysteresis = 0.8, up_after = \"50ms\", cap_factor = 0.1, cut_per_loss = 1000, raise_factor = 10 }\n";

/// 10 % in 256ths.
const LOSS: u8 = 26;

/// Reports this loss of both streams.
fn report(phone: &Phone, fraction_lost: u8) {
    let last = |stream| phone.heard_from(phone.number, stream).pop();
    let last: Vec<Heard> = [0, 1].into_iter().filter_map(last).collect();
    phone.report_loss(&last, fraction_lost);
}

/// The REMB caps that a phone received, in bits per second.
fn caps(phone: &Phone) -> Vec<u64> {
    let packets = phone.other.iter().flat_map(|bytes| rtcp::packets(bytes));
    packets
        .filter_map(|packet| match packet {
            Ok(rtcp::RtcpPacket::Remb(remb)) => Some(remb.bitrate_bps),
            _ => None,
        })
        .collect()
}

fn rung(gateway: &Gateway) -> u8 {
    gateway.ask(gateway.handle.sessions()).unwrap()[0].state.plan.rung()
}

#[test]
fn lossy_client_steps_down_and_recovers_video() {
    let mut node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = QUICK.into();
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.sends_video = true;
    ann.video.size = 100;
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    talk(&mut [&mut ann], "she sees herself", |phones| phones[0].heard_from(1, 1).len() >= 25);
    assert!(caps(&ann).is_empty() && rung(&gateway) == 0);

    talk(&mut [&mut ann], "she is capped", |phones| {
        report(phones[0], LOSS);
        caps(phones[0]).iter().any(|cap| *cap <= 100_000)
    });
    // Voice continues while video is shed.
    let shed = || gateway.status().drops.iter().any(|(name, count)| *name == "shed" && *count > 10);
    talk(&mut [&mut ann], "video is shed", |phones| {
        report(phones[0], LOSS);
        shed()
    });
    talk(&mut [&mut ann], "voice goes on without pictures", |phones| {
        report(phones[0], LOSS);
        phones[0].voices_since_video(1) >= 20
    });
    let pictures = ann.heard_from(1, 1).len();
    let asked = gateway.status().key_frames_to_node;

    talk(&mut [&mut ann], "video is back", |phones| {
        report(phones[0], 0);
        phones[0].heard_from(1, 1).len() >= pictures + 20
    });
    wait_until("a key frame is requested from its node", || {
        gateway.status().key_frames_to_node > asked
    });
    let is_asked = |phone: &Phone| {
        phone.other.iter().flat_map(|bytes| rtcp::packets(bytes)).any(
            |packet| matches!(packet, Ok(rtcp::RtcpPacket::Pli(pli)) if pli.media == phone.video.ssrc),
        )
    };
    talk(&mut [&mut ann], "the node requests it from the sender", |phones| is_asked(phones[0]));
    talk(&mut [&mut ann], "the cap is lifted", |phones| {
        report(phones[0], 0);
        caps(phones[0]).last().is_some_and(|cap| *cap >= 1_000_000)
    });
    assert_eq!(assert_continuous(&ann.heard_from(1, 0)), 0, "voice lost no packet");

    // Each shed packet is reported: no other video packet is missing, and the rest is one stream.
    let video = ann.heard_from(1, 1);
    let mut shed_reported = 0;
    talk(&mut [&mut ann], "all shed packets are reported", |_| {
        shed_reported = 0;
        gateway.happened(|event| {
            if let GatewayEvent::Shed { run, .. } = &event.event {
                shed_reported += u64::from(run.packets);
            }
            None::<()>
        });
        shed_reported == gateway.drops("shed")
    });
    assert_continuous(&video);
    let missing: u64 =
        video.windows(2).map(|pair| pair[1].mark.number - pair[0].mark.number - 1).sum();
    assert_eq!(missing, shed_reported);
    drop(gateway);
    assert!(node.kill().pli >= 1);
}

#[test]
fn client_without_loss_is_not_degraded() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = QUICK.into();
    let gateway = world.start();
    let mut ann = Phone::new(1);
    ann.sends_video = true;
    ann.set_target(udp_of(&gateway.open(offer("room", declared(&ann)))));
    talk(&mut [&mut ann], "she sees herself", |phones| {
        report(phones[0], 0);
        phones[0].heard_from(1, 1).len() >= 50
    });
    assert!(caps(&ann).is_empty());
    assert_eq!((rung(&gateway), gateway.drops("shed")), (0, 0));
}

/// The table of a shipped policy set that binds its degradation policy.
fn shipped(set: &str) -> &str {
    &set[set.find("\n[degradation]").unwrap()..]
}

#[test]
fn uplink_loss_of_a_voice_call_is_explained() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = shipped(include_str!("../../policies/call.toml")).into();
    let mut gateway = GatewayProcess::start(&world);
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    let id = ids(&mut gateway).remove(0);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].audio_from(1) >= 50);
    // 14 %.
    ann.lost_each = 7;
    let path = format!("/v1/sessions/{id}");
    talk(&mut [&mut ann], "the loss is attributed", |_| {
        let loss_ppm = gateway.read(&path)["impairment"]["loss_ppm"].as_u64();
        loss_ppm.is_some_and(|ppm| (120_000..=160_000).contains(&ppm))
    });
    let mut command = Command::new(evenkeel());
    command.args(["session", "explain", &id, "--api"]).arg(gateway.folder().join("admin.sock"));
    let named = format!("  impaired by the uplink of {id}: 1");
    let mut said = String::new();
    talk(&mut [&mut ann], "the loss is explained", |_| {
        said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        said.lines().any(|line| line.starts_with(&named))
    });
    let limits = "  degradation is limited: no cap, since no `feedback` of an offer has `remb` or `tmmbr`; there is no video to drop";
    assert!(said.lines().any(|line| line == "  rung 0"), "{said}");
    assert!(said.lines().any(|line| line == limits), "{said}");
}
