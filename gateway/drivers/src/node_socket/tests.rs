use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::timeout;

use super::*;

/// Requests are repeated, because the first may come before the socket is connected.
const AGAIN: Duration = Duration::from_millis(5);

#[tokio::test]
async fn answers_and_refusals_are_passed_on() {
    let daemon = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ng = daemon.local_addr().unwrap();
    let (told, mut heard) = mpsc::channel(8);
    let hears = async {
        let line = NodeSocket::start(NodeId(3), told, move || socket::connected(ng));
        let mut question = [0; 64];
        let (length, from) = loop {
            line.send(b"cookie question");
            if let Ok(came) = timeout(AGAIN, daemon.recv_from(&mut question)).await {
                break came.unwrap();
            }
        };
        assert_eq!(&question[..length], b"cookie question");
        daemon.send_to(b"cookie answer", from).await.unwrap();
        let answer = NodeInput::Datagram(b"cookie answer"[..].into());
        assert_eq!(heard.recv().await, Some((NodeId(3), answer)));
        drop(daemon);
        let word = loop {
            line.send(b"cookie question");
            if let Ok(word) = timeout(AGAIN, heard.recv()).await {
                break word;
            }
        };
        let Some((NodeId(3), NodeInput::Unreachable(quotes))) = word else { panic!("{word:?}") };
        assert!(quotes.iter().all(|quoted| **quoted == *b"cookie question"), "{quotes:?}");
    };
    LocalSet::new().run_until(hears).await;
}
