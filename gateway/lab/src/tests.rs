//! Servers that the tests of several modules use.

pub(crate) mod quic_server;
pub(crate) mod small_gateway;
