//! The gateway that owns the address of a group.

use std::time::Duration;

use crate::fault::Fault::Owner;
use crate::fault::Loss::{Killed, Parted, Silent, Stopped, WithNode};
use crate::layout::{Kind, Layout};
use crate::limits::Limits;
use crate::row::Row;

const PORTS: Layout = Layout { port_legs: true, ..OTHER_PORTS };
/// Sessions get ports of the standby's host.
const OTHER_PORTS: Layout = Layout { kind: Kind::Rtpengine, ..Layout::GROUP };
const THREE: Layout = Layout { edges: 3, ..Layout::GROUP };
/// No node has an agent: a witness decides, which may be in another region.
const WITNESSED: Layout = Layout { agents: false, witness: Some(Duration::ZERO), ..PORTS };
const WITNESSED_FAR: Layout = Layout { witness: Some(Duration::from_millis(20)), ..WITNESSED };
const BY_STORE: Layout = Layout { witness: None, store: true, store_votes: true, ..WITNESSED };
const FAR: Limits = Limits { none_condemned: true, ..Limits::gap(300.0, 400.0) };
const FIVE_S: Duration = Duration::from_secs(5);
const LOUD: Limits = Limits { none_condemned: true, ..Limits::gap(60.0, 200.0) };
const SILENT: Limits = Limits { none_condemned: true, ..Limits::gap(80.0, 250.0) };
/// Nodes are told of each session.
const TOLD: Limits = Limits { none_condemned: true, ..Limits::gap(250.0, 500.0) };
/// Clients connect again.
const BY_QUIC: Limits = Limits { gap_p99: Some(150.0), ..Limits::NONE };
const TOGETHER: Limits = Limits { gap_p99: Some(150.0), ..Limits::NONE };
const UNTOUCHED: Limits = Limits {
    none_lost: true,
    none_condemned: true,
    no_freeze: true,
    moves_max: Some(0.0),
    ..Limits::NONE
};

pub(super) const ROWS: &[Row] = &[
    Row::new("gateway.kill", Layout::GROUP, Owner(Killed), LOUD)
        .both_ways()
        .with_offers()
        .times(30),
    Row::new("gateway.kill.silent", Layout::GROUP, Owner(Silent), SILENT).both_ways().times(30),
    // Half of the faults hit each member.
    Row::new("gateway.zombie", Layout::GROUP, Owner(Stopped(FIVE_S)), SILENT).both_ways().times(6),
    Row::new("gateway.kill.ports", PORTS, Owner(Killed), LOUD).of(200).both_ways().times(10),
    Row::new("gateway.kill.other-ports", OTHER_PORTS, Owner(Killed), TOLD)
        .of(200)
        .both_ways()
        .times(6),
    Row::new("gateway.witness.silent", WITNESSED, Owner(Silent), SILENT)
        .of(200)
        .both_ways()
        .times(10),
    Row::new("gateway.witness.far", WITNESSED_FAR, Owner(Silent), FAR)
        .of(200)
        .both_ways()
        .times(10),
    // The store has the lowest priority.
    Row::new("gateway.witness.store", BY_STORE, Owner(Silent), FAR).of(200).both_ways().times(10),
    Row::new("gateway.quic", Layout::GROUP, Owner(Killed), BY_QUIC)
        .of(200)
        .with_quic()
        .both_ways()
        .times(10),
    Row::new("gateway.with-node", Layout::GROUP, Owner(WithNode), TOGETHER).both_ways().times(30),
    Row::new("gateway.three.kill", THREE, Owner(Killed), LOUD).both_ways().times(10),
    Row::new("gateway.three.partition", THREE, Owner(Parted(FIVE_S)), UNTOUCHED)
        .both_ways()
        .times(6),
    Row::new("gateway.partition", Layout::GROUP, Owner(Parted(FIVE_S)), UNTOUCHED)
        .both_ways()
        .times(6),
    // Leases come from the store while the gateways do not hear each other.
    Row::new("gateway.partition.store", BY_STORE, Owner(Parted(FIVE_S)), FAR)
        .of(200)
        .both_ways()
        .times(6),
];
