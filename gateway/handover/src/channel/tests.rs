use std::io::{Read, Write};
use std::time::Duration;

use super::*;

fn channels() -> (Channel, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    (ours, Channel::of(theirs.into()).unwrap())
}

fn is_bad(received: io::Result<Option<ChannelFrame>>) -> bool {
    received.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
}

#[tokio::test]
async fn long_frame_with_descriptors_arrives() {
    let (mut old, mut new) = channels();
    let pipes: Vec<_> = (0..300).map(|_| io::pipe().unwrap()).collect();
    let writers: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
    let attachment: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
    let sending = async {
        old.send(b"state", &attachment, &writers).await.unwrap();
        old.send(b"go", b"", &[]).await.unwrap();
    };
    let receiving = async {
        let state = new.receive(ReceiveLimits::FROM_OLD).await.unwrap().unwrap();
        let go = new.receive(ReceiveLimits::FROM_OLD).await.unwrap().unwrap();
        (state, go)
    };
    let ((), (state, go)) = tokio::join!(sending, receiving);
    assert_eq!((&state.message[..], state.attachment == attachment), (&b"state"[..], true));
    assert_eq!((&go.message[..], go.descriptors.len()), (&b"go"[..], 0));
    assert_eq!(state.descriptors.len(), 300);
    for ((mut reader, _), writer) in pipes.into_iter().zip(state.descriptors) {
        std::fs::File::from(writer).write_all(b"x").unwrap();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
    }
}

#[tokio::test]
async fn closed_channel_ends_the_stream() {
    let (old, mut new) = channels();
    drop(old);
    assert!(new.receive(ReceiveLimits::FROM_OLD).await.unwrap().is_none());
    let (mut old, mut new) = channels();
    old.0.write_all(&MAGIC).await.unwrap();
    drop(old);
    let error = new.receive(ReceiveLimits::FROM_OLD).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn channel_is_readable_once_something_comes() {
    let (mut old, mut new) = channels();
    old.send(b"hello", b"", &[]).await.unwrap();
    new.receive(ReceiveLimits::FROM_OLD).await.unwrap().unwrap();
    let readable = tokio::time::timeout(Duration::from_millis(50), new.readable()).await;
    assert!(readable.is_err(), "what was read is not there any more");
    drop(old);
    new.readable().await.unwrap();
}

#[tokio::test]
async fn frame_of_another_program_is_refused() {
    let (mut old, mut new) = channels();
    old.0.write_all(b"Usage: another-program [OPTIONS]\n").await.unwrap();
    assert!(is_bad(new.receive(ReceiveLimits::FROM_NEW).await));
}

#[tokio::test]
async fn announced_length_is_limited() {
    for (message, attachment, descriptors) in [(1 << 21, 0, 0), (9, 1, 0), (9, 0, 1)] {
        let (mut old, mut new) = channels();
        let mut header = MAGIC.to_vec();
        header.extend(u32::to_be_bytes(message));
        header.extend(u64::to_be_bytes(attachment));
        header.extend(u32::to_be_bytes(descriptors));
        old.0.write_all(&header).await.unwrap();
        let received =
            tokio::time::timeout(Duration::from_secs(20), new.receive(ReceiveLimits::FROM_NEW));
        assert!(is_bad(received.await.unwrap()));
    }
}
