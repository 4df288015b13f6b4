//! Whose turn it is among connections.

use std::time::Instant;

use quinn_proto::{ConnectionHandle, EndpointConfig};

use super::super::line::Line;
use super::super::lines::Lines;
use super::client::client_of_nobody;
use super::*;

/// A connection of this number, whose handshake must be over by then.
fn line(number: usize, until: Instant) -> Line {
    let own = Arc::new(EndpointConfig::default());
    let mut endpoint = quinn_proto::Endpoint::new(own, None, true, None);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let connected = endpoint.connect(Instant::now(), client_of_nobody(), address, "localhost");
    Line::new(ConnectionHandle(number), connected.unwrap().1, until)
}

fn lines(numbers: &[usize], until: Instant) -> Lines {
    let mut lines = Lines::default();
    numbers.iter().for_each(|number| lines.insert(line(*number, until)));
    lines
}

fn touched(lines: &mut Lines) -> Vec<usize> {
    std::iter::from_fn(|| lines.next_touched()).map(|handle| handle.0).collect()
}

#[test]
fn who_was_touched_first_is_first_and_once() {
    let mut lines = lines(&[2, 0, 5], Instant::now());
    assert_eq!(touched(&mut lines), [2, 0, 5], "a new one has its turn");
    for number in [5, 0, 5, 2, 9] {
        lines.touch(ConnectionHandle(number));
    }
    assert_eq!(touched(&mut lines), [5, 0, 2]);
}

#[test]
fn who_could_not_be_served_is_the_next_and_those_behind_keep_their_places() {
    let mut lines = lines(&[0, 1, 2], Instant::now());
    let blocked = lines.next_touched().unwrap();
    lines.touch_first(blocked);
    lines.touch(ConnectionHandle(0));
    assert_eq!(touched(&mut lines), [0, 1, 2]);
}
