//! Frames: pieces of a recording, each packed and with a checksum.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// What every recording begins with. The first byte is no text, and the line ends show what an editor or a transfer as
/// text did to it.
pub const MAGIC: [u8; 8] = *b"\x89EKR\r\n\x1a\n";

/// The format that this crate writes. It reads this one and all before.
pub const FORMAT: u16 = 1;

/// Bytes of a frame once it is unpacked: a question about 4,096 sessions with what plugins usually keep of them is one
/// megabyte, and nobody has to hold more than this to read a recording.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Kind, length packed, length unpacked, checksum.
const HEAD_BYTES: usize = 1 + 4 + 4 + 4;

/// How hard is packed: the fastest that there is, since it happens while the gateway works.
const LEVEL: u8 = 1;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Where the recording is from; the first one.
    Header = 1,
    /// Records.
    Records = 2,
    /// Nothing: the recording is whole.
    End = 3,
}

impl Kind {
    fn of(number: u8) -> Option<Kind> {
        [Kind::Header, Kind::Records, Kind::End].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A frame as it stands in the file. `payload` is no longer than [`PAYLOAD_BYTES_MAX`].
pub(crate) fn framed(kind: Kind, payload: &[u8]) -> Vec<u8> {
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

/// Why a frame cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    /// The file ends within it.
    CutOff,
    /// Its bytes are not those that were written.
    Corrupted,
    /// It says that it is larger than any is.
    TooLarge,
    /// Its bytes are as they were written, and are no frame.
    Unpackable,
}

/// The next frame unpacked, and what follows it.
pub(crate) fn read(bytes: &[u8]) -> Result<(Kind, Vec<u8>, &[u8]), Broken> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(Broken::CutOff)?;
    let number = |at: usize| {
        let four = head[at..at + 4].try_into().expect("four bytes of thirteen");
        u32::from_le_bytes(four)
    };
    let (packed, unpacked) = (number(1) as usize, number(5) as usize);
    // What cannot be packed takes a little more than it is.
    if unpacked > PAYLOAD_BYTES_MAX || packed > PAYLOAD_BYTES_MAX + PAYLOAD_BYTES_MAX / 8 {
        return Err(Broken::TooLarge);
    }
    let (packed, rest) = rest.split_at_checked(packed).ok_or(Broken::CutOff)?;
    if checksum(&head[..9], packed) != number(9) {
        return Err(Broken::Corrupted);
    }
    let kind = Kind::of(head[0]).ok_or(Broken::Unpackable)?;
    let payload = decompress_to_vec_with_limit(packed, unpacked).map_err(|_| Broken::Unpackable)?;
    if payload.len() != unpacked {
        return Err(Broken::Unpackable);
    }
    Ok((kind, payload, rest))
}
