//! First and last frame of a recording.

use crate::frame::{FORMAT, FrameKind, MAGIC, framed};
use crate::wire::{FrameInput, InvalidFrame, malformed, put, put_bytes};

/// Origin of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingHeader {
    /// Version of the gateway: `0.1.0`.
    pub gateway: Box<str>,
    /// Version of the plugin contract: `0.1.0`.
    pub contract: Box<str>,
    /// Unix time at which gateway time (`now_us`) was 0, microseconds.
    pub started_us: u64,
    /// The gateway's region.
    pub region: Box<str>,
    /// True if addresses were recorded, on request.
    pub addresses: bool,
}

/// Encodes the first bytes of a recording.
pub fn head(header: &RecordingHeader) -> Vec<u8> {
    let mut payload = Vec::new();
    put_bytes(&mut payload, header.gateway.as_bytes());
    put_bytes(&mut payload, header.contract.as_bytes());
    put(&mut payload, header.started_us);
    put_bytes(&mut payload, header.region.as_bytes());
    payload.push(u8::from(header.addresses));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend(framed(FrameKind::Header, &payload));
    bytes
}

/// Encodes the last bytes of a complete recording.
pub fn tail() -> Vec<u8> {
    framed(FrameKind::End, &[])
}

impl RecordingHeader {
    pub(crate) fn read(payload: &[u8]) -> Result<RecordingHeader, InvalidFrame> {
        let mut read = FrameInput::new(payload);
        let header = RecordingHeader {
            gateway: read.text("header")?.into(),
            contract: read.text("header")?.into(),
            started_us: read.number("header")?,
            region: read.text("header")?.into(),
            addresses: match read.byte("header")? {
                0 => false,
                1 => true,
                other => return Err(malformed("header", format!("{other} is not a boolean"))),
            },
        };
        if read.is_empty() {
            Ok(header)
        } else {
            Err(malformed("header", "bytes after the header"))
        }
    }
}
