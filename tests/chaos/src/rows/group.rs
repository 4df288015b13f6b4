//! The gateway that owns the address of a group.

use std::time::Duration;

use crate::fault::Fault::Owner;
use crate::fault::Loss::{HandedOver, Killed, Parted, Silent, Stopped, WithNode};
use crate::layout::{Kind, Layout};
use crate::row::Row;

const PORTS: Layout = Layout { port_legs: true, ..OTHER_PORTS };
/// Sessions get ports of the standby's host.
const OTHER_PORTS: Layout = Layout { kind: Kind::Rtpengine, ..Layout::GROUP };
const THREE: Layout = Layout { gateway_hosts: 3, ..Layout::GROUP };
/// No node has an agent: a witness decides, which may be in another region.
const WITNESSED: Layout = Layout { agents: false, witness: Some(Duration::ZERO), ..PORTS };
const WITNESSED_FAR: Layout = Layout { witness: Some(Duration::from_millis(20)), ..WITNESSED };
const BY_FAR_STORE: Layout = Layout { store_delay: Some(Duration::from_millis(20)), ..BY_STORE };
const BY_STORE: Layout = Layout { witness: None, store: true, store_votes: true, ..WITNESSED };
const FIVE_S: Duration = Duration::from_secs(5);

pub(super) const ROWS: &[Row] = &[
    Row::new("gateway.kill", Layout::GROUP, Owner(Killed)).both_ways().with_offers().times(30),
    Row::new("gateway.kill.silent", Layout::GROUP, Owner(Silent)).both_ways().times(30),
    Row::new("gateway.hand-over", Layout::GROUP, Owner(HandedOver)).of(400).both_ways().times(6),
    // Half of the faults hit each member.
    Row::new("gateway.zombie", Layout::GROUP, Owner(Stopped(FIVE_S))).both_ways().times(6),
    Row::new("gateway.kill.ports", PORTS, Owner(Killed)).of(200).both_ways().times(10),
    Row::new("gateway.kill.other-ports", OTHER_PORTS, Owner(Killed)).both_ways().times(6),
    // Calls of the other group do not notice it.
    Row::new("gateway.nplus1.kill", Layout::ONE_STANDBY_HOST, Owner(Killed)).both_ways().times(10),
    Row::new("gateway.witness.silent", WITNESSED, Owner(Silent)).of(200).both_ways().times(10),
    Row::new("gateway.witness.far", WITNESSED_FAR, Owner(Silent)).of(200).both_ways().times(10),
    // The store has the lowest priority.
    Row::new("gateway.witness.store", BY_FAR_STORE, Owner(Silent)).of(200).both_ways().times(10),
    Row::new("gateway.quic", Layout::GROUP, Owner(Killed))
        .of(200)
        .with_quic()
        .both_ways()
        .times(10),
    Row::new("gateway.with-node", Layout::GROUP, Owner(WithNode)).both_ways().times(30),
    Row::new("gateway.three.kill", THREE, Owner(Killed)).both_ways().times(10),
    Row::new("gateway.three.partition", THREE, Owner(Parted(FIVE_S))).both_ways().times(6),
    Row::new("gateway.partition", Layout::GROUP, Owner(Parted(FIVE_S))).both_ways().times(6),
    // Leases come from the store while the gateways do not hear each other.
    Row::new("gateway.partition.store", BY_STORE, Owner(Parted(FIVE_S)))
        .of(200)
        .both_ways()
        .times(6),
];
