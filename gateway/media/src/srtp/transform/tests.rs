use super::*;
use crate::srtp::SrtpProfile;
use data_encoding::HEXLOWER;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    HEXLOWER.decode(digits.as_bytes()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// The key stream of a session salt with SSRC 0 and index 0, from this block on.
fn key_stream(key: &str, block: u128, blocks: usize) -> Vec<String> {
    let salt = *left_aligned(&bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfd"));
    let mut stream = vec![0; 16 * blocks];
    CounterCipher::new(&bytes(key)).apply(salt + block, &mut stream);
    stream.chunks(16).map(hex).collect()
}

#[test]
fn rfc3711_b2_aes_cm_key_stream() {
    const KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";
    let stream = key_stream(KEY, 0, 0xff02);
    assert_eq!(stream[0], "e03ead0935c95e80e166b16dd92b4eb4");
    assert_eq!(stream[1], "d23513162b02d0f72a43a2fe4a5f97ab");
    assert_eq!(stream[2], "41e95b3bb0a2e8dd477901e4fca894c0");
    assert_eq!(stream[0xfeff], "ec8cdf7398607cb0f2d21675ea9ea1e4");
    assert_eq!(stream[0xff00], "362b7c3c6773516318a077d7fc5073ae");
    assert_eq!(stream[0xff01], "6a2cc3787889374fbeb4c81b17ba6c44");
    assert_eq!(key_stream(KEY, 0xff00, 2), stream[0xff00..]);
}

#[test]
fn rfc6188_7_1_aes_256_cm_key_stream() {
    const KEY: &str = "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98";
    let stream = key_stream(KEY, 0, 0xff02);
    assert_eq!(stream[0], "92bdd28a93c3f52511c677d08b5515a4");
    assert_eq!(stream[1], "9da71b2378a854f67050756ded165bac");
    assert_eq!(stream[2], "63c4868b7096d88421b563b8c94c9a31");
    assert_eq!(stream[0xfeff], "cea518c90fd91ced9cbb18c078a54711");
    assert_eq!(stream[0xff00], "3dbc4814f4da5f00a08772b63c6a046d");
    assert_eq!(stream[0xff01], "6eb246913062a16891433e97dd01a57f");
}

/// Derives the session keys of RTP as the tests of the RFCs list them: cipher key, cipher salt, authentication key.
fn derived(key: &str, salt: &str, authentication_len: usize) -> [String; 3] {
    let cipher = CounterCipher::new(&bytes(key));
    let salt = *left_aligned(&bytes(salt));
    let lengths = [key.len() / 2, 14, authentication_len];
    let labels = [RTP_LABELS, RTP_LABELS + 2, RTP_LABELS + 1];
    std::array::from_fn(|at| {
        let mut output = vec![0; lengths[at]];
        cipher.apply(salt ^ u128::from(labels[at]) << 64, &mut output);
        hex(&output)
    })
}

/// Compares the packets under these session keys with those under the keys derived from `master`.
fn assert_derived(profile: SrtpProfile, master: [&str; 2], session: &[String; 3]) {
    let [key, salt] = master.map(bytes);
    let keys = SessionKeys::derive(&SrtpKey::new(profile, &key, &salt).unwrap());
    let [key, salt, authentication] = session.each_ref().map(|key| bytes(key));
    let given = PacketKey::cm(&key, &salt, &authentication[..AUTHENTICATION_KEY_LEN], 10);
    let at = PacketIndex { ssrc: 0xcafe_babe, index: 0x1234 };
    let [mut expected, mut found] = [[7; 60]; 2];
    given.seal_rtp(&mut expected, 12, at);
    keys.rtp.seal_rtp(&mut found, 12, at);
    assert_eq!(hex(&found), hex(&expected));
}

#[test]
fn rfc3711_b3_key_derivation() {
    let master = ["e1f97a0d3e018be0d64fa32c06de4139", "0ec675ad498afeebb6960b3aabe6"];
    let keys = derived(master[0], master[1], 94);
    assert_eq!(keys[0], "c61e7a93744f39ee10734afe3ff7a087");
    assert_eq!(keys[1], "30cbbc08863d8c85d49db34a9ae1");
    let authentication = "
        cebe321f6ff7716b6fd4ab49af256a15 6d38baa48f0a0acf3c34e2359e6cdbce
        e049646c43d9327ad175578ef7227098 6371c10c9a369ac2f94a8c5fbcdddc25
        6d6e919a48b610ef17c2041e47403576 6b68642c59bbfc2f34db60dbdfb2";
    assert_eq!(keys[2], hex(&bytes(authentication)));
    assert_derived(SrtpProfile::Aes128CmHmacSha1Tag80, master, &keys);
}

#[test]
fn rfc6188_7_2_key_derivation() {
    let master = [
        "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6",
        "3b04803de51ee7c96423ab5b78d2",
    ];
    let keys = derived(master[0], master[1], 20);
    assert_eq!(keys[0], "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4");
    assert_eq!(keys[1], "fa31791685ca444a9e07c6c64e93");
    assert_eq!(keys[2], "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05");
    assert_derived(SrtpProfile::Aes256CmHmacSha1Tag80, master, &keys);
}

/// Session keys and packets of RFC 7714, sections 16 and 17.
const KEYS: [&str; 2] = [
    "000102030405060708090a0b0c0d0e0f",
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
];
const SALT: &str = "517569642070726f2071756f";
const RTP: &str = "
    8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
    69736120 696e2070 61727465 73207472 6573";
const RTP_AT: PacketIndex = PacketIndex { ssrc: 0x5501_a0b2, index: 0xf17b };
const RTCP: &str = "
    81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
    deadbeef deadbeef deadbeef deadbeef deadbeef";
const RTCP_AT: PacketIndex = PacketIndex { ssrc: 0x4d61_7273, index: 0x5d4 };

/// Protects the RTP packet after a header of this length, and unprotects it again.
fn assert_sealed_rtp(key: &str, header_len: usize, expected: &str) {
    let gcm = PacketKey::gcm(&bytes(key), &bytes(SALT));
    let plain = bytes(RTP);
    let mut packet = plain.clone();
    packet.resize(plain.len() + 16, 0);
    gcm.seal_rtp(&mut packet, header_len, RTP_AT);
    assert_eq!(hex(&packet), hex(&bytes(expected)));
    assert_eq!(gcm.open_rtp(&mut packet, header_len, RTP_AT), Ok(plain.len()));
    assert_eq!(packet[..plain.len()], plain);
}

fn assert_opened_rtcp(gcm: &PacketKey, mut packet: Vec<u8>) {
    let plain = bytes(RTCP);
    let word = gcm.rtcp_word(&packet).unwrap();
    assert_eq!(word.index(), RTCP_AT.index);
    assert_eq!(gcm.open_rtcp(&mut packet, word, RTCP_AT), Ok(plain.len()));
    assert_eq!(packet[..plain.len()], plain);
}

#[test]
fn rfc7714_16_srtp_encryption_and_tagging() {
    assert_sealed_rtp(
        KEYS[0],
        12,
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
         0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
    );
    assert_sealed_rtp(
        KEYS[1],
        12,
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
         9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
    );
}

/// The whole packet is associated data, as if it were a header.
#[test]
fn rfc7714_16_srtp_tagging_only() {
    let length = bytes(RTP).len();
    assert_sealed_rtp(KEYS[0], length, &format!("{RTP} 22493f82d2bce397e9d79e3b19aa4216"));
    assert_sealed_rtp(KEYS[1], length, &format!("{RTP} a866d5910f887463067ceefec45215d4"));
}

#[test]
fn rfc7714_17_srtcp_encryption_and_tagging() {
    let expected = [
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1
         730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1
         110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
    ];
    for (key, expected) in KEYS.into_iter().zip(expected) {
        let gcm = PacketKey::gcm(&bytes(key), &bytes(SALT));
        let mut packet = bytes(RTCP);
        packet.resize(packet.len() + 20, 0);
        gcm.seal_rtcp(&mut packet, RTCP_AT);
        assert_eq!(hex(&packet), hex(&bytes(expected)));
        assert_opened_rtcp(&gcm, packet);
    }
}

#[test]
fn rfc7714_17_srtcp_tagging_only() {
    let tags = ["841dd9683dd78ec92ae58790125f62b3", "91db4afbfeee5a978fab4393ed2615fe"];
    for (key, tag) in KEYS.into_iter().zip(tags) {
        let gcm = PacketKey::gcm(&bytes(key), &bytes(SALT));
        assert_opened_rtcp(&gcm, bytes(&format!("{RTCP} {tag} 000005d4")));
    }
}

/// The tag of a packet that is authenticated only (RFC 3711, 3.4), computed with a key of this test.
#[test]
fn unencrypted_srtcp_is_verified_under_hmac() {
    let cm = PacketKey::cm(&[1; 16], &[2; 14], &[3; 20], 10);
    let mut packet = bytes(&format!("{RTCP} 000005d4"));
    let mac = Hmac::<Sha1>::new_from_slice(&[3; 20]).unwrap().chain_update(&packet);
    packet.extend_from_slice(&mac.finalize().as_bytes()[..10]);
    assert_opened_rtcp(&cm, packet.clone());
    let word = cm.rtcp_word(&packet).unwrap();
    packet[20] ^= 1;
    assert_eq!(cm.open_rtcp(&mut packet, word, RTCP_AT), Err(SrtpError::Forged));
}

#[test]
fn debug_contains_no_key() {
    let keys = [PacketKey::gcm(&[1; 16], &[1; 12]), PacketKey::cm(&[1; 16], &[1; 14], &[1; 20], 4)];
    let text = format!("{keys:?}");
    assert_eq!(text, "[PacketKey { tag_len: 16, .. }, PacketKey { tag_len: 4, .. }]");
}
