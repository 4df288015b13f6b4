//! Sessions and rooms new to a policy.

use crate::catalog::Catalog;
use crate::id::{RegionId, RoomId, SessionId};
use crate::labels::Labels;
use crate::registry::label;

/// A session that asks for admission, or is new to this policy.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// The session.
    pub session: SessionId,
    /// Its room.
    pub room: RoomId,
    /// Its scenario's name.
    pub scenario: &'a str,
    /// Its labels.
    pub labels: Labels<'a>,
    /// Names of regions, zones and nodes.
    pub catalog: &'a Catalog,
}

/// A room to be placed, or new to this policy.
#[derive(Clone, Copy, Debug)]
pub struct NewRoom<'a> {
    /// The room.
    pub room: RoomId,
    /// Its scenario's name.
    pub scenario: &'a str,
    /// Labels of its first session.
    pub labels: Labels<'a>,
    /// Names of regions, zones and nodes.
    pub catalog: &'a Catalog,
}

impl NewSession<'_> {
    /// The region of its `region` label, else the gateway's own.
    pub fn region(&self) -> Option<RegionId> {
        region(self.labels, self.catalog)
    }
}

impl NewRoom<'_> {
    /// The region of its `region` label, else the gateway's own.
    pub fn region(&self) -> Option<RegionId> {
        region(self.labels, self.catalog)
    }
}

fn region(labels: Labels<'_>, catalog: &Catalog) -> Option<RegionId> {
    let named = labels.value(label::REGION).and_then(|name| catalog.region(name));
    named.or(catalog.home())
}
