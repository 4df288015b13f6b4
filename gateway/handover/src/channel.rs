//! A stream socket between two processes, for frames of any size with descriptors.
//!
//! ```text
//! "evkl" | message length u32 | attachment length u64 | descriptors u32 | message | attachment
//! | one byte for each 253 descriptors, which come beside it (SCM_RIGHTS)
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

const MAGIC: [u8; 4] = *b"evkl";

const HEADER_LENGTH: usize = 20;

/// The kernel's limit of descriptors beside one message (SCM_MAX_FD).
const DESCRIPTORS_PER_MESSAGE: usize = 253;

/// Limits of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ReceiveLimits {
    message: u32,
    attachment: u64,
    descriptors: u32,
}

impl ReceiveLimits {
    /// From the new process: its messages are short texts. It may be any program.
    pub(super) const FROM_NEW: ReceiveLimits =
        ReceiveLimits { message: 1 << 20, attachment: 0, descriptors: 0 };
    /// From the old process: a KiB and two ports for each of a million sessions.
    pub(super) const FROM_OLD: ReceiveLimits =
        ReceiveLimits { message: 64 << 20, attachment: 4 << 30, descriptors: 2 << 20 };
}

#[derive(Debug)]
pub(super) struct ChannelFrame {
    pub(super) message: Vec<u8>,
    pub(super) attachment: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Channel(pub(super) UnixStream);

impl Channel {
    /// A channel, and the descriptor of its other end for a new process.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = net::UnixStream::pair()?;
        Ok((Channel::of(ours)?, theirs.into()))
    }

    pub(super) fn of(stream: net::UnixStream) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        Ok(Channel(UnixStream::from_std(stream)?))
    }

    /// Returns whether a frame or the end of the stream has arrived.
    pub(super) fn has_arrived(&self) -> bool {
        let mut byte = [0];
        recv(self.0.as_fd(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
    }

    pub(super) async fn send(
        &mut self,
        message: &[u8],
        attachment: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut header = Vec::with_capacity(HEADER_LENGTH + message.len());
        header.extend(MAGIC);
        header.extend(u32::try_from(message.len()).map_err(too_long)?.to_be_bytes());
        header.extend((attachment.len() as u64).to_be_bytes());
        header.extend(u32::try_from(descriptors.len()).map_err(too_long)?.to_be_bytes());
        header.extend(message);
        self.0.write_all(&header).await?;
        self.0.write_all(attachment).await?;
        for some in descriptors.chunks(DESCRIPTORS_PER_MESSAGE) {
            self.send_descriptors(some).await?;
        }
        Ok(())
    }

    async fn send_descriptors(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = || {
            let mut space =
                [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            sendmsg(self.0.as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Receives a frame; `None` at the end of the stream.
    pub(super) async fn receive(
        &mut self,
        limits: ReceiveLimits,
    ) -> io::Result<Option<ChannelFrame>> {
        let mut header = [0; HEADER_LENGTH];
        match self.0.read(&mut header).await? {
            0 => return Ok(None),
            read => _ = self.0.read_exact(&mut header[read..]).await?,
        }
        let (message, attachment, descriptors) = read_header(&header, limits)?;
        let message = self.read(message.into()).await?;
        let attachment = self.read(attachment).await?;
        let descriptors = self.receive_descriptors(descriptors as usize).await?;
        Ok(Some(ChannelFrame { message, attachment, descriptors }))
    }

    /// Returns once there is something to read: a frame, or the end of the stream.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // The socket may have been found readable before it was read.
        let peek = || {
            let mut byte = [0];
            recv(self.0.as_fd(), &mut byte, RecvFlags::PEEK)?;
            Ok(())
        };
        self.0.async_io(Interest::READABLE, peek).await
    }

    /// Reads bytes into a buffer that grows with them: the length is only announced.
    async fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.0).take(length).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    async fn receive_descriptors(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        while all.len() < count {
            let expected = (count - all.len()).min(DESCRIPTORS_PER_MESSAGE);
            let some = self.0.async_io(Interest::READABLE, || self.receive_some()).await?;
            if some.len() != expected {
                let (arrived, limit) = (some.len(), "`LimitNOFILE` may be too low");
                let found = format!("{arrived} of {expected} descriptors arrived: {limit}");
                return Err(io::Error::other(found));
            }
            all.extend(some);
        }
        Ok(all)
    }

    fn receive_some(&self) -> io::Result<Vec<OwnedFd>> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let received = recvmsg(self.0.as_fd(), &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        Ok(descriptors.flatten().collect())
    }
}

/// The announced lengths.
fn read_header(header: &[u8; HEADER_LENGTH], limits: ReceiveLimits) -> io::Result<(u32, u64, u32)> {
    let bad = |found: String| Err(io::Error::new(io::ErrorKind::InvalidData, found));
    let [m0, m1, m2, m3, l0, l1, l2, l3, a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return bad("found other bytes, expected a message of an evenkeel".to_owned());
    }
    let message = u32::from_be_bytes([l0, l1, l2, l3]);
    let attachment = u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let descriptors = u32::from_be_bytes([d0, d1, d2, d3]);
    let fits = message <= limits.message
        && attachment <= limits.attachment
        && descriptors <= limits.descriptors;
    if !fits {
        return bad(format!(
            "found a message of {message} bytes, {attachment} attached ones and {descriptors} descriptors, which is too long"
        ));
    }
    Ok((message, attachment, descriptors))
}

#[cfg(test)]
mod tests;
