//! Calls of phones with SDES keys: their SRTP ends at the gateway.

use std::sync::Arc;

use evenkeel_control::SessionAnswer;
use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_lab::client::SrtpEndpoint;
use evenkeel_media::srtp::{CryptoAttribute, SrtpKey, SrtpKeys, SrtpProfile};
use evenkeel_model::{MediaDescription, Metric, Srtp};

use crate::harness::{
    Gateway, Node, Phone, World, assert_continuous, declared, offer, talk, talk_by, udp_of,
    wait_until,
};

const REASONS: [&str; 3] = ["srtp-forged", "srtp-replayed", "srtp-index"];

/// Opens a session of a phone that encrypts.
fn open(gateway: &Gateway, phone: &mut Phone, profile: SrtpProfile) -> SessionAnswer {
    let number = phone.number as u8;
    let key = SrtpKey::generate(profile, |bytes| bytes.fill(number));
    let client = Ok(CryptoAttribute { tag: 1, key });
    let keys = SrtpKeys::accept([client], |bytes| bytes.fill(!number)).unwrap();
    let mut wanted = offer("room", declared(phone));
    let media = MediaDescription { srtp: Srtp::Terminated, ..(*wanted.media).clone() };
    (wanted.media, wanted.srtp) = (Arc::new(media), Some(SrtpKeying::Sdes(Arc::new(keys.clone()))));
    let opened = gateway.open(wanted);
    phone.set_target(udp_of(&opened));
    phone.srtp = Some(SrtpEndpoint::new(&keys).into());
    opened
}

#[test]
fn encrypted_call_survives_its_node() {
    let mut nodes = ["east-a1", "east-b1", "west-a1"].map(Node::agent);
    let gateway = World::of(&nodes.each_ref()).start();
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    (ann.sends_video, bob.sends_video) = (true, true);
    let opened = open(&gateway, &mut ann, SrtpProfile::AeadAes256Gcm);
    let second = gateway.open(offer("room", declared(&bob)));
    bob.set_target(udp_of(&second));
    let (first, next) = (opened.route[0].node.0 as usize, opened.route[1].node.0 as usize);
    talk_by(&mut [&mut ann, &mut bob], "both hear", nodes[first].number());
    ann.report_loss(&[ann.heard.last().unwrap().clone()], 64);
    wait_until("the report of the encrypted phone is read", || {
        let sessions = gateway.ask(gateway.handle.sessions()).unwrap();
        let of_ann = sessions.iter().find(|session| session.state.session == opened.session);
        of_ann.unwrap().state.measures.measured(Metric::LossDown) == Some(250_000)
    });
    nodes[first].die();
    talk_by(&mut [&mut ann, &mut bob], "both hear by the other node", nodes[next].number());
    for stream in [0, 1] {
        assert_continuous(&ann.heard_from(2, stream));
        assert_continuous(&bob.heard_from(1, stream));
    }
    assert_eq!(REASONS.map(|reason| gateway.drops(reason)), [0; 3]);
}

#[test]
fn forged_packets_do_not_reach_the_call() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    open(&gateway, &mut ann, SrtpProfile::Aes128CmHmacSha1Tag80);
    open(&gateway, &mut bob, SrtpProfile::Aes128CmHmacSha1Tag32);
    let mut hear = |what: &str| {
        let before = [ann.heard.len(), bob.heard.len()];
        talk(&mut [&mut ann, &mut bob], what, |phones| {
            [0, 1].iter().all(|&phone| phones[phone].heard.len() >= before[phone] + 25)
        });
    };
    hear("both hear");
    let keys = ann.srtp.take();
    for _ in 0..20 {
        ann.send_media();
    }
    ann.srtp = keys;
    wait_until("plain packets are counted", || gateway.drops("srtp-forged") == 20);
    talk(&mut [&mut ann, &mut bob], "the call goes on", |phones| {
        phones[1].voice.sent >= 60 && phones[1].audio_from(1) >= 50
    });
    let sent_plain = 20;
    assert!(bob.audio_from(1) as u64 <= ann.voice.sent - sent_plain);
    assert!(ann.other.is_empty() && bob.other.is_empty());
}
