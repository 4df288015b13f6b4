use evenkeel_media::stun::{BindingRequest, write_padded_success};

use super::*;

const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

/// Three packets of voice and two of video, 1 ms apart.
fn opened(gateway: SocketAddr) -> ProbeAnswer {
    let train = |packets, bytes| ProbeTrain { packets, interval_us: 1_000, bytes };
    ProbeAnswer {
        id: "0123456789abcdef".into(),
        password: PASSWORD.into(),
        addresses: vec![gateway],
        webtransport: None,
        trains: vec![train(3, 160), train(2, 1_200)],
        ends_ms: 30_000,
    }
}

/// Answers each packet, except that of one number, and returns the packets in the order of their arrival.
fn answer(gateway: &UdpSocket, lost: u16, packets: usize) -> Vec<Vec<u8>> {
    let key = StunKey::new(PASSWORD);
    let (mut buffer, mut received) = ([0; DATAGRAM_MAX], Vec::new());
    while received.len() < packets {
        let (length, client) = gateway.recv_from(&mut buffer).unwrap();
        let question = BindingRequest::parse(&buffer[..length]).unwrap();
        assert_eq!(question.message.verify(&key), Ok(()));
        assert_eq!(question.username().unwrap().server_ufrag, "0123456789abcdef");
        let transaction = question.message.transaction();
        received.push(buffer[..length].to_vec());
        if probe::number(transaction) != lost {
            let mut answer = Vec::new();
            write_padded_success(transaction, client, &key, length, &mut answer);
            // The second copy is a duplicate of the network.
            (0..2).for_each(|_| _ = gateway.send_to(&answer, client).unwrap());
        }
    }
    received
}

#[test]
fn each_packet_is_timed_by_its_answer() {
    let gateway = UdpSocket::bind("127.0.0.1:0").unwrap();
    gateway.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let opened = opened(gateway.local_addr().unwrap());
    let answering = std::thread::spawn(move || answer(&gateway, 1, 5));
    let round_trips = exchange(&opened).unwrap();
    let answered: Vec<bool> = round_trips.iter().map(Option::is_some).collect();
    assert_eq!(answered, [true, false, true, true, true]);
    let lengths: Vec<usize> = answering.join().unwrap().iter().map(Vec::len).collect();
    assert_eq!(lengths, [160, 160, 160, 1_200, 1_200]);
}

#[test]
fn answer_of_a_stranger_counts_as_none() {
    let mut questions = questions(&opened("127.0.0.1:9".parse().unwrap()).trains);
    let (key, guess) = (StunKey::new(PASSWORD), StunKey::new("a guess at the password"));
    let (own, other) = (questions[0].transaction, probe::transaction(0, [0; 10]));
    let mut note = |transaction, signed_by, sent_ns| {
        let mut answer = Vec::new();
        let mapped = "127.0.0.1:1".parse().unwrap();
        write_padded_success(transaction, mapped, signed_by, 160, &mut answer);
        questions[0].sent_ns = sent_ns;
        note_answer(&mut questions, &answer, &key, 3_000_000);
        questions[0].round_trip_us
    };
    assert_eq!(note(own, &key, None), None, "its question was not sent");
    assert_eq!(note(other, &key, Some(1_000_000)), None);
    assert_eq!(note(own, &guess, Some(1_000_000)), None);
    assert_eq!(note(own, &key, Some(1_000_000)), Some(2_000));
    assert_eq!(note(own, &key, Some(2_000_000)), Some(2_000), "the first answer counts");
}
