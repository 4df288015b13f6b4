//! How a recording begins and ends.

use crate::frame::{FORMAT, Kind, MAGIC, framed};
use crate::wire::{In, Malformed, malformed, put, put_bytes};

/// Where a recording is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The gateway's version: `0.1.0`.
    pub gateway: Box<str>,
    /// The contract that it spoke with plugins: `0.1.0`.
    pub contract: Box<str>,
    /// When gateway time began, microseconds since 1970 (UTC): what is at `now_us` happened so much later.
    pub started_us: u64,
    /// The gateway's region.
    pub region: Box<str>,
    /// Whether addresses are in it, as was asked for.
    pub addresses: bool,
}

/// The bytes that a recording begins with.
pub fn head(header: &Header) -> Vec<u8> {
    let mut payload = Vec::new();
    put_bytes(&mut payload, header.gateway.as_bytes());
    put_bytes(&mut payload, header.contract.as_bytes());
    put(&mut payload, header.started_us);
    put_bytes(&mut payload, header.region.as_bytes());
    payload.push(u8::from(header.addresses));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend(framed(Kind::Header, &payload));
    bytes
}

/// The bytes that a recording ends with, where nothing cut it off.
pub fn tail() -> Vec<u8> {
    framed(Kind::End, &[])
}

impl Header {
    pub(crate) fn read(payload: &[u8]) -> Result<Header, Malformed> {
        let mut read = In::new(payload);
        let header = Header {
            gateway: read.text("header")?.into(),
            contract: read.text("header")?.into(),
            started_us: read.number("header")?,
            region: read.text("header")?.into(),
            addresses: match read.byte("header")? {
                0 => false,
                1 => true,
                other => return Err(malformed("header", format!("{other} for yes or no"))),
            },
        };
        if read.is_empty() { Ok(header) } else { Err(malformed("header", "more than a header")) }
    }
}
