//! Tests the SDK from the view of plugin authors and of the gateway.

mod author;
mod contract;
mod views;
