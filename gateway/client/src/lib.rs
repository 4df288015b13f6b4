//! Client of a gateway's admin API: JSON over HTTP/1.1 and server-sent events, by Unix socket or TCP.

#![deny(missing_docs)]

mod client;
mod rising;

pub use client::{
    ApiCall, ApiClient, ApiEndpoint, ApiResponse, ClientError, Download, Events, ServerEvent,
    escape,
};
pub use rising::Rising;
