//! Nodes that die, hang, starve, leak, lie and return.

use std::time::Duration;

use crate::fault::Fault::{
    CrashLoop, Drain, Kill, Leak, Move, NoDescriptors, Sleep, Starve, Vicious,
};
use crate::fault::Way::{Hushed, Loud, Silent};
use crate::fault::Whom::{Busiest, Region};
use crate::layout::{Kind, Layout};
use crate::limits::Limits;
use crate::node::Vice;
use crate::row::Row;

const LEAKY: Layout = Layout { kind: Kind::Vicious(Vice::Leaks), ..Layout::HOT };
const DROPS: Layout = Layout { kind: Kind::Vicious(Vice::Drops), ..Layout::HOT };
const LIES: Layout = Layout { kind: Kind::Vicious(Vice::Lies), ..Layout::HOT };
const AHEAD: Layout = Layout { kind: Kind::Vicious(Vice::JumpsAhead), ..Layout::HOT };
const FLOWS: Layout = Layout { kind: Kind::Vicious(Vice::DropsFlows), ..Layout::HOT };

const ATTENDED: Layout = Layout { agents: true, ..Layout::HOT };
const RTPENGINE: Layout = Layout { kind: Kind::Rtpengine, ..Layout::HOT };

const LOUD: Limits = Limits { no_freeze: true, ..Limits::gap(50.0, 150.0) };
const SILENT: Limits = Limits { no_freeze: true, ..Limits::gap(70.0, 170.0) };
/// Detection budgets: a death reported by the kernel or the agent, and one found by two silent witnesses.
const TOLD: Limits = LOUD.found(20.0);
const UNTOLD: Limits = SILENT.found(40.0);
const NOTHING_LOST: Limits =
    Limits { none_lost: true, no_freeze: true, both_carry: true, ..Limits::NONE };
const PLANNED: Limits = Limits { none_lost: true, none_condemned: true, ..LOUD };
/// Each room moves once.
const EMPTIED: Limits = Limits { moves_min: Some(1.0), moves_max: Some(1.0), ..PLANNED };
const ACROSS: Limits = Limits::gap(300.0, 1_000.0);
const UNTOUCHED: Limits =
    Limits { none_lost: true, none_condemned: true, no_freeze: true, ..Limits::NONE };
/// Silence of the only node is taken for a lost uplink for 3 s (`panic_for`).
const DOUBTED: Limits = Limits::gap(400.0, 600.0);
/// Sessions are opened first, at the pace of the accepting nodes.
const PACED: Limits = Limits::gap(1_000.0, 3_000.0);
const OFF_IN_2_S: Limits = Limits { left_within: Some(2_000.0), ..Limits::NONE };

pub(super) const ROWS: &[Row] = &[
    Row::new("node.kill.hot", Layout::HOT, Kill(Busiest, Loud), TOLD.predicted()).times(30),
    Row::new("node.kill.hot.silent", Layout::HOT, Kill(Busiest, Silent), UNTOLD).times(12),
    Row::new("node.kill.hitless", Layout::HITLESS, Kill(Busiest, Loud), NOTHING_LOST.found(20.0))
        .times(6),
    Row::new(
        "node.kill.hitless.silent",
        Layout::HITLESS,
        Kill(Busiest, Silent),
        NOTHING_LOST.found(40.0),
    )
    .times(6),
    Row::new("node.kill.active-active", Layout::ACTIVE, Kill(Busiest, Loud), TOLD.predicted())
        .times(6),
    Row::new("node.kill.active-active.silent", Layout::ACTIVE, Kill(Busiest, Silent), UNTOLD)
        .times(6),
    Row::new("node.kill.cold", Layout::COLD, Kill(Busiest, Loud), Limits::gap(3_000.0, 5_000.0))
        .watched(8),
    Row::new("node.kill.cold.silent", Layout::COLD, Kill(Busiest, Silent), DOUBTED).watched(8),
    Row::new("node.kill.regional", Layout::REGIONAL, Kill(Region("east"), Loud), PACED)
        .times(2)
        .watched(5),
    Row::new("node.kill.regional.silent", Layout::REGIONAL, Kill(Region("east"), Silent), PACED)
        .times(2)
        .watched(5),
    Row::new("node.kill.cross-region", Layout::ACROSS, Kill(Busiest, Loud), ACROSS).times(6),
    Row::new("node.kill.cross-region.silent", Layout::ACROSS, Kill(Busiest, Silent), ACROSS)
        .times(6),
    Row::new(
        "node.wake",
        Layout::HOT,
        Sleep(Busiest, Duration::from_secs(5)),
        Limits { no_old_owner: true, ..SILENT },
    )
    .times(3),
    Row::new("node.starved", Layout::HOT, Starve(Busiest, Duration::from_secs(5)), SILENT).times(2),
    Row::new("node.memory-ramp", LEAKY, Leak(Busiest, Duration::from_secs(10)), SILENT),
    Row::new(
        "node.out-of-descriptors",
        Layout::HOT,
        NoDescriptors(Busiest, Duration::from_secs(3)),
        UNTOUCHED,
    ),
    Row::new(
        "node.crash-loop",
        Layout::HOT,
        CrashLoop(Busiest, 5, Loud),
        Limits { moves_max: Some(1.0), ..LOUD },
    ),
    // A stopped process does not die again.
    Row::new(
        "node.crash-loop.silent",
        Layout::HOT,
        CrashLoop(Busiest, 5, Hushed),
        Limits { moves_max: Some(1.0), ..SILENT },
    ),
    Row::new("node.clock-jump", AHEAD, Vicious(Busiest, Duration::from_secs(3)), SILENT),
    Row::new("gray.drops", DROPS, Vicious(Busiest, Duration::from_secs(4)), OFF_IN_2_S),
    // Once: after a false alarm about a flow the next one needs a steady run eight times as long. At least three of the
    // 167 rooms on the node have such a flow, one of them perhaps the canary's.
    Row::new(
        "gray.flows",
        FLOWS,
        Vicious(Busiest, Duration::from_secs(4)),
        Limits { hit_min: Some(2), moves_min: Some(1.0), ..OFF_IN_2_S.gently() },
    ),
    Row::new(
        "gray.liar",
        LIES,
        Vicious(Busiest, Duration::from_secs(6)),
        Limits { moves_max: Some(0.0), ..UNTOUCHED },
    ),
    Row::new("agent.word", ATTENDED, Kill(Busiest, Hushed), TOLD).times(10),
    Row::new("rtpengine.kill", RTPENGINE, Kill(Busiest, Loud), LOUD).of(200).both_ways().times(4),
    Row::new("rtpengine.kill.silent", RTPENGINE, Kill(Busiest, Silent), SILENT)
        .of(200)
        .both_ways()
        .times(4),
    Row::new("drain", Layout::HOT, Drain(Busiest), EMPTIED).times(5).watched(6),
    Row::new("move", Layout::HOT, Move(100), PLANNED).times(5).watched(3),
];
