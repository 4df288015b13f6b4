use super::*;

const NOW_US: u64 = 1_700_000_000_000_000;
const NONCE: u64 = 0x0123_4567_89ab_cdef;

fn secret() -> Secret {
    Secret::new(b"a secret of many bytes").unwrap()
}

fn questions() -> [Question; 4] {
    [
        Question::Probe,
        Question::Open { room: 1, session: 2, tag: Tag(u64::MAX), lease_s: 30 },
        Question::Close { tag: Tag(7) },
        Question::Drain,
    ]
}

fn answers() -> Vec<Answer> {
    let load = Load { permille: 420, state: State::Draining, sessions: 100_000 };
    let mut answers = vec![
        Answer::Probe(load),
        Answer::Probe(Load { state: State::Serving, ..load }),
        Answer::Drain(load),
    ];
    for status in [Status::Ok, Status::Full, Status::Draining, Status::UnknownTag] {
        answers.push(Answer::Open { tag: Tag(7), status });
        answers.push(Answer::Close { tag: Tag(7), status });
    }
    answers
}

fn asked(question: &Question) -> Vec<u8> {
    let mut bytes = Vec::new();
    question.write(&secret(), NONCE, NOW_US, &mut bytes);
    bytes
}

fn answered(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    answer.write(&secret(), NONCE, NOW_US, &mut bytes);
    bytes
}

#[test]
fn questions_and_answers_are_read_back_with_nonce_and_time() {
    for message in questions() {
        let read = Question::read(&asked(&message), &secret(), NOW_US + 9);
        assert_eq!(read, Ok(Verified { message, nonce: NONCE, sent_us: NOW_US }));
    }
    for message in answers() {
        let read = Answer::read(&answered(&message), &secret(), NOW_US + 9);
        assert_eq!(read, Ok(Verified { message, nonce: NONCE, sent_us: NOW_US }));
    }
}

#[test]
fn bytes_on_the_wire_are_as_agreed() {
    let bytes = asked(&questions()[1]);
    let id = secret().id().0.to_be_bytes();
    assert_eq!(bytes[..4], [0xE1, 1, 2, 0]);
    assert_eq!(bytes[4..8], id);
    assert_eq!(bytes[8..16], NONCE.to_be_bytes());
    assert_eq!(bytes[16..24], NOW_US.to_be_bytes());
    assert_eq!(bytes[24..32], 1u64.to_be_bytes());
    assert_eq!(bytes[32..40], 2u64.to_be_bytes());
    assert_eq!(bytes[40..48], [0xff; 8]);
    assert_eq!(bytes[48..56], [0, 30, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes.len(), 24 + 32 + 32);
    assert_eq!(key_id(&bytes), Some(secret().id()));
    assert_eq!(key_id(&bytes[1..]), None);
    let probe = asked(&Question::Probe);
    assert_eq!(probe.len(), 24 + 16 + 32);
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let shortest = questions().iter().map(|question| asked(question).len()).min().unwrap();
    for answer in answers() {
        assert!(answered(&answer).len() <= shortest, "{answer:?}");
    }
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    for question in questions() {
        let bytes = asked(&question);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Question::read(&changed, &secret(), NOW_US).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Question::read(&bytes[..length], &secret(), NOW_US).is_err());
        }
    }
}

#[test]
fn the_reason_for_a_refusal_is_told() {
    let bytes = asked(&Question::Probe);
    let with = |index: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[index] = value;
        Question::read(&changed, &secret(), NOW_US)
    };
    assert_eq!(with(0, 0xE0), Err(Refused::Length));
    assert_eq!(with(1, 2), Err(Refused::Version(2)));
    assert_eq!(with(24, 1), Err(Refused::Forged));
    let other = Secret::new(b"another secret, as long").unwrap();
    assert_eq!(Question::read(&bytes, &other, NOW_US), Err(Refused::Key(secret().id())));
    assert_eq!(Answer::read(&bytes, &secret(), NOW_US), Err(Refused::Direction));
    let answer = answered(&answers()[0]);
    assert_eq!(Question::read(&answer, &secret(), NOW_US), Err(Refused::Direction));
}

#[test]
fn messages_count_for_five_seconds_either_way() {
    let bytes = asked(&Question::Probe);
    for (now_us, believed) in [
        (NOW_US - SKEW_MAX_US, true),
        (NOW_US + SKEW_MAX_US, true),
        (NOW_US - SKEW_MAX_US - 1, false),
        (NOW_US + SKEW_MAX_US + 1, false),
    ] {
        let read = Question::read(&bytes, &secret(), now_us);
        assert_eq!(read.is_ok(), believed);
        if !believed {
            assert_eq!(read, Err(Refused::Time));
        }
    }
}

/// A message with a good signature over `kind` and `body`.
fn forge(kind: u8, direction: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_head(kind, direction, &secret(), NONCE, NOW_US, &mut bytes);
    bytes.extend_from_slice(body);
    sign(&secret(), 0, &mut bytes);
    bytes
}

#[test]
fn signed_nonsense_is_refused() {
    let read = |bytes: &[u8]| Question::read(bytes, &secret(), NOW_US).unwrap_err();
    assert_eq!(read(&forge(0, QUESTION, &[0; 16])), Refused::Unknown);
    assert_eq!(read(&forge(5, QUESTION, &[0; 16])), Refused::Unknown);
    assert_eq!(read(&forge(PROBE, QUESTION, &[0; 15])), Refused::Length);
    assert_eq!(read(&forge(PROBE, QUESTION, &[0; 17])), Refused::Length);
    let read = |bytes: &[u8]| Answer::read(bytes, &secret(), NOW_US).unwrap_err();
    assert_eq!(read(&forge(5, ANSWER, &[0; 7])), Refused::Unknown);
    assert_eq!(read(&forge(PROBE, ANSWER, &[0, 0, 2, 0, 0, 0, 0])), Refused::Unknown);
    assert_eq!(read(&forge(OPEN, ANSWER, &[0, 0, 0, 0, 0, 0, 0, 1, 4])), Refused::Unknown);
    assert_eq!(read(&forge(OPEN, ANSWER, &[0; 8])), Refused::Length);
}

#[test]
fn secret_ends_before_its_line_does() {
    let plain = secret();
    for file in [&b"a secret of many bytes\n"[..], b"a secret of many bytes\r\n"] {
        let read = Secret::new(file).unwrap();
        assert_eq!(read.id(), plain.id());
        assert!(Question::read(&asked(&Question::Probe), &read, NOW_US).is_ok());
    }
}

#[test]
fn short_secret_is_refused() {
    assert!(Secret::new(&[7; 16]).is_ok());
    assert_eq!(Secret::new(&[7; 15]).unwrap_err(), TooShort { length: 15 });
    assert_eq!(Secret::new(b"123456789012345\n").unwrap_err(), TooShort { length: 15 });
}

#[test]
fn secrets_and_tags_do_not_show_themselves_in_logs() {
    assert!(!format!("{:?}", secret()).contains("many"));
    assert_eq!(format!("{:?}", Tag(0x1234_5678_9abc_def0)), "Tag(1234…)");
}
