//! Order of connections.

use std::time::Instant;

use quinn_proto::{ConnectionHandle, EndpointConfig};

use super::super::connection::ClientConnection;
use super::super::connections::Connections;
use super::client::client_without_trust;
use super::*;

/// Creates a connection with this number and handshake timeout.
fn connection(number: usize, until: Instant) -> ClientConnection {
    let own = Arc::new(EndpointConfig::default());
    let mut endpoint = quinn_proto::Endpoint::new(own, None, true, None);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let connected = endpoint.connect(Instant::now(), client_without_trust(), address, "localhost");
    ClientConnection::new(ConnectionHandle(number), connected.unwrap().1, until)
}

fn connections(numbers: &[usize], until: Instant) -> Connections {
    let mut connections = Connections::default();
    numbers.iter().for_each(|number| connections.insert(connection(*number, until)));
    connections
}

fn touched(connections: &mut Connections) -> Vec<usize> {
    std::iter::from_fn(|| connections.next_touched()).map(|handle| handle.0).collect()
}

#[test]
fn touched_connections_are_driven_in_order_once() {
    let mut connections = connections(&[2, 0, 5], Instant::now());
    assert_eq!(touched(&mut connections), [2, 0, 5], "a new one has its turn");
    for number in [5, 0, 5, 2, 9] {
        connections.touch(ConnectionHandle(number));
    }
    assert_eq!(touched(&mut connections), [5, 0, 2]);
}

#[test]
fn interrupted_connection_is_driven_next() {
    let mut connections = connections(&[0, 1, 2], Instant::now());
    let blocked = connections.next_touched().unwrap();
    connections.touch_first(blocked);
    connections.touch(ConnectionHandle(0));
    assert_eq!(touched(&mut connections), [0, 1, 2]);
}

#[test]
fn connection_is_due_only_when_scheduled() {
    let until = Instant::now() + NEVER;
    let mut connections = connections(&[4], until);
    assert_eq!(connections.timers.next_due(), None);
    connections.schedule(ConnectionHandle(4));
    assert_eq!(connections.timers.next_due(), Some(until));
    assert_eq!(connections.timers.take(until - Duration::from_nanos(1)), None);
    assert_eq!(connections.timers.take(until), Some(ConnectionHandle(4)));
    assert_eq!(connections.timers.take(until), None);
    connections.schedule(ConnectionHandle(4));
    assert_eq!(connections.timers.take(until), Some(ConnectionHandle(4)));
}

#[test]
fn reused_handle_has_no_old_state() {
    let until = Instant::now() + NEVER;
    let mut connections = connections(&[0, 1], until);
    connections.schedule(ConnectionHandle(1));
    connections.remove(ConnectionHandle(1));
    connections.remove(ConnectionHandle(1));
    assert_eq!((connections.count, connections.timers.next_due()), (1, None));
    connections.insert(connection(1, until + NEVER));
    connections.schedule(ConnectionHandle(1));
    assert_eq!(connections.timers.next_due(), Some(until + NEVER));
    assert_eq!(touched(&mut connections), [0, 1]);
    assert_eq!(connections.handles().collect::<Vec<_>>(), [0, 1].map(ConnectionHandle));
}
