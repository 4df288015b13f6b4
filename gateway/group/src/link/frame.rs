//! Frames: a length, a kind and a body.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::hello::Hello;

/// Longest frame: the records of a turn of control that moves every session.
pub(super) const FRAME_MAX: usize = 32 << 20;

/// Longest first frame: 1,024 nodes and their agents with the longest names, and some scenarios.
const HELLO_MAX: usize = 1 << 20;

/// Bytes that are read or written at once.
const CHUNK: usize = 64 << 10;

/// A connection on which nothing comes, or goes, for this long is given up.
pub(super) const QUIET: Duration = Duration::from_secs(2);

const IDLE: u8 = 0;
const HELLO: u8 = 1;
const BATCH: u8 = 2;
const ACKNOWLEDGED: u8 = 3;
const HAND_OVER: u8 = 4;
const ANNOUNCE: u8 = 5;
const ANNOUNCED: u8 = 6;

const HEAD_LEN: usize = 5;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkFrame {
    /// Changed records.
    Batch(Vec<u8>),
    /// The number of the last batch that the standby holds.
    Acknowledged(u64),
    /// The standby asks for the ownership, for an operator.
    HandOver,
    /// The owner is about to hand over: the standby adds the group's addresses and announces them.
    Announce,
    /// The standby has announced the addresses. Packets wait there until it owns them.
    Announced,
}

/// A frame as it is read.
pub(super) enum FrameRead {
    Idle,
    Hello(Box<Hello>),
    Frame(LinkFrame),
}

impl LinkFrame {
    /// `None` if it is too long.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            LinkFrame::Batch(batch) => frame(BATCH, batch),
            LinkFrame::Acknowledged(number) => frame(ACKNOWLEDGED, &number.to_be_bytes()),
            LinkFrame::HandOver => frame(HAND_OVER, &[]),
            LinkFrame::Announce => frame(ANNOUNCE, &[]),
            LinkFrame::Announced => frame(ANNOUNCED, &[]),
        }
    }
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = rmp_serde::to_vec_named(self).expect("a vector takes all bytes");
        frame(HELLO, &body).expect("at most 1,024 nodes")
    }
}

pub(super) fn idle() -> Vec<u8> {
    vec![0, 0, 0, 0, IDLE]
}

fn frame(kind: u8, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_MAX)?;
    let mut frame = Vec::with_capacity(HEAD_LEN + body.len());
    frame.extend(length.to_be_bytes());
    frame.push(kind);
    frame.extend(body);
    Some(frame)
}

/// Reads the next frame.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<FrameRead> {
    let (kind, body) = read_up_to(from, FRAME_MAX).await?;
    let malformed = || io::Error::other(format!("a frame of kind {kind} that cannot be read"));
    Ok(match kind {
        IDLE if body.is_empty() => FrameRead::Idle,
        HELLO => FrameRead::Hello(Box::new(rmp_serde::from_slice(&body).map_err(|_| malformed())?)),
        BATCH => FrameRead::Frame(LinkFrame::Batch(body)),
        ACKNOWLEDGED => {
            let number = <[u8; 8]>::try_from(&body[..]).map_err(|_| malformed())?;
            FrameRead::Frame(LinkFrame::Acknowledged(u64::from_be_bytes(number)))
        }
        HAND_OVER if body.is_empty() => FrameRead::Frame(LinkFrame::HandOver),
        ANNOUNCE if body.is_empty() => FrameRead::Frame(LinkFrame::Announce),
        ANNOUNCED if body.is_empty() => FrameRead::Frame(LinkFrame::Announced),
        _ => return Err(malformed()),
    })
}

/// Reads the first frame.
pub(super) async fn read_hello(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    let (kind, body) = read_up_to(from, HELLO_MAX).await?;
    let hello = (kind == HELLO).then(|| rmp_serde::from_slice(&body).ok()).flatten();
    hello.ok_or_else(|| io::Error::other("the first frame is no hello"))
}

async fn read_up_to(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<(u8, Vec<u8>)> {
    let head = read_bytes(from, HEAD_LEN).await?;
    let [a, b, c, d, kind] = head[..] else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > most {
        return Err(io::Error::other(format!("a frame of {length} bytes, at most {most}")));
    }
    Ok((kind, read_bytes(from, length).await?))
}

/// Memory grows with the bytes that come, whatever length was announced.
async fn read_bytes(from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let (start, part) = (bytes.len(), CHUNK.min(length - bytes.len()));
        bytes.resize(start + part, 0);
        let read = in_time(from.read(&mut bytes[start..])).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(start + read);
    }
    Ok(bytes)
}

pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    for part in frame.chunks(CHUNK) {
        in_time(to.write_all(part)).await?;
    }
    in_time(to.flush()).await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no progress within {QUIET:?}"));
    tokio::time::timeout(QUIET, work).await.unwrap_or_else(|_| Err(late()))
}
