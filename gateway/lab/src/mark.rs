//! The test header at the start of an RTP payload: sender, packet number, send time and node.

/// The first four bytes of every marked payload.
const MAGIC: [u8; 4] = *b"EKT1";

/// The test header. On the wire, big endian: `EKT1`, session, number, sent (ns), node, stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestHeader {
    /// The sender's session number.
    pub session: u64,
    /// The index of the packet in the session's stream, from 0.
    pub number: u64,
    /// Send time: nanoseconds since the Unix epoch on CLOCK_REALTIME.
    pub sent_ns: u64,
    /// The number of the node that reflected the packet; 0 in packets of clients.
    pub node: u32,
    /// 0 for voice, 1 for video.
    pub stream: u8,
}

impl TestHeader {
    /// Length on the wire in bytes.
    pub const LENGTH: usize = 33;

    /// Reads the test header at the start of a payload, if there is one.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<{ Self::LENGTH }>()?;
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let u64_at = |at: usize| Some(u64::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        let (session, number, sent_ns, node) = (u64_at(0)?, u64_at(8)?, u64_at(16)?, u32_at(24)?);
        (*magic == MAGIC).then_some(Self { session, number, sent_ns, node, stream: rest[28] })
    }

    /// Appends the test header to a payload.
    pub fn write(&self, payload: &mut Vec<u8>) {
        let start = payload.len();
        payload.resize(start + Self::LENGTH, 0);
        self.write_to(&mut payload[start..]);
    }

    /// Overwrites the start of a payload with the test header.
    ///
    /// # Panics
    /// The payload is shorter than a mark.
    pub fn write_to(&self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&MAGIC);
        payload[4..12].copy_from_slice(&self.session.to_be_bytes());
        payload[12..20].copy_from_slice(&self.number.to_be_bytes());
        payload[20..28].copy_from_slice(&self.sent_ns.to_be_bytes());
        payload[28..32].copy_from_slice(&self.node.to_be_bytes());
        payload[32] = self.stream;
    }

    /// Writes a node's number into the test header at the start of this payload. Returns false without a test header.
    pub(crate) fn stamp(payload: &mut [u8], node: u32) -> bool {
        if Self::read(payload).is_none() {
            return false;
        }
        payload[28..32].copy_from_slice(&node.to_be_bytes());
        true
    }
}

#[cfg(test)]
mod tests;
