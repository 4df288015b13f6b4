use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

impl TcpPlace {
    /// The only connection of its listener.
    pub(crate) fn of_a_stranger() -> TcpPlace {
        let limits = ConnectionLimits::OF_CLIENTS;
        TcpPlace {
            number: 0,
            is_of_this_host: false,
            strangers: Arc::new(Mutex::new(UntrustedConnections::new(limits))),
            trusted: Arc::new(Semaphore::new(1)),
            trusted_max: 1,
            place: OnceLock::new(),
        }
    }
}

fn placed() -> (CountedConnection<tokio::io::DuplexStream>, tokio::io::DuplexStream, Arc<Semaphore>)
{
    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let (ours, theirs) = tokio::io::duplex(64);
    (CountedConnection::new(ours, place), theirs, places)
}

async fn outlast(mut connection: CountedConnection<tokio::io::DuplexStream>) -> io::ErrorKind {
    let mut buffer = [0; 8];
    loop {
        match connection.read(&mut buffer).await {
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_closed() {
    let (connection, _theirs, places) = placed();
    let before = Instant::now();
    assert_eq!(outlast(connection).await, io::ErrorKind::TimedOut);
    assert_eq!(before.elapsed(), UNANSWERED_MAX);
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn unfinished_request_is_closed() {
    let (connection, mut theirs, _places) = placed();
    let before = Instant::now();
    let dripping = async {
        while theirs.write_all(b"x").await.is_ok() {
            tokio::time::sleep(UNANSWERED_MAX / 3).await;
        }
    };
    tokio::select! {
        kind = outlast(connection) => assert_eq!(kind, io::ErrorKind::TimedOut),
        () = dripping => unreachable!(),
    }
    assert_eq!(before.elapsed(), UNANSWERED_MAX);
}

#[tokio::test(start_paused = true)]
async fn answered_connection_stays_open() {
    let (mut connection, _theirs, _places) = placed();
    let before = Instant::now();
    tokio::time::sleep(UNANSWERED_MAX / 2).await;
    connection.write_all(b"an event").await.unwrap();
    assert_eq!(outlast(connection).await, io::ErrorKind::TimedOut);
    assert_eq!(before.elapsed(), UNANSWERED_MAX / 2 + UNANSWERED_MAX);
}

const LIMITS: ConnectionLimits = ConnectionLimits::OF_API;

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

#[test]
fn crowded_source_displaces_its_oldest() {
    let mut strangers = UntrustedConnections::new(LIMITS);
    let most = LIMITS.strangers_per_source as u64;
    assert_eq!(strangers.admit(0, address(2), 0), None);
    for number in 1..=most {
        assert_eq!(strangers.admit(number, address(1), number), None);
    }
    assert_eq!(strangers.admit(most + 1, address(1), most + 1), Some(1));
    assert_eq!(strangers.admit(most + 2, address(2), most + 2), None);
    strangers.remove(2);
    assert_eq!(strangers.admit(most + 3, address(1), most + 3), None, "a place is free again");
}

#[test]
fn full_table_displaces_from_largest_source() {
    let mut strangers = UntrustedConnections::new(LIMITS);
    let most = LIMITS.strangers as u64;
    for number in 0..most {
        let source = if number >= most - 40 { 200 } else { number as u8 / 4 };
        assert_eq!(strangers.admit(number, address(source), number), None);
    }
    assert_eq!(strangers.admit(most, address(201), most), Some(most - 40));
    assert_eq!(strangers.connections.len(), LIMITS.strangers);
}

#[test]
fn oldest_gives_way_among_equal_sources() {
    let mut strangers = UntrustedConnections::new(LIMITS);
    for number in 0..=255_u8 {
        assert_eq!(strangers.admit(number.into(), address(number), number), None);
    }
    let other = Ipv4Addr::new(192, 0, 3, 1).into();
    assert_eq!(strangers.admit(256, other, 7), Some(0));
}

#[test]
fn source_is_an_ipv6_network_or_ipv4_address() {
    let of = |text: &str| source(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8:0:ff:2:3:4:5"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:100::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
}
