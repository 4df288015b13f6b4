//! Calls with SRTP on the legs.

use evenkeel_media::srtp::{CryptoAttribute, SrtpKey, SrtpProfile};

use super::*;

const NO_KEY: &str =
    "rtpengine answered without `a=crypto` of AEAD_AES_256_GCM, and the node has `srtp = \"sdes\"`";

/// `a=crypto` lines as rtpengine 10.5 offers them, all keys made of this byte.
fn lines(of: &[(u32, SrtpProfile)], byte: u8) -> Vec<String> {
    let line = |&(tag, profile): &(u32, SrtpProfile)| {
        let key = SrtpKey::generate(profile, |bytes| bytes.fill(byte));
        format!("a=crypto:{}\r\n", *CryptoAttribute { tag, key }.to_value())
    };
    let unknown =
        "a=crypto:9 F8_128_HMAC_SHA1_80 inline:uwfcpgVMUVCVqNd88580oFL0VqLN6MZFaoDFbBxL\r\n";
    of.iter().map(line).chain([unknown.to_owned()]).collect()
}

fn protected() -> Pair {
    let mut pair = Pair { srtp: NodeSrtp::Sdes, ..Pair::new() };
    pair.engine.source = LocalSource::Bound([10, 7, 0, 1].into());
    pair.turn_keys(1);
    pair
}

/// An opened or changed leg.
#[derive(Debug)]
struct Leg {
    session: u64,
    is_changed: bool,
    keys: Arc<SrtpKeys>,
}

impl Pair {
    /// The simulated rtpengine has these keys from now on.
    fn turn_keys(&mut self, byte: u8) {
        let (first, second) = (SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm);
        self.crypto = [lines(&[(1, first), (2, second)], byte), lines(&[(1, first)], byte + 1)];
    }

    fn legs(&mut self) -> Vec<Leg> {
        let leg = |act: DriverAction| match act {
            DriverAction::Opened { session, leg: NodeLeg::Srtp(leg), .. } => {
                Leg { session: session.0, is_changed: false, keys: leg.keys }
            }
            DriverAction::Changed { session, leg: NodeLeg::Srtp(leg), .. } => {
                Leg { session: session.0, is_changed: true, keys: leg.keys }
            }
            act => panic!("{act:?}"),
        };
        self.told.drain(..).map(leg).collect()
    }

    /// The attributes that the gateway has sent, by command.
    fn sent_keys(&mut self) -> Vec<(String, CryptoAttribute)> {
        let keys = self.asked.drain(..).filter(|(command, ..)| command != "delete");
        let of = |sdp: &str| {
            let line = sdp.lines().find_map(|line| line.strip_prefix("a=crypto:"));
            line.unwrap_or_else(|| panic!("no key in {sdp}")).parse().unwrap()
        };
        keys.map(|(command, _, sdp)| (command, of(&sdp))).collect()
    }

    /// Continues the calls at another process.
    fn continue_calls(&mut self, with_keys: bool) {
        let (hop, facts) = (self.hop(1), facts(4_000, None));
        let record = |session| self.engine.record_of(SessionId(session), hop, with_keys);
        let record: CallRecord = [7, 8].into_iter().find_map(record).unwrap();
        let bytes =
            evenkeel_instant::relative_to(self.now, || serde_json::to_vec(&record).unwrap());
        let record =
            evenkeel_instant::relative_to(self.now, || serde_json::from_slice(&bytes).unwrap());
        self.engine = RtpengineNode::new(NODE, ng(), self.engine.source);
        let known = ContinuedSession { hop: &|_, _| Some(hop), facts: &|_| Some(&facts) };
        self.engine.restore_call(record, &known, &mut || 99, self.now);
        self.asked.clear();
    }
}

#[test]
fn legs_have_keys_of_both_ends() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let [(offer, first), (answer, second)] = &pair.sent_keys()[..] else { panic!() };
    assert_eq!(
        (&**offer, first.tag, first.key.profile()),
        ("offer", 1, SrtpProfile::AeadAes128Gcm)
    );
    let second_side = (second.tag, second.key.profile());
    assert_eq!((&**answer, second_side), ("answer", (2, SrtpProfile::AeadAes256Gcm)));
    let [Leg { session: 7, is_changed: false, keys }] = &pair.legs()[..] else { panic!() };
    assert_eq!(keys.gateway, first.key);
    assert_eq!(keys.client, SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes| bytes.fill(2)));
}

#[test]
fn sdp_of_a_leg_with_keys_has_profile_savp() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    for (command, _, sdp) in &pair.asked {
        let medium = sdp.lines().find(|line| line.starts_with("m=")).unwrap();
        assert!(medium.contains(" RTP/SAVP "), "{command}: {medium}");
    }
    let asked = pair.sent.iter().map(|datagram| String::from_utf8_lossy(datagram).into_owned());
    assert!(asked.into_iter().all(|asked| asked.contains("4:DTLS3:off")));
}

#[test]
fn changed_sessions_are_another_call_with_new_keys() {
    let mut pair = protected();
    let mut seen: Vec<SrtpKey> = Vec::new();
    let mut expect = |pair: &mut Pair, expected: &[(u64, bool)]| {
        let legs = pair.legs();
        let found: Vec<_> = legs.iter().map(|leg| (leg.session, leg.is_changed)).collect();
        assert_eq!(found, expected);
        assert_eq!(pair.calls.len(), 1, "the call before is deleted");
        for leg in legs {
            assert!(!seen.contains(&leg.keys.gateway), "{:?} again", leg.session);
            seen.push(leg.keys.gateway.clone());
        }
    };
    pair.open(7, &facts(4_000, None));
    expect(&mut pair, &[(7, false)]);
    pair.open(8, &facts(5_000, None));
    expect(&mut pair, &[(7, true), (8, false)]);
    pair.close(7);
    expect(&mut pair, &[(8, true)]);
    pair.open(7, &facts(4_000, None));
    expect(&mut pair, &[(7, false), (8, true)]);
    pair.close(7);
    pair.close(8);
    pair.told.clear();
    assert!(pair.calls.is_empty() && pair.engine.calls.is_empty());
}

#[test]
fn refresh_repeats_the_keys() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let (before, legs) = (pair.sent_keys(), pair.legs());
    pair.pass(15_010);
    assert_eq!(pair.sent_keys(), before);
    assert_eq!((pair.legs().len(), pair.calls.len(), legs.len()), (0, 1, 1));
}

#[test]
fn restarted_rtpengine_gets_new_keys() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let before = pair.legs().remove(0).keys;
    pair.calls.clear();
    pair.turn_keys(5);
    pair.pass(15_010);
    let [Leg { session: 7, is_changed: true, keys }] = &pair.legs()[..] else { panic!() };
    assert!(keys.gateway != before.gateway && keys.client != before.client);
    assert_eq!(pair.calls.len(), 1, "the refreshed call is deleted again");
}

#[test]
fn renewed_keys_are_those_of_another_call() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    pair.open(8, &facts(5_000, None));
    let before: Vec<SrtpKey> =
        pair.legs().into_iter().map(|leg| leg.keys.gateway.clone()).collect();
    pair.asked.clear();
    let hop = pair.hop(1);
    // The worker repeats its report.
    pair.engine.renew_keys(SessionId(8), hop, pair.now);
    pair.engine.renew_keys(SessionId(7), hop, pair.now);
    pair.settle();
    assert_eq!(pair.commands(), ["offer", "answer", "delete"]);
    let legs = pair.legs();
    assert_eq!(
        legs.iter().map(|leg| (leg.session, leg.is_changed)).collect::<Vec<_>>(),
        [(7, true), (8, true)]
    );
    assert!(legs.iter().all(|leg| !before.contains(&leg.keys.gateway)));
}

#[test]
fn keys_are_renewed_once_a_second() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let (hop, start) = (pair.hop(1), pair.now);
    let renewed = |pair: &mut Pair, after: Duration| {
        pair.asked.clear();
        pair.now = start + after;
        pair.engine.renew_keys(SessionId(7), hop, pair.now);
        pair.settle();
        !pair.commands().is_empty()
    };
    assert!(renewed(&mut pair, MS));
    assert!(!renewed(&mut pair, 2 * MS));
    assert!(!renewed(&mut pair, RENEWAL_INTERVAL));
    assert!(renewed(&mut pair, RENEWAL_INTERVAL + MS));
}

#[test]
fn refused_join_leaves_the_open_call() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let (before, legs) = (pair.sent_keys(), pair.legs());
    pair.says = Some("d12:error-reason12:Out of ports6:result5:errore");
    pair.open(8, &facts(5_000, None));
    assert_eq!((pair.told(), legs.len()), (vec![said(8, "Out of ports")], 1));
    pair.says = None;
    pair.asked.clear();
    pair.pass(15_010);
    assert_eq!(pair.sent_keys(), before, "a refresh");
    assert_eq!(pair.legs().len(), 0);
}

#[test]
fn failed_renewal_after_a_leave_is_tried_again() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    pair.open(8, &facts(5_000, None));
    let before = pair.legs().pop().unwrap().keys;
    pair.says = Some("d12:error-reason12:Out of ports6:result5:errore");
    pair.close(7);
    assert_eq!(pair.legs().len(), 0);
    pair.says = None;
    pair.pass(15_010);
    let [Leg { session: 8, is_changed: true, keys }] = &pair.legs()[..] else { panic!() };
    assert_ne!(keys.gateway, before.gateway);
}

#[test]
fn session_reopened_during_a_refresh_gets_new_keys() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let before = pair.legs().remove(0).keys;
    pair.now += TELL_AGAIN;
    let Some(DriverAction::Send { bytes: datagram, .. }) = pair.engine.poll(clock(pair.now)) else {
        panic!()
    };
    pair.engine.close(SessionId(7), pair.hop(1), clock(pair.now));
    pair.open_in(1, 7, 1, &facts(4_000, None));
    let answer = pair.daemon(&datagram).unwrap();
    pair.engine.handle_datagram(&answer, pair.now);
    pair.settle();
    let [Leg { session: 7, is_changed: false, keys }] = &pair.legs()[..] else { panic!() };
    assert_ne!(keys.gateway, before.gateway);
}

#[test]
fn sdp_without_key_is_refused_by_name() {
    let mut pair = protected();
    pair.crypto = Default::default();
    pair.open(7, &facts(4_000, None));
    assert_eq!(pair.told(), [said(7, NO_KEY)]);
    pair.turn_keys(1);
    pair.crypto[1].clear();
    pair.open(8, &facts(4_000, None));
    assert_eq!(pair.told(), [said(8, &NO_KEY.replace("256", "128"))]);
    assert!(pair.calls.is_empty(), "{:?}", pair.calls);
}

#[test]
fn next_process_of_the_host_goes_on_with_the_keys() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let before = pair.sent_keys();
    pair.legs();
    pair.continue_calls(true);
    pair.pass(15_010);
    assert_eq!(pair.sent_keys(), before, "a refresh");
    assert_eq!(pair.legs().len(), 0);
}

#[test]
fn standby_opens_another_call_with_other_keys() {
    let mut pair = protected();
    pair.open(7, &facts(4_000, None));
    let before = pair.legs().remove(0).keys;
    pair.continue_calls(false);
    pair.open(7, &facts(4_000, None));
    let [Leg { session: 7, is_changed: false, keys }] = &pair.legs()[..] else { panic!() };
    assert_ne!(keys.gateway, before.gateway);
    assert_eq!(pair.calls.len(), 1, "the owner's call is deleted");
}

#[test]
fn standby_deletes_calls_while_it_opens_others() {
    let mut pair = protected();
    let (hop, sessions, facts) = (pair.hop(1), 1..41, facts(4_000, None));
    let open = |pair: &mut Pair| {
        sessions.clone().for_each(|number| pair.open_in(number, number, 1, &facts));
        pair.settle();
    };
    open(&mut pair);
    let record = |session| pair.engine.record_of(SessionId(session), hop, false).unwrap();
    let records: Vec<CallRecord> = sessions.clone().map(record).collect();
    pair.engine = RtpengineNode::new(NODE, ng(), pair.engine.source);
    let known = ContinuedSession { hop: &|_, _| Some(hop), facts: &|_| Some(&facts) };
    for record in records {
        pair.engine.restore_call(record, &known, &mut || 99, pair.now);
    }
    pair.asked.clear();
    let (mut calls, mut most) = (pair.calls.len(), 0);
    open(&mut pair);
    for command in pair.commands() {
        match &*command {
            "offer" => calls += 1,
            "delete" => calls -= 1,
            _ => {}
        }
        most = most.max(calls);
    }
    assert_eq!((calls, most), (40, 40), "no room has ports of two calls");
}

#[test]
fn node_takes_no_session_whose_packets_it_cannot_read() {
    let wish = |srtp, client_srtp| OpenRequest {
        session: SessionId(7),
        home: Home { worker: 0, slot: 0, generation: 1 },
        room: RoomId(1),
        hop: Hop { node: NODE, incarnation: Incarnation(1) },
        address: None,
        rtcp_apart: false,
        client_srtp,
        srtp,
        facts: None,
    };
    let refused = |srtp, client_srtp| match wish(srtp, client_srtp).refusal()? {
        DriverAction::Refused { session: SessionId(7), unwilling: false, reason, .. } => {
            Some(reason.into_owned())
        }
        act => panic!("{act:?}"),
    };
    assert_eq!(refused(NodeSrtp::Sdes, Srtp::Terminated), None);
    assert_eq!(refused(NodeSrtp::Passthrough, Srtp::Opaque), None);
    for (srtp, client, name) in [
        (NodeSrtp::Sdes, Srtp::Opaque, "`srtp = \"sdes\"`"),
        (NodeSrtp::Passthrough, Srtp::Plain, "`srtp = \"passthrough\"`"),
    ] {
        let reason = refused(srtp, client).unwrap();
        assert!(reason.contains(name), "{reason}");
    }
}
