use evenkeel_testkit::udp::await_closed;

use super::*;

const EVERY: Duration = Duration::from_millis(10);

fn pair(kind: CheckKind) -> (UdpSocket, ServerCheck, Instant) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let now = Instant::now();
    let check = ServerCheck::new(server.local_addr().unwrap(), kind, EVERY, now).unwrap();
    (server, check, now)
}

/// Answers the last probe as the server.
fn answer(server: &UdpSocket, check: &mut ServerCheck, answer: impl FnOnce(&[u8]) -> Vec<u8>) {
    let mut buffer = [0; 256];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&answer(&buffer[..length]), from).unwrap();
    check.read();
}

#[test]
fn each_check_kind_accepts_its_answer() {
    let (server, mut check, now) = pair(CheckKind::Echo);
    check.handle_timeout(now);
    answer(&server, &mut check, <[u8]>::to_vec);
    assert_eq!(check.port(), PortState::Up);

    let (server, mut check, now) = pair(CheckKind::NgPing);
    check.handle_timeout(now);
    answer(&server, &mut check, |question| {
        assert_eq!(question, b"1 d7:command4:pinge");
        b"1 d6:result4:ponge".to_vec()
    });
    assert_eq!(check.port(), PortState::Up);

    let (server, mut check, now) = pair(CheckKind::Stun);
    check.handle_timeout(now);
    answer(&server, &mut check, |question| {
        let request = stun::BindingRequest::parse(question).unwrap();
        let mut answer = Vec::new();
        let mapped = ([127, 0, 0, 1], 9).into();
        stun::write_success(request.message.transaction(), mapped, None, &mut answer);
        answer
    });
    assert_eq!(check.port(), PortState::Up);
}

#[test]
fn port_is_silent_initially_and_after_three_misses() {
    let (server, mut check, mut now) = pair(CheckKind::Echo);
    assert_eq!(check.port(), PortState::Silent);
    check.handle_timeout(now);
    answer(&server, &mut check, <[u8]>::to_vec);
    for _ in 0..2 {
        now += EVERY;
        check.handle_timeout(now);
        check.handle_timeout(now);
        check.read();
        assert_eq!(check.port(), PortState::Up);
    }
    // Silence is counted in probes, so time alone changes nothing.
    now += 100 * EVERY;
    assert_eq!(check.port(), PortState::Up);
    check.handle_timeout(now);
    assert_eq!(check.port(), PortState::Silent);
}

#[test]
fn port_is_closed_from_two_refusals_to_an_answer() {
    let (server, mut check, mut now) = pair(CheckKind::Echo);
    check.handle_timeout(now);
    answer(&server, &mut check, <[u8]>::to_vec);
    let address = server.local_addr().unwrap();
    drop(server);
    await_closed(address);
    let patience = Instant::now() + Duration::from_secs(10);
    for (refused, port) in [(1, PortState::Up), (2, PortState::Closed)] {
        now += EVERY;
        check.handle_timeout(now);
        while check.refused < refused {
            assert!(Instant::now() < patience);
            check.read();
        }
        assert_eq!(check.port(), port);
    }
    let server = UdpSocket::bind(address).unwrap();
    now += EVERY;
    check.handle_timeout(now);
    answer(&server, &mut check, <[u8]>::to_vec);
    assert_eq!((check.port(), check.refused), (PortState::Up, 0));
}

#[test]
fn refusals_of_one_probe_count_once() {
    let (server, mut check, mut now) = pair(CheckKind::Echo);
    check.handle_timeout(now);
    answer(&server, &mut check, <[u8]>::to_vec);
    let refuse = |check: &mut ServerCheck| {
        let error = io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32);
        (0..5).for_each(|_| check.note(&error));
    };
    refuse(&mut check);
    assert_eq!((check.refused, check.port()), (0, PortState::Up), "every probe was answered");
    for port in [PortState::Up, PortState::Closed] {
        now += EVERY;
        check.handle_timeout(now);
        refuse(&mut check);
        assert_eq!(check.port(), port);
    }
}

#[test]
fn echoed_question_is_no_answer() {
    let (server, mut check, now) = pair(CheckKind::Stun);
    check.handle_timeout(now);
    answer(&server, &mut check, <[u8]>::to_vec);
    assert_eq!(check.port(), PortState::Silent, "its own question came back");
}
