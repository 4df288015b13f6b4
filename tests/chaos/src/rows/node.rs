//! Nodes that die, hang, starve, leak, lie and return.

use std::time::Duration;

use crate::fault::Fault::{
    CrashLoop, Drain, Kill, Leak, Misbehave, Move, NoDescriptors, Sleep, Starve,
};
use crate::fault::Target::{Busiest, Region};
use crate::fault::Way::{Hushed, Loud, Silent};
use crate::layout::{Kind, Layout};
use crate::limits::Checks;
use crate::node::Misbehaviour;
use crate::row::Row;

const LEAKY: Layout = Layout { kind: Kind::Misbehaving(Misbehaviour::Leaks), ..Layout::HOT };
const DROPS: Layout = Layout { kind: Kind::Misbehaving(Misbehaviour::Drops), ..Layout::HOT };
const LIES: Layout = Layout { kind: Kind::Misbehaving(Misbehaviour::Lies), ..Layout::HOT };
const AHEAD: Layout = Layout { kind: Kind::Misbehaving(Misbehaviour::JumpsAhead), ..Layout::HOT };
const FLOWS: Layout = Layout { kind: Kind::Misbehaving(Misbehaviour::DropsFlows), ..Layout::HOT };

const ATTENDED: Layout = Layout { agents: true, ..Layout::HOT };
const PLAIN: Layout = Layout { kind: Kind::Plain, ..Layout::HOT };
const WEBHOOK: Layout = Layout { kind: Kind::Webhook, ..Layout::HOT };
const RTPENGINE: Layout = Layout { kind: Kind::Rtpengine, ..Layout::HOT };
const RTPENGINE_REPLAY: Layout = Layout { kind: Kind::Rtpengine, ..Layout::REPLAY };
const WEBRTC_REPLAY: Layout = Layout { replay: true, ..Layout::HOSTS };

/// Packets of both nodes alternate.
const BOTH_CARRY: Checks = Checks { both_carry: true, ..Checks::ALL };

/// The comparison with the prediction comes within 6 s.
const COUNTED_AFTER: u64 = 7;
const COUNTED: Checks = Checks { counts_alike: true, ..Checks::ALL };

pub(super) const ROWS: &[Row] = &[
    Row::new("node.kill.hot", Layout::HOT, Kill(Busiest, Loud)).times(30),
    Row::new("node.kill.hot.silent", Layout::HOT, Kill(Busiest, Silent)).times(12),
    Row::new("node.kill.replay.voice", Layout::REPLAY, Kill(Busiest, Loud)).times(30),
    Row::new("node.kill.replay.video", Layout::REPLAY, Kill(Busiest, Loud))
        .of(40)
        .both_ways()
        .with_video()
        .times(12),
    Row::new("node.kill.replay.webrtc", WEBRTC_REPLAY, Kill(Busiest, Loud))
        .of(20)
        .both_ways()
        .webrtc()
        .times(20),
    Row::new("node.kill.replay.rtpengine", RTPENGINE_REPLAY, Kill(Busiest, Loud))
        .of(200)
        .both_ways()
        .times(4),
    Row::new("node.kill.counts", Layout::HOT, Kill(Busiest, Loud))
        .of(200)
        .both_ways()
        .checked(COUNTED)
        .times(3)
        .watched(COUNTED_AFTER),
    Row::new("node.kill.hitless", Layout::HITLESS, Kill(Busiest, Loud))
        .checked(BOTH_CARRY)
        .times(6),
    Row::new("node.kill.hitless.silent", Layout::HITLESS, Kill(Busiest, Silent))
        .checked(BOTH_CARRY)
        .times(6),
    Row::new("node.kill.active-active", Layout::ACTIVE, Kill(Busiest, Loud)).times(6),
    Row::new("node.kill.active-active.silent", Layout::ACTIVE, Kill(Busiest, Silent)).times(6),
    Row::new("node.kill.cold", Layout::COLD, Kill(Busiest, Loud)).watched(8),
    Row::new("node.kill.cold.silent", Layout::COLD, Kill(Busiest, Silent)).watched(8),
    Row::new("node.kill.regional", Layout::REGIONAL, Kill(Region("east"), Loud))
        .times(2)
        .watched(5),
    Row::new("node.kill.regional.silent", Layout::REGIONAL, Kill(Region("east"), Silent))
        .times(2)
        .watched(5),
    Row::new("node.kill.cross-region", Layout::ACROSS, Kill(Busiest, Loud)).times(6),
    Row::new("node.kill.cross-region.silent", Layout::ACROSS, Kill(Busiest, Silent)).times(6),
    Row::new("node.wake", Layout::HOT, Sleep(Busiest, Duration::from_secs(5)))
        .checked(Checks { no_old_owner: true, ..Checks::ALL })
        .times(3),
    Row::new("node.starved", Layout::HOT, Starve(Busiest, Duration::from_secs(5))).times(2),
    Row::new("node.memory-ramp", LEAKY, Leak(Busiest, Duration::from_secs(10))),
    Row::new(
        "node.out-of-descriptors",
        Layout::HOT,
        NoDescriptors(Busiest, Duration::from_secs(3)),
    ),
    Row::new("node.crash-loop", Layout::HOT, CrashLoop(Busiest, 5, Loud)),
    // A stopped process does not die again.
    Row::new("node.crash-loop.silent", Layout::HOT, CrashLoop(Busiest, 5, Hushed)),
    Row::new("node.clock-jump", AHEAD, Misbehave(Busiest, Duration::from_secs(3))),
    Row::new("gray.drops", DROPS, Misbehave(Busiest, Duration::from_secs(4))),
    // Once: after a false alarm about a flow the next one needs a steady run eight times as long.
    Row::new("gray.flows", FLOWS, Misbehave(Busiest, Duration::from_secs(4)))
        .checked(Checks::OVERLAP),
    Row::new("gray.liar", LIES, Misbehave(Busiest, Duration::from_secs(6))),
    Row::new("agent.word", ATTENDED, Kill(Busiest, Hushed)).times(10),
    Row::new("rtpengine.kill", RTPENGINE, Kill(Busiest, Loud)).of(200).both_ways().times(4),
    Row::new("rtpengine.kill.silent", RTPENGINE, Kill(Busiest, Silent))
        .of(200)
        .both_ways()
        .times(4),
    Row::new("rtpengine.kill.counts", RTPENGINE, Kill(Busiest, Loud))
        .of(200)
        .both_ways()
        .checked(COUNTED)
        .times(3)
        .watched(COUNTED_AFTER),
    Row::new("plain.kill.counts", PLAIN, Kill(Busiest, Loud))
        .of(200)
        .both_ways()
        .checked(COUNTED)
        .times(3)
        .watched(COUNTED_AFTER),
    Row::new("webhook.kill.counts", WEBHOOK, Kill(Busiest, Loud))
        .of(200)
        .both_ways()
        .checked(COUNTED)
        .times(3)
        .watched(COUNTED_AFTER),
    Row::new("drain", Layout::HOT, Drain(Busiest)).times(5).watched(6),
    Row::new("move", Layout::HOT, Move(100)).times(5).watched(3),
];
