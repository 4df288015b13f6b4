//! The test vectors of the trunk protocol: the files in `docs/trunk/`, which `docs/trunk.md` describes. A program without the
//! code of this crate wrote them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::{
    ClockRefusal, MessageError, NodeFault, NodeLoad, NodeSecret, OpenStatus, OrderOutcome,
    ProcessReport, Replays, SKEW_MAX_US, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::seal::{GatewaySeal, NodeSeal};
use evenkeel_media::trunk::{
    Bundle, BundleError, GroupOwner, Hold, Tag, TrunkRepair, Vote, Voted, entries,
};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

/// Bytes of an encrypted datagram before its content.
const SEAL_HEADER_LEN: usize = 17;

/// A file: facts, then bytes.
#[derive(Clone)]
struct Vector {
    name: String,
    facts: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

impl Vector {
    fn parse(name: &str, text: &str) -> Vector {
        let (head, body) = text.split_once("\n[bytes]\n").unwrap();
        let facts = head.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let facts = facts.map(|line| {
            let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{name}: {line}"));
            (key.to_owned(), value.to_owned())
        });
        let hex: String = body.lines().map(|line| line.split('#').next().unwrap()).collect();
        Vector { name: name.to_owned(), facts: facts.collect(), bytes: bytes_of(&hex) }
    }

    /// Removes a fact: facts that are left over have no meaning.
    fn take(&mut self, key: &str) -> String {
        self.facts.remove(key).unwrap_or_else(|| panic!("{}: no fact `{key}`", self.name))
    }

    fn number(&mut self, key: &str) -> u64 {
        number(&self.take(key))
    }

    fn tag(&mut self) -> Tag {
        Tag(self.number("tag"))
    }

    fn tags(&mut self) -> Box<[Tag]> {
        let tags = self.take("tags");
        tags.split(' ').filter(|tag| *tag != "none").map(|tag| Tag(number(tag))).collect()
    }

    /// The value of an enumeration: its place in the list of names.
    fn one_of<T: Copy>(&mut self, key: &str, all: &[T], names: &[&str]) -> T {
        let found = self.take(key);
        assert_eq!(all.len(), names.len(), "{key}");
        all[names.iter().position(|name| *name == found).unwrap()]
    }

    fn secret(&mut self) -> NodeSecret {
        NodeSecret::new(self.take("secret").as_bytes(), &self.take("node")).unwrap()
    }

    fn is_of(&self, layer: &str) -> bool {
        self.facts["layer"] == layer
    }

    fn finish(&self) {
        assert!(self.facts.is_empty(), "{}: unknown facts {:?}", self.name, self.facts);
    }
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).unwrap() as u8).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{hex}");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

/// Every file of the folder. A file of another kind is an error.
fn vectors() -> BTreeMap<String, Vector> {
    let files = fs::read_dir(PathBuf::from(DOCS).join("trunk")).unwrap();
    let vector = |file: std::io::Result<fs::DirEntry>| {
        let path = file.unwrap().path();
        assert!(path.extension().is_some_and(|end| end == "hex"), "{} is not read", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        let vector = Vector::parse(name, &fs::read_to_string(&path).unwrap());
        (name.to_owned(), vector)
    };
    files.map(vector).collect()
}

fn of_layer(layer: &str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = vectors().into_values().collect();
    vectors.retain(|vector| vector.is_of(layer));
    assert!(!vectors.is_empty(), "{layer}");
    vectors
}

#[derive(Clone, PartialEq, Debug)]
enum Message {
    Question(Option<GroupOwner>, TrunkQuestion),
    Answer(TrunkAnswer),
}

/// A signed message, as a file describes it.
struct Signed {
    name: String,
    message: Message,
    secret: NodeSecret,
    nonce: u64,
    time: u64,
    bytes: Vec<u8>,
}

impl Signed {
    fn of(mut vector: Vector) -> Signed {
        let facts = &mut vector;
        facts.take("layer");
        let (secret, nonce, time) = (facts.secret(), facts.number("nonce"), facts.number("time"));
        let message = match facts.take("direction").as_str() {
            "to-node" => {
                let owner = facts.facts.contains_key("owner-group").then(|| GroupOwner {
                    group: facts.number("owner-group") as u32,
                    epoch: facts.number("owner-epoch"),
                });
                Message::Question(owner, question(facts))
            }
            "from-node" => Message::Answer(answer(facts)),
            other => panic!("{other}"),
        };
        vector.finish();
        let Vector { name, bytes, .. } = vector;
        Signed { name, message, secret, nonce, time, bytes }
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.message {
            Message::Question(owner, question) => {
                question.write_for(*owner, &self.secret, self.nonce, self.time, &mut bytes);
            }
            Message::Answer(answer) => {
                answer.write(&self.secret, self.nonce, self.time, &mut bytes);
            }
        }
        bytes
    }

    /// The message, nonce and time of these bytes, read at this time in the direction of the file.
    fn read(&self, bytes: &[u8], now_us: u64) -> Result<(Message, u64, u64), MessageError> {
        match self.message {
            Message::Question(..) => {
                let read = TrunkQuestion::read(bytes, &self.secret, now_us)?;
                Ok((Message::Question(read.owner, read.message), read.nonce, read.sent_us))
            }
            Message::Answer(_) => {
                let read = TrunkAnswer::read(bytes, &self.secret, now_us)?;
                assert_eq!(read.owner, None);
                Ok((Message::Answer(read.message), read.nonce, read.sent_us))
            }
        }
    }
}

fn question(facts: &mut Vector) -> TrunkQuestion {
    const FAULTS: [&str; 5] = ["kill", "hang", "wake", "cut", "heal"];
    match facts.take("message").as_str() {
        "probe" => TrunkQuestion::Probe,
        "open" => TrunkQuestion::Open {
            room: facts.number("room"),
            session: facts.number("session"),
            tag: facts.tag(),
            lease_s: facts.number("lease") as u16,
            numbered: facts.facts.remove("numbered").is_some(),
        },
        "close" => TrunkQuestion::Close { tag: facts.tag() },
        "drain" => TrunkQuestion::Drain,
        "keep" => TrunkQuestion::Keep {
            lease_s: facts.number("lease") as u16,
            numbered: facts.facts.remove("numbered").is_some(),
            tags: facts.tags(),
        },
        "notice" => TrunkQuestion::Noted { number: facts.number("number") },
        "start" => TrunkQuestion::Start,
        "process" => TrunkQuestion::Process,
        "break" => TrunkQuestion::Break(facts.one_of("fault", &NodeFault::ALL, &FAULTS)),
        "path" => TrunkQuestion::Path {
            bundle_max: facts.number("bundle-max") as u16,
            padding: facts.number("padding") as u16,
        },
        "vote" => TrunkQuestion::Vote {
            group: facts.number("group") as u32,
            vote: match facts.take("role").as_str() {
                "owner" => Vote::Owner {
                    epoch: facts.number("epoch"),
                    hold: match facts.take("hold").as_str() {
                        "epoch" => Hold::Epoch,
                        hold => Hold::For(Duration::from_micros(number(hold))),
                    },
                },
                "standby" => Vote::Standby,
                "claim" => Vote::Claim { base: facts.number("base"), claim: facts.number("claim") },
                other => panic!("{other}"),
            },
        },
        other => panic!("{other}"),
    }
}

fn answer(facts: &mut Vector) -> TrunkAnswer {
    match facts.take("message").as_str() {
        "probe" => TrunkAnswer::Probe(load(facts)),
        "open" => TrunkAnswer::Open { tag: facts.tag(), status: status(facts) },
        "close" => TrunkAnswer::Close { tag: facts.tag(), status: status(facts) },
        "drain" => TrunkAnswer::Drain(load(facts)),
        "keep" => TrunkAnswer::Keep { unknown: facts.tags() },
        "notice" => TrunkAnswer::Notice { number: facts.number("number"), load: load(facts) },
        "start" => TrunkAnswer::Start(outcome(facts)),
        "break" => TrunkAnswer::Break(outcome(facts)),
        "path" => TrunkAnswer::Path { padding: facts.number("padding") as u16 },
        "vote" => TrunkAnswer::Vote(Voted {
            epoch: facts.number("epoch"),
            promised: facts.number("promised"),
            heard: match facts.take("heard").as_str() {
                "never" => None,
                heard => Some(Duration::from_micros(number(heard))),
            },
            instance: facts.number("instance") as u32,
        }),
        "superseded" => TrunkAnswer::Superseded { epoch: facts.number("epoch") },
        "process" => TrunkAnswer::Process(ProcessReport {
            memory_permille: facts.number("memory") as u16,
            age_s: facts.number("age") as u32,
        }),
        other => panic!("{other}"),
    }
}

fn load(facts: &mut Vector) -> NodeLoad {
    NodeLoad {
        permille: facts.number("load") as u16,
        state: facts.one_of("state", &ServingState::ALL, &["serving", "draining", "gone"]),
        sessions: facts.number("sessions") as u32,
        vouched: facts.one_of("checked", &[true, false], &["yes", "no"]),
    }
}

fn status(facts: &mut Vector) -> OpenStatus {
    let names = ["ok", "full", "draining", "unknown-tag", "failed", "unencrypted"];
    facts.one_of("status", &OpenStatus::ALL, &names)
}

fn outcome(facts: &mut Vector) -> OrderOutcome {
    facts.one_of("outcome", &OrderOutcome::ALL, &["done", "forbidden", "unable"])
}

/// An encrypted datagram, as a file describes it.
struct Sealed {
    name: String,
    is_of_gateway: bool,
    secret: NodeSecret,
    time: u64,
    salt: u64,
    /// The salt of the gateway's socket, at either end.
    gateway_salt: u64,
    counter: u64,
    content: Vec<u8>,
    /// The datagram that introduced the sender to the receiver.
    after: Option<Vec<u8>>,
    key: Vec<u8>,
    bytes: Vec<u8>,
}

impl Sealed {
    fn of(mut vector: Vector) -> Sealed {
        let facts = &mut vector;
        facts.take("layer");
        let (is_of_gateway, salt) = (facts.take("sender") == "gateway", facts.number("salt"));
        let gateway_salt = if is_of_gateway { salt } else { facts.number("gateway-salt") };
        let sealed = Sealed {
            name: facts.name.clone(),
            is_of_gateway,
            secret: facts.secret(),
            time: facts.number("time"),
            salt,
            gateway_salt,
            counter: facts.number("counter"),
            content: vectors()[&facts.take("content")].bytes.clone(),
            after: facts.facts.remove("after").map(|name| vectors()[&name].bytes.clone()),
            key: bytes_of(&facts.take("key")),
            bytes: facts.bytes.clone(),
        };
        vector.finish();
        sealed
    }

    fn seal(&self) -> Vec<u8> {
        let mut gateway = GatewaySeal::new(self.secret.clone(), self.gateway_salt);
        if self.is_of_gateway {
            // Each hand-over skips the rest of a key.
            (0..self.counter >> 24).for_each(|_| drop(gateway.hand_out()));
            (0..self.counter & 0xff_ffff).for_each(|_| _ = gateway.seal(&[]));
            return gateway.seal(&self.content).to_vec();
        }
        // A node takes the next salt for each socket that it learns.
        let mut node = NodeSeal::new(self.secret.clone(), self.salt - 1);
        let mut introduction = gateway.seal(b"any").to_vec();
        let (_, sender) = node.open(&mut introduction, source()).unwrap();
        node.learn(sender);
        (0..self.counter).for_each(|_| _ = node.seal(source(), &[]));
        node.seal(source(), &self.content).unwrap().to_vec()
    }

    /// The contents of these datagrams at a receiver that has started.
    fn open(&self, datagrams: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut node = NodeSeal::new(self.secret.clone(), 0);
        let mut gateway = GatewaySeal::new(self.secret.clone(), self.gateway_salt);
        let after = self.after.iter().map(Vec::as_slice);
        let open = |datagram: &[u8]| {
            let mut datagram = datagram.to_vec();
            if !self.is_of_gateway {
                return gateway
                    .open(&mut datagram, || self.time)
                    .ok()
                    .map(|content| content.to_vec());
            }
            let (content, sender) = node.open(&mut datagram, source()).ok()?;
            let is_message = TrunkQuestion::read(content, &self.secret, self.time).is_ok();
            let content = (is_message || !sender.is_new()).then(|| content.to_vec());
            if is_message {
                node.learn(sender);
            }
            content
        };
        let opened = after.chain(datagrams.iter().copied()).map(open);
        opened.skip(self.after.iter().len()).collect()
    }

    /// The content by AES-128-GCM alone.
    fn decrypt(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &self.key).unwrap());
        let (header, sealed) = datagram.split_at(SEAL_HEADER_LEN);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&header[9..]);
        let (nonce, mut sealed) = (Nonce::assume_unique_for_key(nonce), sealed.to_vec());
        key.open_in_place(nonce, Aad::from(header), &mut sealed).ok().map(|open| open.to_vec())
    }
}

fn source() -> SocketAddr {
    "192.0.2.1:5004".parse().unwrap()
}

fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    })
}

fn reason(error: MessageError) -> &'static str {
    match error {
        MessageError::Length => "length",
        MessageError::Version(_) => "version",
        MessageError::Unknown => "unknown",
        MessageError::Direction => "direction",
        MessageError::Key(_) => "key",
        MessageError::Forged => "forged",
        MessageError::Time { .. } => "time",
        MessageError::Replayed => "replayed",
    }
}

#[test]
fn each_vector_has_a_known_layer() {
    let known = ["signed", "refusal", "bundle", "repair", "loss-report", "sealed", "refused"];
    for (name, vector) in vectors() {
        assert!(known.iter().any(|layer| vector.is_of(layer)), "{name}");
    }
}

#[test]
fn page_links_all_vectors() {
    let page = fs::read_to_string(PathBuf::from(DOCS).join("trunk.md")).unwrap();
    let links = page.split("](trunk/").skip(1).filter_map(|rest| rest.split_once(".hex)"));
    let linked: BTreeSet<String> = links.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(linked, vectors().into_keys().collect());
}

#[test]
fn vectors_cover_all_message_kinds() {
    let signed = of_layer("signed").into_iter().chain(of_layer("refusal"));
    let kinds: BTreeSet<(u8, u8)> = signed.map(|it| (it.bytes[3], it.bytes[2])).collect();
    let questions = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13].map(|kind| (0, kind));
    let answers = (1..=13).map(|kind| (1, kind));
    assert_eq!(kinds, questions.into_iter().chain(answers).collect());
}

#[test]
fn signed_message_written_equals_vector() {
    for signed in of_layer("signed").into_iter().map(Signed::of) {
        assert_eq!(signed.write(), signed.bytes, "{}", signed.name);
    }
}

#[test]
fn signed_vector_read_gives_message() {
    for signed in of_layer("signed").into_iter().map(Signed::of) {
        let expected = (signed.message.clone(), signed.nonce, signed.time);
        assert_eq!(signed.read(&signed.bytes, signed.time), Ok(expected), "{}", signed.name);
    }
}

#[test]
fn signed_vector_with_flipped_bit_is_refused() {
    for signed in of_layer("signed").into_iter().map(Signed::of) {
        for changed in flipped(&signed.bytes) {
            assert!(signed.read(&changed, signed.time).is_err(), "{}", signed.name);
        }
    }
}

#[test]
fn signed_vector_is_valid_for_five_seconds() {
    for signed in of_layer("signed").into_iter().map(Signed::of) {
        let [early, late] = [signed.time - SKEW_MAX_US, signed.time + SKEW_MAX_US];
        for (now, is_valid) in [(early, true), (late, true), (early - 1, false), (late + 1, false)]
        {
            assert_eq!(signed.read(&signed.bytes, now).is_ok(), is_valid, "{}", signed.name);
        }
    }
}

#[test]
fn question_vector_read_twice_is_replayed() {
    let mut replays = Replays::default();
    for signed in of_layer("signed").into_iter().map(Signed::of) {
        let Message::Question(..) = signed.message else { continue };
        let Signed { bytes, secret, time, .. } = &signed;
        let mut read = || TrunkQuestion::read_once(bytes, secret, *time, &mut replays).map(|_| ());
        assert_eq!([read(), read()], [Ok(()), Err(MessageError::Replayed)], "{}", signed.name);
    }
}

#[test]
fn refusal_vector_has_nonce_and_time() {
    for mut vector in of_layer("refusal") {
        vector.take("layer");
        let expected =
            ClockRefusal { nonce: vector.number("nonce"), sent_us: vector.number("time") };
        vector.finish();
        let mut written = Vec::new();
        expected.write(&mut written);
        assert_eq!(written, vector.bytes);
        assert_eq!(ClockRefusal::read(&vector.bytes), Some(expected));
    }
}

#[test]
fn bundle_vector_has_its_packets() {
    for mut vector in of_layer("bundle") {
        vector.take("layer");
        let packets = packets(&mut vector);
        let numbered = vector.facts.remove("number").map(|text| number(&text) as u16);
        vector.finish();
        let mut bundle = Bundle::new(vector.bytes.len());
        assert!(packets.iter().all(|(tag, packet)| bundle.push(*tag, packet)));
        match numbered {
            None => assert_eq!(bundle.as_bytes(), vector.bytes),
            Some(number) => assert_eq!(bundle.numbered(number), vector.bytes),
        }
        let read =
            entries(&vector.bytes).map(|entry| entry.map(|(tag, bytes)| (tag, bytes.to_vec())));
        assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(packets));
    }
}

fn packets(vector: &mut Vector) -> Vec<(Tag, Vec<u8>)> {
    (1..)
        .map_while(|number: u32| vector.facts.remove(&format!("packet-{number}")))
        .map(|packet| {
            let (tag, hex) = packet.split_once(' ').unwrap();
            (Tag(number(tag)), bytes_of(hex))
        })
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn repair_vector_restores_each_bundle() {
    let report = of_layer("loss-report").remove(0).bytes;
    for mut vector in of_layer("repair") {
        vector.take("layer");
        let (packets, now) = (packets(&mut vector), now());
        vector.finish();
        let mut sender = TrunkRepair::new(0);
        sender.handle_repair(&report, now).unwrap();
        let mut sent = Vec::new();
        for (tag, packet) in &packets {
            let mut bundle = Bundle::new(1_400);
            assert!(bundle.push(*tag, packet));
            sender.send(&mut bundle, |datagram| sent.push(datagram.to_vec()));
        }
        let repair = sent.pop().unwrap();
        assert_eq!((&repair, sent.len()), (&vector.bytes, packets.len()));
        let mut earlier = Bundle::new(1_400);
        assert!(earlier.push(packets[0].0, b"earlier"));
        for (lost, (tag, packet)) in packets.iter().enumerate() {
            let (mut receiver, mut recovered) = (TrunkRepair::new(0), Vec::new());
            // Copies of bundles are kept from the first gap on: before number 0.
            assert!(receiver.handle_bundle(earlier.numbered(u16::MAX - 1), now));
            for (place, bundle) in sent.iter().enumerate() {
                assert!(place == lost || receiver.handle_bundle(bundle, now));
            }
            receiver.handle_repair(&vector.bytes, now).unwrap();
            assert!(receiver.take_recovered(&mut recovered), "{lost}");
            assert_eq!(entries(&recovered).collect::<Vec<_>>(), [Ok((*tag, &packet[..]))]);
        }
    }
}

#[test]
fn loss_report_vector_has_its_numbers() {
    for mut vector in of_layer("loss-report") {
        vector.take("layer");
        let (tag, expected, lost) =
            (vector.tag(), vector.number("expected"), vector.number("lost"));
        vector.finish();
        let (mut receiver, now) = (TrunkRepair::new(0), now());
        let numbers =
            (0..expected as u16).filter(|number| *number == 0 || u64::from(*number) > lost);
        for number in numbers {
            let mut bundle = Bundle::new(100);
            assert!(bundle.push(tag, b"packet"));
            receiver.handle_bundle(bundle.numbered(number), now);
        }
        let report = receiver.poll_report(now).unwrap();
        assert_eq!(report[..], vector.bytes);
        assert_eq!(TrunkRepair::new(0).handle_repair(&vector.bytes, now), Ok(()));
    }
}

#[test]
fn sealed_datagram_equals_vector() {
    for sealed in of_layer("sealed").into_iter().map(Sealed::of) {
        assert_eq!(sealed.seal(), sealed.bytes, "{}", sealed.name);
        assert_eq!(demux::classify(&sealed.bytes), DatagramKind::Sealed);
    }
}

#[test]
fn sealed_vector_opens_once() {
    for sealed in of_layer("sealed").into_iter().map(Sealed::of) {
        let opened = sealed.open(&[&sealed.bytes, &sealed.bytes]);
        assert_eq!(opened, [Some(sealed.content.clone()), None], "{}", sealed.name);
    }
}

#[test]
fn sealed_vector_opens_with_its_key() {
    for sealed in of_layer("sealed").into_iter().map(Sealed::of) {
        assert_eq!(
            sealed.decrypt(&sealed.bytes).as_ref(),
            Some(&sealed.content),
            "{}",
            sealed.name
        );
    }
}

#[test]
fn sealed_vector_with_flipped_bit_is_refused() {
    for sealed in of_layer("sealed").into_iter().map(Sealed::of) {
        for changed in flipped(&sealed.bytes) {
            assert_eq!(sealed.open(&[&changed]), [None], "{}", sealed.name);
            // The first byte and the salt choose the key; all bytes are authenticated.
            assert_eq!(sealed.decrypt(&changed), None, "{}", sealed.name);
        }
    }
}

#[test]
fn bundle_of_unknown_sender_is_refused() {
    let sealed = of_layer("sealed").into_iter().map(Sealed::of);
    let introduced: Vec<Sealed> = sealed.filter(|sealed| sealed.after.is_some()).collect();
    assert_eq!(introduced.len(), 2, "one of each end");
    for mut sealed in introduced {
        sealed.after = None;
        assert_eq!(sealed.open(&[&sealed.bytes]), [None], "{}", sealed.name);
    }
}

#[test]
fn refused_vector_gives_its_error() {
    for mut vector in of_layer("refused") {
        vector.take("layer");
        let mut expected = vectors()[&vector.take("of")].bytes.clone();
        if vector.facts.contains_key("offset") {
            expected[vector.number("offset") as usize] = vector.number("byte") as u8;
        }
        assert_eq!(vector.bytes, expected, "{}", vector.name);
        let error = match vector.take("receiver").as_str() {
            "bundle" => {
                let packets = vector.number("packets") as usize;
                let read: Vec<_> = entries(&vector.bytes).collect();
                assert_eq!(read.len(), packets + 1, "{}: the error comes last", vector.name);
                match read[packets] {
                    Err(BundleError::Mark) => "mark",
                    Err(BundleError::Entry) => "entry",
                    Err(BundleError::Packet) => "packet",
                    Err(BundleError::Empty) => "empty",
                    Ok(_) => panic!("{}", vector.name),
                }
            }
            "node" => {
                let (secret, now_us) = (vector.secret(), vector.number("time"));
                reason(TrunkQuestion::read(&vector.bytes, &secret, now_us).unwrap_err())
            }
            "gateway" => {
                let (secret, now_us) = (vector.secret(), vector.number("time"));
                reason(TrunkAnswer::read(&vector.bytes, &secret, now_us).unwrap_err())
            }
            other => panic!("{other}"),
        };
        assert_eq!(error, vector.take("error"), "{}", vector.name);
        vector.finish();
    }
}
