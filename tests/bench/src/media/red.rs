//! A reader of redundant audio (RFC 2198) that shares no code with the gateway, so that it can judge the gateway.

/// The least redundant block header: a bit that tells of more, the payload type, offset and length.
const HEADER_LEN: usize = 4;

/// A block of a RED payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RedBlock<'a> {
    pub(super) payload_type: u8,
    /// By how much its timestamp is before that of the packet; 0 for the primary block.
    pub(super) before: u32,
    pub(super) content: &'a [u8],
}

/// Returns the blocks of a payload, oldest first, the primary one last; `None` if it is malformed.
pub(super) fn blocks(payload: &[u8]) -> Option<Vec<RedBlock<'_>>> {
    let mut headers = Vec::new();
    let mut at = 0;
    let primary = loop {
        let first = *payload.get(at)?;
        if first & 0x80 == 0 {
            at += 1;
            break first & 0x7f;
        }
        let &[_, a, b, c] = payload.get(at..at + HEADER_LEN)? else { return None };
        let fields = u32::from_be_bytes([0, a, b, c]);
        headers.push((first & 0x7f, fields >> 10, (fields & 0x3ff) as usize));
        at += HEADER_LEN;
    };
    let mut blocks = Vec::with_capacity(headers.len() + 1);
    for (payload_type, before, length) in headers {
        blocks.push(RedBlock { payload_type, before, content: payload.get(at..at + length)? });
        at += length;
    }
    blocks.push(RedBlock { payload_type: primary, before: 0, content: &payload[at..] });
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_oldest_first() {
        // RFC 2198, section 4, with timestamps of 48 kHz.
        let payload = [0x80 | 111, 0x1e, 0x00, 2, 0x80 | 111, 0x0f, 0x00, 1, 111, 1, 2, 3, 4, 5];
        let block = |before, content| RedBlock { payload_type: 111, before, content };
        let expected = [block(1_920, &[1, 2][..]), block(960, &[3]), block(0, &[4, 5])];
        assert_eq!(blocks(&payload).unwrap(), expected);
    }

    #[test]
    fn primary_block_may_be_alone() {
        let block = RedBlock { payload_type: 111, before: 0, content: &[7, 8] };
        assert_eq!(blocks(&[111, 7, 8]), Some(vec![block]));
    }

    #[test]
    fn truncated_payloads_are_malformed() {
        assert_eq!(blocks(&[]), None);
        assert_eq!(blocks(&[0x80 | 111, 0x1e, 0x00]), None);
        assert_eq!(blocks(&[0x80 | 111, 0x1e, 0x00, 3, 111, 1, 2]), None);
        assert_eq!(blocks(&[0x80 | 111, 0x1e, 0x00, 0]), None);
    }
}
