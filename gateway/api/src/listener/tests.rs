use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

impl TcpPlace {
    /// The only connection of its listener.
    pub(crate) fn of_a_stranger() -> TcpPlace {
        let connections = OpenConnections::new(ConnectionLimits::OF_CLIENTS);
        let connections = Arc::new(Mutex::new(connections));
        TcpPlace { number: 0, is_of_this_host: false, source: None, connections }
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

const CLIENTS: ConnectionLimits = ConnectionLimits {
    strangers: 16,
    trusted: TrustedLimits { places: 8, per_source: 4, per_credential: 2, readers: 1 },
    ..ConnectionLimits::OF_CLIENTS
};

/// Connections of clients: each has its number as its task.
struct Clients(OpenConnections<u64>);

impl Clients {
    fn new() -> Clients {
        Clients(OpenConnections::new(CLIENTS))
    }

    /// A request on a new connection proves a credential.
    fn ask(
        &mut self,
        number: u64,
        host: u8,
        credential: ProvenCredential,
    ) -> Result<Vec<u64>, AllBusy> {
        assert_eq!(self.0.strangers.admit(number, address(host), number), None);
        self.0.set_busy(number, true);
        self.0.trust(number, Some(address(host)), credential)
    }

    /// The request of the connection is answered.
    fn answer(&mut self, number: u64) {
        self.0.set_busy(number, false);
    }
}

fn token(number: u64) -> ProvenCredential {
    ProvenCredential::ClientToken(number.to_string().into())
}

#[test]
fn longest_idle_connection_gives_way() {
    let mut clients = Clients::new();
    for number in 0..8 {
        assert_eq!(clients.ask(number, number as u8, token(number)), Ok(vec![]));
    }
    assert_eq!(clients.ask(8, 8, token(8)), Err(AllBusy { places: 8 }));
    assert_eq!(clients.0.strangers.connections.len(), 1, "it remains a stranger");
    clients.answer(5);
    clients.answer(2);
    assert_eq!(clients.ask(9, 9, token(9)), Ok(vec![5]));
    clients.0.set_busy(2, true);
    assert_eq!(clients.ask(10, 10, token(10)), Err(AllBusy { places: 8 }));
    clients.0.remove(2);
    assert_eq!(clients.ask(11, 11, token(11)), Ok(vec![]));
}

#[test]
fn token_takes_its_own_places_only() {
    let mut clients = Clients::new();
    assert_eq!(clients.ask(0, 0, token(0)), Ok(vec![]));
    assert_eq!(clients.ask(1, 1, token(1)), Ok(vec![]));
    assert_eq!(clients.ask(2, 2, token(1)), Ok(vec![]));
    clients.answer(0);
    assert_eq!(clients.ask(3, 3, token(1)), Err(AllBusy { places: 2 }));
    clients.answer(2);
    assert_eq!(clients.ask(4, 3, token(1)), Ok(vec![2]));
}

#[test]
fn source_takes_its_own_places_only() {
    let mut clients = Clients::new();
    for number in 0..4 {
        assert_eq!(clients.ask(number, 1, token(number)), Ok(vec![]));
    }
    assert_eq!(clients.ask(4, 2, token(4)), Ok(vec![]));
    clients.answer(4);
    assert_eq!(clients.ask(5, 1, token(5)), Err(AllBusy { places: 4 }));
    clients.answer(3);
    assert_eq!(clients.ask(6, 1, token(6)), Ok(vec![3]));
    // A proxy on this host has many clients.
    for number in 10..14 {
        assert_eq!(clients.0.strangers.admit(number, address(3), number), None);
        clients.0.trust(number, None, token(number)).unwrap();
    }
}

#[test]
fn session_url_is_never_kept_out() {
    let mut clients = Clients::new();
    for number in 0..8 {
        assert_eq!(clients.ask(number, number as u8 / 4, token(number)), Ok(vec![]));
    }
    let url = ProvenCredential::SessionUrl(SessionId(17));
    assert_eq!(clients.ask(8, 2, url.clone()), Ok(vec![0]), "all are busy");
    clients.answer(6);
    assert_eq!(clients.ask(9, 2, url.clone()), Ok(vec![6]), "one is idle");
    assert_eq!(clients.ask(10, 2, url), Ok(vec![8]), "of its own connections");
    assert_eq!(clients.0.trusted.connections.len(), 8);
}

#[test]
fn readers_and_operators_have_places_of_their_own() {
    let TrustedLimits { places, per_credential, readers, .. } = LIMITS.trusted;
    assert_eq!(places, per_credential + readers);
    let mut connections = OpenConnections::new(LIMITS);
    let mut ask = |number: u64, credential: ProvenCredential| {
        assert_eq!(connections.strangers.admit(number, address(1), number), None);
        connections.trust(number, None, credential)
    };
    let limits = [
        (ProvenCredential::ReaderToken, readers),
        (ProvenCredential::OperatorToken, per_credential),
    ];
    for (number, (credential, most)) in (0..).zip(limits) {
        let numbers = 1_000 * number..1_000 * number + most as u64;
        for number in numbers.clone() {
            assert_eq!(ask(number, credential.clone()), Ok(vec![]));
        }
        assert_eq!(ask(numbers.end, credential), Err(AllBusy { places: most }));
    }
}
