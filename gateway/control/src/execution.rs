//! Executes operators' operations on the listed nodes, and on their zones and regions.

use std::time::Instant;

use evenkeel_config::GatewayConfig;
use evenkeel_core::{Gateway, Impossible};
use evenkeel_model::{FailureDomain, Zone, ZoneId};

use crate::nodes::{NodeResources, region_named};
use crate::operations::{BreakerTarget, Operation, OperationTarget};

impl NodeResources {
    /// Executes the operations of an earlier process on nodes, zones and regions that are still configured, and continues the
    /// nodes that it started.
    pub(crate) fn repeat_operations(
        &mut self,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) {
        let mut operations = std::mem::take(&mut self.operations);
        operations.retain(|operation| {
            let executed = self.operate(operation.clone(), settings, gateway, now).is_ok();
            if executed {
                tracing::info!(?operation, "operator's decision continues");
            }
            executed
        });
        self.operations = operations;
        for node in self.operations.started_nodes().iter().filter_map(|name| self.node_named(name))
        {
            gateway.change_nodes(now, |nodes| nodes.handle_started(node));
        }
    }

    /// Keeps the names of the nodes that the gateway has started for the next process.
    pub(crate) fn keep_started(&mut self, gateway: &Gateway) {
        let started = gateway.node_table().iter().filter(|node| node.is_started());
        let names = started.map(|node| self.node_name(node.id)).collect();
        self.operations.keep_started_nodes(names);
    }

    pub(crate) fn operate(
        &self,
        operation: Operation,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = |name: &str| self.node_named(name).ok_or(Impossible::NoSuchNode);
        match operation {
            Operation::Drain { place: OperationTarget::Node(name), draining, within } => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_drain(node, draining, within, now))
            }
            Operation::Drain { place: OperationTarget::Region(name), draining, within } => {
                let region = region_named(settings, &name)?;
                let domain = FailureDomain::Region(region);
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_domain(domain, draining, within, now)
                })
            }
            Operation::Drain { place: OperationTarget::Zone(name), draining, within } => {
                let domain = FailureDomain::Zone(self.zone_named(&name, settings, gateway)?);
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_domain(domain, draining, within, now)
                })
            }
            Operation::EjectZone(name) => {
                let zone = self.zone_named(&name, settings, gateway)?;
                gateway.change_nodes(now, |nodes| nodes.handle_eject_zone(zone, now))
            }
            Operation::ReturnZone(name) => {
                let zone = self.zone_named(&name, settings, gateway)?;
                gateway.change_nodes(now, |nodes| nodes.handle_return_zone(zone))
            }
            Operation::Eject(name) => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_eject(node, now))
            }
            Operation::Return(name) => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_return(node))
            }
            Operation::Failback(name, failback) => {
                let region = name.map(|name| region_named(settings, &name)).transpose()?;
                gateway.handle_failback(region, failback, now)
            }
            Operation::Breaker(BreakerTarget::Region(name), mode) => {
                let region = region_named(settings, &name)?;
                gateway.hold_breaker(FailureDomain::Region(region), mode, now)
            }
            Operation::Breaker(BreakerTarget::Zone(name), mode) => {
                let zone = self.zone_named(&name, settings, gateway)?;
                gateway.hold_breaker(FailureDomain::Zone(zone), mode, now)
            }
            Operation::Breaker(BreakerTarget::Clients(group), mode) => {
                gateway.hold_client_breaker(&group, mode, now)
            }
            // The log of operations tells the server.
            Operation::LogFilter(_) => Ok(()),
        }
    }

    /// The operations that have the same effect at the next process. An operation on a zone names its region, and the ejection
    /// of a zone is that of each node, which may return alone.
    pub(crate) fn lasting(
        &self,
        operation: Operation,
        settings: &GatewayConfig,
        gateway: &Gateway,
    ) -> Vec<Operation> {
        let found = |name: &str| self.zone_named(name, settings, gateway).ok();
        let of_nodes = |name: &str, of_node: fn(Box<str>) -> Operation| {
            let zone = found(name).map(FailureDomain::Zone).into_iter();
            let nodes = zone.flat_map(|zone| gateway.node_table().in_domain(zone));
            nodes.map(|node| of_node(self.node_name(node.id))).collect()
        };
        let full = |name: Box<str>| match found(&name) {
            None => name,
            Some(id) => {
                let zone = &gateway.node_table().zones()[id.0 as usize];
                let region = &settings.regions[zone.region.0 as usize];
                format!("{region}/{}", zone.name).into()
            }
        };
        match operation {
            Operation::EjectZone(name) => of_nodes(&name, Operation::Eject),
            Operation::ReturnZone(name) => of_nodes(&name, Operation::Return),
            Operation::Drain { place: OperationTarget::Zone(name), draining, within } => {
                vec![Operation::Drain {
                    place: OperationTarget::Zone(full(name)),
                    draining,
                    within,
                }]
            }
            Operation::Breaker(BreakerTarget::Zone(name), mode) => {
                vec![Operation::Breaker(BreakerTarget::Zone(full(name)), mode)]
            }
            other => vec![other],
        }
    }

    fn zone_named(
        &self,
        name: &str,
        settings: &GatewayConfig,
        gateway: &Gateway,
    ) -> Result<ZoneId, Impossible> {
        let (region, zone) = match name.split_once('/') {
            Some((region, zone)) => (Some(region_named(settings, region)?), zone),
            None => (None, name),
        };
        let table = gateway.node_table();
        let zones = (0..).map(ZoneId).zip(table.zones());
        let is_it = |(id, known): &(ZoneId, &Zone)| {
            *known.name == *zone
                && region.is_none_or(|region| region == known.region)
                && table.in_domain(FailureDomain::Zone(*id)).next().is_some()
        };
        let mut found = zones.filter(is_it).map(|(id, _)| id);
        found.next().filter(|_| found.next().is_none()).ok_or(Impossible::NoSuchZone)
    }
}
