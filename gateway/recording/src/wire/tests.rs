use super::*;

#[test]
fn numbers_of_every_length_round_trip() {
    for shift in 0..64 {
        for number in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(FrameInput::new(&out).number("number"), Ok(number));
            for signed in [number as i64, (number as i64).wrapping_neg()] {
                let mut out = Vec::new();
                put_signed(&mut out, signed);
                assert_eq!(FrameInput::new(&out).signed("number"), Ok(signed));
            }
        }
    }
}

#[test]
fn number_of_more_than_64_bits_is_refused() {
    let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(FrameInput::new(&[&longest[..], &[1]].concat()).number("number"), Ok(u64::MAX));
    assert!(FrameInput::new(&[&longest[..], &[2]].concat()).number("number").is_err());
    assert!(FrameInput::new(&[&longest[..], &[0x81, 0]].concat()).number("number").is_err());
    assert!(FrameInput::new(&longest).number("number").is_err());
}

#[test]
fn count_beyond_the_input_is_refused() {
    assert_eq!(FrameInput::new(&[2, 7, 7]).count("rows"), Ok(2));
    assert!(FrameInput::new(&[3, 7, 7]).count("rows").is_err());
    assert!(FrameInput::new(&[2, 7]).bytes("blob").is_err());
}

#[test]
fn decoded_size_is_bounded() {
    let mut read = FrameInput::new(&[]);
    assert!(read.charge("state", DECODED_BYTES_MAX).is_ok());
    assert!(read.charge("state", 1).is_err());
}
