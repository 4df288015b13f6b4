use super::*;

#[test]
fn low_descriptor_is_not_reserved() {
    let (low, _) = io::pipe().unwrap();
    assert!(!is_reserved(&low));
}

#[test]
fn descriptor_that_is_closed_early_has_a_high_number() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let early = closed_early(&socket).unwrap();
    let later = socket.try_clone().unwrap();
    assert!(early.as_raw_fd() > later.as_raw_fd());
}

/// Other tests of this process open a few at the same time.
#[test]
fn open_descriptors_are_not_left() {
    let sockets: Vec<_> =
        (0..100).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let (soft, _) = limits();
    let left = left().unwrap();
    assert!(
        (soft.saturating_sub(900)..=soft - sockets.len() as u64).contains(&left),
        "{left} of {soft} are left"
    );
}
