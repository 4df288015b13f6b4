//! Sessions and rooms new to a policy.

use crate::catalog::Catalog;
use crate::id::{RegionId, RoomId, SessionId};
use crate::labels::Labels;
use crate::registry::label;

/// A session that asks for admission, or is new to this policy.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// The session's number.
    pub session: SessionId,
    /// The session's room.
    pub room: RoomId,
    /// Name of the session's scenario.
    pub scenario: &'a str,
    /// The session's labels.
    pub labels: Labels<'a>,
    /// Names of regions, zones and nodes.
    pub catalog: &'a Catalog,
}

/// A room to be placed, or new to this policy.
#[derive(Clone, Copy, Debug)]
pub struct NewRoom<'a> {
    /// The room's number.
    pub room: RoomId,
    /// Name of the room's scenario.
    pub scenario: &'a str,
    /// Labels of the room's first session.
    pub labels: Labels<'a>,
    /// Names of regions, zones and nodes.
    pub catalog: &'a Catalog,
}

impl NewSession<'_> {
    /// Returns the region of the `region` label, or the gateway's own region without such a label.
    pub fn region(&self) -> Option<RegionId> {
        region(self.labels, self.catalog)
    }
}

impl NewRoom<'_> {
    /// Returns the region of the `region` label, or the gateway's own region without such a label.
    pub fn region(&self) -> Option<RegionId> {
        region(self.labels, self.catalog)
    }
}

fn region(labels: Labels<'_>, catalog: &Catalog) -> Option<RegionId> {
    let named = labels.value(label::REGION).and_then(|name| catalog.region(name));
    named.or(catalog.home())
}
