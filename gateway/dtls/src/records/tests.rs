use super::*;

/// A record of epoch 0.
fn record(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7][..], &length, contents].concat()
}

/// A fragment with these bytes of a message of this length.
fn fragment(kind: u8, message_seq: u8, length: u8, offset: u8, bytes: &[u8]) -> Vec<u8> {
    let head = [kind, 0, 0, length, 0, message_seq, 0, 0, offset, 0, 0, bytes.len() as u8];
    [&head[..], bytes].concat()
}

fn is_usable(version: Version, record: &[u8]) -> bool {
    let all: Vec<_> = ClientRecords::of(record, version).collect();
    assert_eq!(all.len(), 1, "{record:?}");
    all == [ClientRecord::Usable(record)]
}

#[test]
fn messages_of_a_client_pass_with_their_numbers() {
    let usable = |version| -> Vec<(u8, u8)> {
        let all = (0..=25).flat_map(|kind| (0..6).map(move |number| (kind, number)));
        let is_usable = |(kind, number): &(u8, u8)| {
            is_usable(version, &record(HANDSHAKE, &fragment(*kind, *number, 9, 0, b"a part")))
        };
        all.filter(is_usable).collect()
    };
    assert_eq!(usable(Version::Dtls12), [(1, 0), (11, 1), (15, 3), (16, 2)]);
    assert_eq!(usable(Version::Dtls13), [(1, 0), (1, 1)]);
}

#[test]
fn fragments_fill_their_record_and_lie_in_their_message() {
    let usable = |contents: &[u8]| is_usable(Version::Dtls12, &record(HANDSHAKE, contents));
    let whole = fragment(11, 1, 6, 0, b"a part");
    assert!(usable(&whole) && usable(&[&whole[..], &fragment(16, 2, 1, 0, b"x")].concat()));
    assert!(usable(&fragment(11, 1, 8, 2, b"a part")));
    for wrong in [
        &b""[..],
        &[0; 8],
        &whole[..whole.len() - 1],
        &[&whole[..], &[0]].concat(),
        &[&whole[..], &fragment(2, 2, 0, 0, b"")].concat(),
        &fragment(11, 1, 7, 2, b"a part"),
        &fragment(1, 0, 9, 0, b""),
    ] {
        assert!(!usable(wrong), "{wrong:?}");
    }
}

#[test]
fn records_of_a_datagram_are_told_apart() {
    let hello = record(HANDSHAKE, &fragment(1, 0, 9, 0, b"a part"));
    let cipher = record(CHANGE_CIPHER_SPEC, &[1]);
    let alert = record(ALERT, &[2, 46]);
    let warnings = [record(ALERT, &[1, 90]), record(ALERT, &[2, 0]), record(ALERT, &[2])].concat();
    let mut encrypted = record(ALERT, &[7; 24]);
    encrypted[4] = 1;
    let cut = &hello[..20];
    let datagram = [&hello[..], &cipher, &alert, &warnings, &encrypted, cut].concat();
    let all = |version| ClientRecords::of(&datagram, version).collect::<Vec<_>>();
    let expected = |encrypted| {
        let start = [
            ClientRecord::Usable(&hello[..]),
            ClientRecord::ChangeCipherSpec(&cipher),
            ClientRecord::PlainAlert(46),
        ];
        let end = [encrypted, ClientRecord::Invalid];
        let warnings = (0..3).map(|_| ClientRecord::Invalid);
        start.into_iter().chain(warnings).chain(end).collect::<Vec<_>>()
    };
    assert_eq!(all(Version::Dtls12), expected(ClientRecord::Usable(&encrypted)));
    assert_eq!(all(Version::Dtls13), expected(ClientRecord::Invalid));
}

#[test]
fn encrypted_records_of_version_13_pass_in_one() {
    let datagram = [[0x2f; 30], [0x20; 30]].concat();
    assert!(is_usable(Version::Dtls13, &datagram));
    assert!(!is_usable(Version::Dtls12, &datagram));
}
