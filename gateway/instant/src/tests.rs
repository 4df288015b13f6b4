use super::*;

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct Record {
    #[serde(with = "super")]
    at: Instant,
    #[serde(with = "option")]
    before: Option<Instant>,
    #[serde(with = "paired")]
    rated: Option<(u8, Instant)>,
}

#[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
fn record() -> Record {
    let at = Instant::now() + Duration::from_secs(1_000);
    Record {
        at,
        before: Some(at - Duration::from_millis(7)),
        rated: Some((3, at + Duration::from_nanos(1))),
    }
}

#[test]
fn instants_move_with_the_reference() {
    let record = record();
    for (at, other) in [(record.at, 5), (record.at + Duration::from_secs(9), 0)] {
        let bytes = relative_to(at, || rmp_serde::to_vec_named(&record).unwrap());
        let shift = |at: Instant| at + Duration::from_secs(other);
        let read: Record = relative_to(shift(at), || rmp_serde::from_slice(&bytes).unwrap());
        let expected = Record {
            at: shift(record.at),
            before: record.before.map(shift),
            rated: record.rated.map(|(value, at)| (value, shift(at))),
        };
        assert_eq!(read, expected);
    }
}

#[test]
fn absent_instants_remain_absent() {
    let record = Record { before: None, rated: None, ..record() };
    let bytes = relative_to(record.at, || rmp_serde::to_vec_named(&record).unwrap());
    let read: Record = relative_to(record.at, || rmp_serde::from_slice(&bytes).unwrap());
    assert_eq!(read, record);
}

#[test]
fn instant_without_a_reference_is_refused() {
    let record = record();
    assert!(rmp_serde::to_vec_named(&record).is_err());
    let bytes = relative_to(record.at, || rmp_serde::to_vec_named(&record).unwrap());
    assert!(rmp_serde::from_slice::<Record>(&bytes).is_err(), "only within the call");
}
