mod signed;

use std::cell::Cell;

use evenkeel_testkit::udp::await_closed;
use tokio::task::LocalSet;

use super::socket::{CONNECT_AGAIN, connected};
use super::*;

#[tokio::test(start_paused = true)]
async fn node_is_probed_once_a_route_exists() {
    let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = node.local_addr().unwrap();
    let (told, mut probed) = mpsc::channel(8);
    let tries = Rc::new(Cell::new(0));
    let tried = Rc::clone(&tries);
    let connect = move || {
        tried.set(tried.get() + 1);
        match tried.get() {
            ..4 => Err(std::io::ErrorKind::NetworkUnreachable.into()),
            _ => connected(address),
        }
    };
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            let prober =
                Prober::start(NodeId(3), ProbeMethod::Echo, Arc::default(), 0, told, connect);
            let clock = Clock::read();
            prober.probe(7, [7; 12], clock);
            tokio::time::sleep(CONNECT_AGAIN * 4).await;
            prober.probe(8, [8; 12], clock);
            let mut buffer = [0; 64];
            let (length, from) = node.recv_from(&mut buffer).await.unwrap();
            node.send_to(&buffer[..length], from).await.unwrap();
            let word = probed.recv().await.unwrap().if_current().unwrap();
            assert!(
                matches!(
                    word,
                    ProbeResult::Evidence {
                        node: NodeId(3),
                        evidence: NodeEvidence::ProbeAnswered(8),
                        ..
                    }
                ),
                "{word:?}"
            );
        })
        .await;
    assert_eq!(tries.get(), 4);
}

#[tokio::test]
async fn waiting_answer_is_read_without_the_task() {
    let node = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    node.set_nonblocking(true).unwrap();
    let address = node.local_addr().unwrap();
    let (told, _probed) = mpsc::channel(8);
    let heard = async {
        let (method, fencing) = (ProbeMethod::Echo, Arc::default());
        let prober = Prober::start(NodeId(3), method, fencing, 0, told, move || connected(address));
        let (mut buffer, mut sequence) = ([0; 64], 0);
        // The event loop does not know at first that the socket takes a datagram.
        let (length, from) = loop {
            sequence += 1;
            prober.probe(sequence, [7; 12], Clock::read());
            match node.recv_from(&mut buffer) {
                Ok(probe) => break probe,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        node.send_to(&buffer[..length], from).unwrap();
        // No task has run since: nothing was awaited.
        let results = prober.read_waiting();
        let answers = |evidence| match evidence {
            NodeEvidence::ProbeAnswered(answered) => answered <= sequence,
            _ => false,
        };
        assert!(
            matches!(
                results[..],
                [ProbeResult::Evidence { node: NodeId(3), evidence, .. }] if answers(evidence)
            ),
            "{results:?}"
        );
        assert_eq!(prober.read_waiting(), []);
    };
    LocalSet::new().run_until(heard).await;
}

#[tokio::test]
async fn event_of_a_replaced_prober_is_dropped() {
    for stays in [true, false] {
        let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap();
        let (told, mut probed) = mpsc::channel(8);
        let start = move || {
            Prober::start(
                NodeId(3),
                ProbeMethod::Echo,
                Arc::default(),
                0,
                told.clone(),
                move || connected(address),
            )
        };
        let heard = async {
            let prober = start();
            tokio::task::yield_now().await;
            prober.probe(7, [7; 12], Clock::read());
            let mut buffer = [0; 64];
            let (length, from) = node.recv_from(&mut buffer).await.unwrap();
            node.send_to(&buffer[..length], from).await.unwrap();
            let word = probed.recv().await.unwrap();
            let _listens = match stays {
                true => prober,
                false => {
                    drop(prober);
                    start()
                }
            };
            word.if_current().is_some()
        };
        assert_eq!(LocalSet::new().run_until(heard).await, stays);
    }
}

fn sequence(questions: &ProbesInFlight, datagram: &[u8]) -> Option<u64> {
    match questions.read(datagram)?.answers? {
        NodeEvidence::ProbeAnswered(sequence) => Some(sequence),
        other => panic!("{other:?}"),
    }
}

#[test]
fn token_answers_its_probe_once() {
    let reader = ProbeMethod::Echo.questions(Arc::default(), 0);
    let ProbesInFlight::Echo(asked) = &reader else { panic!() };
    let echo = |token: Token| [&[demux::ECHO][..], &token].concat();
    asked.ask([1; 12], 41);
    asked.ask([2; 12], 42);
    assert_eq!(sequence(&reader, &echo([3; 12])), None, "a guess");
    assert_eq!(sequence(&reader, &echo([1; 12])[..12]), None, "a part");
    assert_eq!(sequence(&reader, &echo([2; 12])), Some(42));
    assert_eq!(sequence(&reader, &echo([2; 12])), None, "a copy");
    assert_eq!(sequence(&reader, &echo([1; 12])), Some(41), "late, and out of turn");
}

#[test]
fn binding_response_answers_its_transaction() {
    let reader = ProbeMethod::Stun.questions(Arc::default(), 0);
    let ProbesInFlight::Stun(asked) = &reader else { panic!() };
    asked.ask([7; 12], 42);
    let answer = |transaction| {
        let mut answer = Vec::new();
        let mapped = ([192, 0, 2, 1], 4_000).into();
        stun::write_success(stun::Transaction(transaction), mapped, None, &mut answer);
        answer
    };
    assert_eq!(sequence(&reader, &answer([8; 12])), None);
    assert_eq!(sequence(&reader, &answer([7; 12])), Some(42));
}

#[test]
fn pong_answers_its_cookie_once() {
    let reader = ProbesInFlight::Ping(ProbeTokens::default());
    let ProbesInFlight::Ping(asked) = &reader else { panic!() };
    // A space would end the cookie.
    let cookie = cookie(*b"  a token of");
    assert!(!cookie.contains(&b' '));
    asked.ask(cookie, 7);
    let pong = |cookie: &[u8], said: &[u8]| [cookie, said].concat();
    assert_eq!(sequence(&reader, &pong(b"another text", b" d6:result4:ponge")), None);
    assert_eq!(sequence(&reader, &pong(&cookie, b" d6:result5:errore")), None);
    assert_eq!(sequence(&reader, &cookie), None);
    assert_eq!(sequence(&reader, &pong(&cookie, b" d6:result4:ponge")), Some(7));
    assert_eq!(sequence(&reader, &pong(&cookie, b" d6:result4:ponge")), None);
}

#[test]
fn oldest_pending_probe_is_replaced() {
    let asked = ProbeTokens::default();
    let token = |number: u64| -> Token {
        let [.., a, b] = number.to_be_bytes();
        [a, b].repeat(6).try_into().unwrap()
    };
    (0..=TOKENS_MAX as u64).for_each(|number| asked.ask(token(number), number));
    assert_eq!(asked.answered(&token(0)), None);
    assert_eq!(asked.answered(&token(1)), Some(1));
}

#[test]
fn refusal_must_quote_a_pending_probe() {
    let token = *b"twelve bytes";
    let echo = |token: Token| [&[demux::ECHO][..], &token].concat();
    let stun = |token: Token| {
        let mut probe = Vec::new();
        stun::BindingBuilder::probe(stun::Transaction(token)).write(&mut probe);
        probe
    };
    let ping = |token: Token| [&cookie(token)[..], PING].concat();
    let other = *b"other twelve";
    for (way, probe, guess) in [
        (ProbeMethod::Echo, echo(token), echo(other)),
        (ProbeMethod::Stun, stun(token), stun(other)),
        (ProbeMethod::Ping, ping(token), ping(other)),
    ] {
        let questions = way.questions(Arc::default(), 0);
        let (ProbesInFlight::Echo(asked)
        | ProbesInFlight::Stun(asked)
        | ProbesInFlight::Ping(asked)) = &questions
        else {
            panic!()
        };
        let pending =
            if matches!(questions, ProbesInFlight::Ping(_)) { cookie(token) } else { token };
        asked.ask(pending, 7);
        for quoted in [&guess[..], &probe[..probe.len() - 1], &[]] {
            assert_eq!(questions.refused(quoted), None, "{quoted:?}");
        }
        assert_eq!(questions.refused(&probe), Some(7));
        asked.answered(&pending).unwrap();
        assert_eq!(questions.refused(&probe), None, "answered");
    }
}

#[tokio::test]
async fn closed_port_is_reported_with_its_probe() {
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    await_closed(gone);
    let (told, mut probed) = mpsc::channel(8);
    let hears = async {
        let prober =
            Prober::start(NodeId(3), ProbeMethod::Echo, Arc::default(), 0, told, move || {
                connected(gone)
            });
        tokio::task::yield_now().await;
        // The second probe finds the error of the first one at its socket.
        prober.probe(7, [7; 12], Clock::read());
        prober.probe(8, [8; 12], Clock::read());
        for sequence in [7, 8] {
            let word = probed.recv().await.unwrap().if_current();
            let Some(ProbeResult::Evidence { node: NodeId(3), evidence, .. }) = word else {
                panic!("{word:?}")
            };
            assert_eq!(evidence, NodeEvidence::ProbeRefused(sequence));
        }
    };
    LocalSet::new().run_until(hears).await;
}
