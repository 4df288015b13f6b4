//! The SDK as plugin authors and the gateway use it.

mod author;
mod contract;
mod views;
