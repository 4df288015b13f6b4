//! Whose turn it is among connections.

use std::time::Instant;

use quinn_proto::{ConnectionHandle, EndpointConfig};

use super::super::connection::Line;
use super::super::connections::Lines;
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

#[test]
fn a_line_is_taken_when_it_is_due_and_not_before_it_is_scheduled_again() {
    let until = Instant::now() + NEVER;
    let mut lines = lines(&[4], until);
    assert_eq!(lines.next_due(), None);
    lines.schedule(ConnectionHandle(4));
    assert_eq!(lines.next_due(), Some(until));
    assert_eq!(lines.take_due(until - Duration::from_nanos(1)), None);
    assert_eq!(lines.take_due(until), Some(ConnectionHandle(4)));
    assert_eq!(lines.take_due(until), None);
    lines.schedule(ConnectionHandle(4));
    assert_eq!(lines.take_due(until), Some(ConnectionHandle(4)));
}

#[test]
fn a_handle_that_is_used_again_has_nothing_of_the_one_before() {
    let until = Instant::now() + NEVER;
    let mut lines = lines(&[0, 1], until);
    lines.schedule(ConnectionHandle(1));
    lines.remove(ConnectionHandle(1));
    lines.remove(ConnectionHandle(1));
    assert_eq!((lines.count(), lines.next_due()), (1, None));
    lines.insert(line(1, until + NEVER));
    lines.schedule(ConnectionHandle(1));
    assert_eq!(lines.next_due(), Some(until + NEVER));
    assert_eq!(touched(&mut lines), [0, 1]);
    assert_eq!(lines.handles().collect::<Vec<_>>(), [0, 1].map(ConnectionHandle));
}
