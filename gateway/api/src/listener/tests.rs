use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

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
