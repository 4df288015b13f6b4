//! Two gateways, of which one owns the addresses of the group.

pub mod address;
pub mod beats;
mod keys;
pub mod link;
pub mod refusals;
