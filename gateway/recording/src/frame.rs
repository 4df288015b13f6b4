//! Frames: the compressed, checksummed pieces of a recording.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// First bytes of every recording. The first byte is not ASCII, and the line ends reveal a transfer as text.
pub(crate) const MAGIC: [u8; 8] = *b"\x89EKR\r\n\x1a\n";

/// The written format. Older formats can be read.
pub const FORMAT: u16 = 1;

/// Limit of an uncompressed frame, which bounds the memory of readers. A question about 4,096 sessions with typical
/// states takes 1 MB.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Kind, compressed length, uncompressed length, checksum.
const HEAD_BYTES: usize = 1 + 4 + 4 + 4;

/// Fastest compression, because the gateway compresses during operation.
const LEVEL: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// First frame, with the origin of the recording.
    Header = 1,
    Records = 2,
    /// Empty frame that marks a complete recording.
    End = 3,
}

impl FrameKind {
    fn of(number: u8) -> Option<FrameKind> {
        [FrameKind::Header, FrameKind::Records, FrameKind::End]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// Encodes a frame. `payload` is at most [`PAYLOAD_BYTES_MAX`] long.
pub(crate) fn framed(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let packed = compress_to_vec(payload, LEVEL);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + packed.len());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = checksum(&bytes, &packed);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&packed);
    bytes
}

fn checksum(head: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(packed);
    hasher.finalize()
}

/// Reason why a frame cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameError {
    CutOff,
    /// The checksum does not match.
    Corrupted,
    /// The declared length exceeds the limit.
    TooLarge,
    /// The checksum matches, but the content is not a frame.
    Invalid,
}

/// Decodes the next frame. Returns its kind and payload, and the bytes after it.
pub(crate) fn read(bytes: &[u8]) -> Result<(FrameKind, Vec<u8>, &[u8]), FrameError> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(FrameError::CutOff)?;
    let number = |at: usize| {
        let four = head[at..at + 4].try_into().expect("four bytes of thirteen");
        u32::from_le_bytes(four)
    };
    let (packed, unpacked) = (number(1) as usize, number(5) as usize);
    // Compression makes incompressible data slightly longer.
    if unpacked > PAYLOAD_BYTES_MAX || packed > PAYLOAD_BYTES_MAX + PAYLOAD_BYTES_MAX / 8 {
        return Err(FrameError::TooLarge);
    }
    let (packed, rest) = rest.split_at_checked(packed).ok_or(FrameError::CutOff)?;
    if checksum(&head[..9], packed) != number(9) {
        return Err(FrameError::Corrupted);
    }
    let kind = FrameKind::of(head[0]).ok_or(FrameError::Invalid)?;
    let payload =
        decompress_to_vec_with_limit(packed, unpacked).map_err(|_| FrameError::Invalid)?;
    if payload.len() != unpacked {
        return Err(FrameError::Invalid);
    }
    Ok((kind, payload, rest))
}
