//! The catalog of a plugin.

use evenkeel_model::{
    CatalogEntry, ClientLabel, CoreSettings, EntryKind, NodeId, NodeSettings, RegionId,
};

/// The catalog of the regions, zones and nodes in these settings.
pub fn catalog_of(core: &CoreSettings) -> Vec<CatalogEntry> {
    let regions = core.regions.iter().map(|name| &**name);
    let zones = core.zones.iter().map(|zone| (zone.region, &*zone.name));
    catalog(core.home, regions, zones, (0..).map(NodeId).zip(&core.nodes))
}

/// The catalog, which maps the numbers in questions to names. Lists regions and zones in
/// the order of their numbers; the parent of a zone is its region, that of a node its zone. A node has its carrier as label.
pub fn catalog<'a>(
    home: RegionId,
    regions: impl Iterator<Item = &'a str> + Clone,
    zones: impl Iterator<Item = (RegionId, &'a str)>,
    nodes: impl Iterator<Item = (NodeId, &'a NodeSettings)>,
) -> Vec<CatalogEntry> {
    let entry = |kind, id: u32, parent: u32, name: &str| CatalogEntry {
        kind,
        id: u64::from(id),
        parent: u64::from(parent),
        name: name.into(),
        labels: Vec::new(),
    };
    let own = regions.clone().nth(home.0 as usize).unwrap_or_default();
    let own = entry(EntryKind::Home, 0, home.0, own);
    let regions = (0..).zip(regions).map(|(id, name)| entry(EntryKind::Region, id, 0, name));
    let zones =
        (0..).zip(zones).map(|(id, (region, name))| entry(EntryKind::Zone, id, region.0, name));
    let nodes = nodes.map(|(id, node)| {
        let carrier = node.carrier.iter();
        let label = carrier.map(|name| (ClientLabel::Carrier.name().into(), (**name).into()));
        let entry = entry(EntryKind::Node, id.0, node.zone.0, &node.name);
        CatalogEntry { labels: label.collect(), ..entry }
    });
    regions.chain(zones).chain(nodes).chain([own]).collect()
}
