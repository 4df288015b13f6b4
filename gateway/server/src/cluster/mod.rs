//! Two gateways, of which one owns the addresses of the group.

pub mod address;
