use super::signature::{ANSWER, HEAD_LEN, MAC_LEN, QUESTION, sign, write_head, write_owner};
use super::*;
use crate::trunk::{Hold, Tag, Vote, Voted};
use evenkeel_fuzz::Corpus;
use std::time::Duration;

const NOW_US: u64 = 1_700_000_000_000_000;
const NONCE: u64 = 0x0123_4567_89ab_cdef;
const OWNER: GroupOwner = GroupOwner { group: 0x1234_5678, epoch: 3 };

fn secret() -> NodeSecret {
    NodeSecret::new(b"a secret of many bytes", "east-a1").unwrap()
}

fn tags(count: usize) -> Box<[Tag]> {
    (1..).map(Tag).take(count).collect()
}

fn questions() -> Vec<TrunkQuestion> {
    let mut questions = vec![
        TrunkQuestion::Probe,
        TrunkQuestion::Open {
            room: 1,
            session: 2,
            tag: Tag(u64::MAX),
            lease_s: 30,
            numbered: false,
        },
        TrunkQuestion::Open { room: 1, session: 2, tag: Tag(3), lease_s: 30, numbered: true },
        TrunkQuestion::Close { tag: Tag(7) },
        TrunkQuestion::Drain,
        TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: tags(1) },
        TrunkQuestion::Keep { lease_s: 1, numbered: true, tags: tags(KEEP_MAX) },
        TrunkQuestion::Noted { number: 3 },
        TrunkQuestion::Start,
        TrunkQuestion::Process,
        TrunkQuestion::Path { bundle_max: 1_400, padding: 0 },
        TrunkQuestion::Path { bundle_max: 1_200, padding: 1_328 },
    ];
    questions.extend(NodeFault::ALL.map(TrunkQuestion::Break));
    let hold = Hold::For(Duration::from_millis(25));
    let votes = [
        Vote::Owner { epoch: 3, hold },
        Vote::Owner { epoch: u64::MAX, hold: Hold::Epoch },
        Vote::Standby,
        Vote::Claim { base: 3, claim: 4 },
    ];
    questions.extend(votes.map(|vote| TrunkQuestion::Vote { group: 9, vote }));
    questions
}

fn answers() -> Vec<TrunkAnswer> {
    let load =
        NodeLoad { permille: 420, state: ServingState::Draining, sessions: 100_000, vouched: true };
    let mut answers = vec![
        TrunkAnswer::Probe(load),
        TrunkAnswer::Probe(NodeLoad { state: ServingState::Serving, vouched: false, ..load }),
        TrunkAnswer::Drain(load),
        TrunkAnswer::Keep { unknown: tags(0) },
        TrunkAnswer::Keep { unknown: tags(1) },
    ];
    answers.push(TrunkAnswer::Path { padding: 0 });
    answers.push(TrunkAnswer::Superseded { epoch: u64::MAX });
    answers.push(TrunkAnswer::Process(ProcessReport { memory_permille: 420, age_s: 86_400 }));
    for heard in [None, Some(Duration::ZERO), Some(Duration::from_micros(12_345))] {
        answers.push(TrunkAnswer::Vote(Voted { epoch: 3, promised: 4, heard, instance: 5 }));
    }
    for state in ServingState::ALL {
        answers.push(TrunkAnswer::Notice { number: u64::MAX, load: NodeLoad { state, ..load } });
    }
    for outcome in OrderOutcome::ALL {
        answers.push(TrunkAnswer::Start(outcome));
        answers.push(TrunkAnswer::Break(outcome));
    }
    for status in OpenStatus::ALL {
        answers.push(TrunkAnswer::Open { tag: Tag(7), status });
        answers.push(TrunkAnswer::Close { tag: Tag(7), status });
    }
    answers
}

fn asked(question: &TrunkQuestion) -> Vec<u8> {
    let mut bytes = Vec::new();
    question.write(&secret(), NONCE, NOW_US, &mut bytes);
    bytes
}

fn asked_by_owner(question: &TrunkQuestion) -> Vec<u8> {
    let mut bytes = Vec::new();
    question.write_for(Some(OWNER), &secret(), NONCE, NOW_US, &mut bytes);
    bytes
}

fn answered(answer: &TrunkAnswer) -> Vec<u8> {
    let mut bytes = Vec::new();
    answer.write(&secret(), NONCE, NOW_US, &mut bytes);
    bytes
}

#[test]
fn messages_round_trip_with_nonce_and_time() {
    for message in questions() {
        let read = TrunkQuestion::read(&asked(&message), &secret(), NOW_US + 9);
        let verified = Verified { message, nonce: NONCE, owner: None, sent_us: NOW_US };
        assert_eq!(read.as_ref(), Ok(&verified));
        let read = TrunkQuestion::read(&asked_by_owner(&verified.message), &secret(), NOW_US);
        assert_eq!(read, Ok(Verified { owner: Some(OWNER), ..verified }));
    }
    for message in answers() {
        let read = TrunkAnswer::read(&answered(&message), &secret(), NOW_US + 9);
        assert_eq!(read, Ok(Verified { message, nonce: NONCE, owner: None, sent_us: NOW_US }));
    }
}

#[test]
fn wire_format_is_stable() {
    let bytes = asked(&questions()[1]);
    let id = secret().id.0.to_be_bytes();
    assert_eq!(bytes[..4], [0xE1, 2, 2, 0]);
    assert_eq!(bytes[4..8], id);
    assert_eq!(bytes[8..16], NONCE.to_be_bytes());
    assert_eq!(bytes[16..24], NOW_US.to_be_bytes());
    assert_eq!(bytes[24..32], 1u64.to_be_bytes());
    assert_eq!(bytes[32..40], 2u64.to_be_bytes());
    assert_eq!(bytes[40..48], [0xff; 8]);
    assert_eq!(bytes[48..56], [0, 30, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes.len(), 24 + 32 + 32);
    let probe = asked(&TrunkQuestion::Probe);
    assert_eq!(probe.len(), 24 + 16 + 32);
}

#[test]
fn wire_format_of_an_owner_is_stable() {
    let bytes = asked_by_owner(&TrunkQuestion::Close { tag: Tag(7) });
    assert_eq!(bytes[..4], [0xE1, 3, 3, 0]);
    assert_eq!(bytes[24..32], 3u64.to_be_bytes());
    assert_eq!(bytes[32..40], [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]);
    assert_eq!(bytes[40..48], 7u64.to_be_bytes());
    assert_eq!(bytes.len(), asked(&TrunkQuestion::Close { tag: Tag(7) }).len() + 16);
}

#[test]
fn wire_format_of_votes_is_stable() {
    let vote = Vote::Owner { epoch: 3, hold: Hold::For(Duration::from_micros(25_000)) };
    let bytes = asked(&TrunkQuestion::Vote { group: 9, vote });
    assert_eq!(bytes[..4], [0xE1, 2, 11, 0]);
    assert_eq!(bytes[24..32], [1, 0, 0, 0, 0, 0, 0x61, 0xa8]);
    assert_eq!(bytes[32..40], 3u64.to_be_bytes());
    assert_eq!(bytes[40..48], [0; 8]);
    assert_eq!(bytes[48..56], [0, 0, 0, 9, 0, 0, 0, 0]);
    let voted = Voted { epoch: 3, promised: 4, heard: None, instance: 5 };
    let answer = answered(&TrunkAnswer::Vote(voted));
    assert_eq!(answer[24..32], 3u64.to_be_bytes());
    assert_eq!(answer[32..40], 4u64.to_be_bytes());
    assert_eq!(answer[40..48], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 5]);
    assert!(answer.len() < bytes.len(), "an answer is shorter than its question");
}

#[test]
fn only_questions_have_an_owner() {
    let forged = |owner: GroupOwner, direction| {
        let mut bytes = Vec::new();
        write_head(PROBE, direction, &secret(), NONCE, NOW_US, &mut bytes);
        write_owner(owner, 0, &mut bytes);
        bytes.extend_from_slice(&[0; 16]);
        sign(&secret(), 0, &mut bytes);
        bytes
    };
    let read = TrunkQuestion::read(&forged(OWNER, QUESTION), &secret(), NOW_US);
    assert_eq!(read.unwrap().owner, Some(OWNER));
    let nameless = forged(GroupOwner { epoch: 0, ..OWNER }, QUESTION);
    assert_eq!(TrunkQuestion::read(&nameless, &secret(), NOW_US), Err(MessageError::Unknown));
    let answer = TrunkAnswer::read(&forged(OWNER, ANSWER), &secret(), NOW_US);
    assert_eq!(answer, Err(MessageError::Version(3)));
}

#[test]
fn wire_format_of_keep_is_stable() {
    let bytes = asked(&TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: tags(3) });
    assert_eq!(bytes[..4], [0xE1, 2, 5, 0]);
    assert_eq!(bytes[24..32], [0, 30, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[32..40], 1u64.to_be_bytes());
    assert_eq!(bytes[48..56], 3u64.to_be_bytes());
    assert_eq!(bytes.len(), 24 + 8 + 3 * 8 + 32);
    assert_eq!(
        asked(&TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: tags(KEEP_MAX) }).len(),
        1_200
    );
    let answer = answered(&TrunkAnswer::Keep { unknown: tags(2) });
    assert_eq!(answer[..4], [0xE1, 2, 5, 1]);
    assert_eq!(answer[24..32], 1u64.to_be_bytes());
    assert_eq!(answer.len(), 24 + 2 * 8 + 32);
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let shortest = questions().iter().map(|question| asked(question).len()).min().unwrap();
    for answer in answers().iter().filter(|answer| !matches!(answer, TrunkAnswer::Vote(_))) {
        assert!(answered(answer).len() <= shortest, "{answer:?}");
    }
    for padding in [0, 1, 1_328] {
        let question = asked(&TrunkQuestion::Path { bundle_max: 1_400, padding }).len();
        assert_eq!(question, PATH_LEN_MIN + usize::from(padding));
        assert_eq!(
            answered(&TrunkAnswer::Path { padding }).len(),
            question,
            "both directions are probed"
        );
    }
    // The answer may list all tags of the question.
    for count in 1..=KEEP_MAX {
        let question =
            asked(&TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: tags(count) });
        assert!(answered(&TrunkAnswer::Keep { unknown: tags(count) }).len() <= question.len());
    }
}

#[test]
fn any_changed_bit_is_refused() {
    let owned = asked_by_owner(&TrunkQuestion::Drain);
    for bytes in questions().iter().map(asked).chain([owned]) {
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(TrunkQuestion::read(&changed, &secret(), NOW_US).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(TrunkQuestion::read(&bytes[..length], &secret(), NOW_US).is_err());
        }
    }
}

#[test]
fn refusals_name_their_reason() {
    let bytes = asked(&TrunkQuestion::Probe);
    let with = |index: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[index] = value;
        TrunkQuestion::read(&changed, &secret(), NOW_US)
    };
    assert_eq!(with(0, 0xE0), Err(MessageError::Length));
    assert_eq!(with(1, 1), Err(MessageError::Version(1)));
    assert_eq!(with(24, 1), Err(MessageError::Forged));
    let other = NodeSecret::new(b"another secret, as long", "east-a1").unwrap();
    assert_eq!(TrunkQuestion::read(&bytes, &other, NOW_US), Err(MessageError::Key(secret().id)));
    assert_eq!(TrunkAnswer::read(&bytes, &secret(), NOW_US), Err(MessageError::Direction));
    let answer = answered(&answers()[0]);
    assert_eq!(TrunkQuestion::read(&answer, &secret(), NOW_US), Err(MessageError::Direction));
}

#[test]
fn message_for_another_node_is_refused() {
    let bytes = b"a secret of many bytes";
    for name in ["east-a2", "east-a", "east-a11", ""] {
        let other = NodeSecret::new(bytes, name).unwrap();
        assert_eq!(other.id, secret().id, "the secret is the same");
        for question in questions() {
            assert_eq!(
                TrunkQuestion::read(&asked(&question), &other, NOW_US),
                Err(MessageError::Forged)
            );
        }
        for answer in answers() {
            assert_eq!(
                TrunkAnswer::read(&answered(&answer), &other, NOW_US),
                Err(MessageError::Forged)
            );
        }
    }
}

#[test]
fn reflected_message_is_refused() {
    let probe = forge(PROBE, QUESTION, &[0; 16]);
    let mut turned = probe.clone();
    turned[3] = ANSWER;
    assert_eq!(TrunkAnswer::read(&probe, &secret(), NOW_US), Err(MessageError::Direction));
    assert_eq!(TrunkAnswer::read(&turned, &secret(), NOW_US), Err(MessageError::Forged));
    let drained = answered(&answers()[2]);
    assert_eq!(TrunkQuestion::read(&drained, &secret(), NOW_US), Err(MessageError::Direction));
}

#[test]
fn signature_is_stable() {
    let bytes = asked(&TrunkQuestion::Probe);
    let mac: String = bytes[40..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(mac, "59c63f3de083fd8dbc0a15ac302ac3e7d0abbd1da035791770ce72bc302ebeef");
}

#[test]
fn messages_are_accepted_within_five_seconds() {
    let bytes = asked(&TrunkQuestion::Probe);
    for (now_us, believed) in [
        (NOW_US - SKEW_MAX_US, true),
        (NOW_US + SKEW_MAX_US, true),
        (NOW_US - SKEW_MAX_US - 1, false),
        (NOW_US + SKEW_MAX_US + 1, false),
    ] {
        let read = TrunkQuestion::read(&bytes, &secret(), now_us);
        assert_eq!(read.is_ok(), believed);
        if !believed {
            let ahead_us = if now_us < NOW_US { 5_000_001 } else { -5_000_001 };
            assert_eq!(read, Err(MessageError::Time { ahead_us }));
        }
    }
}

#[test]
fn node_accepts_each_message_once() {
    let mut replays = Replays::default();
    let mut read = |bytes: &[u8]| TrunkQuestion::read_once(bytes, &secret(), NOW_US, &mut replays);
    let kill = asked(&TrunkQuestion::Break(NodeFault::Kill));
    assert_eq!(read(&kill).unwrap().message, TrunkQuestion::Break(NodeFault::Kill));
    assert_eq!(read(&kill), Err(MessageError::Replayed));
    assert!(
        read(&asked(&TrunkQuestion::Break(NodeFault::Wake))).is_ok(),
        "another message of the same time"
    );
}

#[test]
fn refused_messages_are_not_remembered() {
    let mut replays = Replays::default();
    let bytes = asked(&TrunkQuestion::Start);
    let mut forged = bytes.clone();
    forged[30] ^= 1;
    let mut read = |bytes: &[u8]| TrunkQuestion::read_once(bytes, &secret(), NOW_US, &mut replays);
    assert_eq!(read(&forged), Err(MessageError::Forged));
    assert!(read(&bytes).is_ok());
}

/// Builds a message with a valid signature over `kind` and `body`.
fn forge(kind: u8, direction: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_head(kind, direction, &secret(), NONCE, NOW_US, &mut bytes);
    bytes.extend_from_slice(body);
    sign(&secret(), 0, &mut bytes);
    bytes
}

#[test]
fn signed_nonsense_is_refused() {
    let read = |bytes: &[u8]| TrunkQuestion::read(bytes, &secret(), NOW_US).unwrap_err();
    assert_eq!(read(&forge(0, QUESTION, &[0; 16])), MessageError::Unknown);
    assert_eq!(read(&forge(10, QUESTION, &[0; 16])), MessageError::Unknown);
    assert_eq!(read(&forge(VOTE, QUESTION, &[0; 32])), MessageError::Unknown);
    assert_eq!(read(&forge(VOTE, QUESTION, &[1; 31])), MessageError::Length);
    assert_eq!(read(&forge(BREAK, QUESTION, &[5; 16])), MessageError::Unknown);
    assert_eq!(read(&forge(PROBE, QUESTION, &[0; 15])), MessageError::Length);
    assert_eq!(read(&forge(PROBE, QUESTION, &[0; 17])), MessageError::Length);
    for length in [0, 1, 7, 8, 15, 17, 23, 8 + KEEP_MAX * 8 + 1, 8 + KEEP_MAX * 8 + 8] {
        assert_eq!(
            read(&forge(KEEP, QUESTION, &vec![0; length])),
            MessageError::Length,
            "{length}"
        );
    }
    assert_eq!(read(&forge(PATH, QUESTION, &[0; 15])), MessageError::Length);
    assert_eq!(read(&forge(PATH, QUESTION, &[1; 17])), MessageError::Unknown);
    let read = |bytes: &[u8]| TrunkAnswer::read(bytes, &secret(), NOW_US).unwrap_err();
    assert_eq!(read(&forge(10, ANSWER, &[0; 7])), MessageError::Unknown);
    for length in [1, 7, 9, KEEP_MAX * 8 + 1, KEEP_MAX * 8 + 8] {
        assert_eq!(read(&forge(KEEP, ANSWER, &vec![0; length])), MessageError::Length, "{length}");
    }
    assert_eq!(read(&forge(PROBE, ANSWER, &[0, 0, 3, 0, 0, 0, 0])), MessageError::Unknown);
    assert_eq!(read(&forge(OPEN, ANSWER, &[0, 0, 0, 0, 0, 0, 0, 1, 6])), MessageError::Unknown);
    assert_eq!(read(&forge(BREAK, ANSWER, &[3])), MessageError::Unknown);
    assert_eq!(read(&forge(OPEN, ANSWER, &[0; 8])), MessageError::Length);
    assert_eq!(read(&forge(VOTE, ANSWER, &[0; 23])), MessageError::Length);
}

/// Kind, direction and body of messages signed with the secret, as a node that was taken over sends
/// them.
#[test]
fn fuzz_message() {
    let seed = |message: Vec<u8>| {
        let body = &message[HEAD_LEN..message.len() - MAC_LEN];
        [&message[2..4], body].concat()
    };
    let questions = questions().into_iter().map(|question| seed(asked(&question)));
    let answers = answers().into_iter().map(|answer| seed(answered(&answer)));
    let corpus = questions.chain(answers).fold(Corpus::of("message"), Corpus::with);
    corpus.check(|bytes| {
        assert!(TrunkQuestion::read(bytes, &secret(), NOW_US).is_err());
        assert!(TrunkAnswer::read(bytes, &secret(), NOW_US).is_err());
        if let Some(refusal) = ClockRefusal::read(bytes) {
            let mut written = Vec::new();
            refusal.write(&mut written);
            assert_eq!(ClockRefusal::read(&written), Some(refusal));
        }
        let [kind, direction, body @ ..] = bytes else { return };
        let message = forge(*kind, *direction, body);
        if let Ok(question) = TrunkQuestion::read(&message, &secret(), NOW_US) {
            let again = asked(&question.message);
            assert_eq!(again.len(), message.len());
            assert_eq!(TrunkQuestion::read(&again, &secret(), NOW_US).as_ref(), Ok(&question));
        }
        if let Ok(answer) = TrunkAnswer::read(&message, &secret(), NOW_US) {
            assert_eq!(answered(&answer.message), message);
        }
        let late = TrunkQuestion::read(&message, &secret(), NOW_US + SKEW_MAX_US + 1);
        if let Some(refusal) =
            late.err().and_then(|refused| ClockRefusal::of(&message, refused, NOW_US))
        {
            let mut written = Vec::new();
            refusal.write(&mut written);
            assert!(written.len() < message.len(), "a refusal is shorter than its question");
        }
    });
}

#[test]
fn secret_excludes_the_line_end() {
    let plain = secret();
    for file in [&b"a secret of many bytes\n"[..], b"a secret of many bytes\r\n"] {
        let read = NodeSecret::new(file, "east-a1").unwrap();
        assert_eq!(read.id, plain.id);
        assert!(TrunkQuestion::read(&asked(&TrunkQuestion::Probe), &read, NOW_US).is_ok());
    }
}

#[test]
fn short_secret_is_refused() {
    assert!(NodeSecret::new(&[7; 16], "n").is_ok());
    assert_eq!(NodeSecret::new(&[7; 15], "n").unwrap_err(), TooShort { length: 15 });
    assert_eq!(NodeSecret::new(b"123456789012345\n", "n").unwrap_err(), TooShort { length: 15 });
}

#[test]
fn secrets_and_tags_are_hidden_in_debug_output() {
    assert!(!format!("{:?}", secret()).contains("many"));
    assert_eq!(format!("{:?}", Tag(0x1234_5678_9abc_def0)), "Tag(1234…)");
}
