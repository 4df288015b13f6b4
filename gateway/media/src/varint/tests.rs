use super::*;

#[test]
fn rfc_examples_are_read() {
    let examples: [(&[u8], u64); 5] = [
        (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
        (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
        (&[0x7b, 0xbd], 15_293),
        (&[0x25], 37),
        (&[0x40, 0x25], 37),
    ];
    for (bytes, value) in examples {
        assert_eq!(read(bytes), Some((value, bytes.len())));
    }
}

#[test]
fn values_at_each_size_limit_round_trip() {
    for (value, length) in [
        (0, 1),
        (0x3f, 1),
        (0x40, 2),
        (0x3fff, 2),
        (0x4000, 4),
        (0x3fff_ffff, 4),
        (0x4000_0000, 8),
        (MAX, 8),
    ] {
        let mut bytes = Vec::new();
        assert_eq!(write(value, &mut bytes), Ok(length));
        assert_eq!(bytes.len(), length);
        bytes.push(0xff);
        assert_eq!(read(&bytes), Some((value, length)));
        assert_eq!(read(&bytes[..length - 1]), None, "cut of {value}");
    }
}

#[test]
fn values_beyond_62_bits_are_refused() {
    let mut bytes = Vec::new();
    assert_eq!(write(MAX + 1, &mut bytes), Err(TooLarge(MAX + 1)));
    assert!(bytes.is_empty());
    assert_eq!(size(u64::MAX), None);
}
