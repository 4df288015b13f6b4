use super::*;
use crate::tests::handed_over;
use crate::trunk::message::{NodeLoad, ServingState, TrunkQuestion};
use crate::trunk::{Bundle, Tag};
use evenkeel_fuzz::Corpus;

const NOW_US: u64 = 1_700_000_000_000_000;

fn secret(node: &str) -> NodeSecret {
    NodeSecret::new(b"a secret of many bytes", node).unwrap()
}

fn address(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn probe() -> Vec<u8> {
    let mut message = Vec::new();
    TrunkQuestion::Probe.write(&secret("n"), 1, NOW_US, &mut message);
    message
}

fn answer() -> Vec<u8> {
    let load = NodeLoad { permille: 0, state: ServingState::Serving, sessions: 0, vouched: true };
    let mut message = Vec::new();
    TrunkAnswer::Probe(load).write(&secret("n"), 1, NOW_US, &mut message);
    message
}

fn bundle() -> Vec<u8> {
    let mut bundle = Bundle::new(1_400);
    assert!(bundle.push(Tag(7), &[0x80; 200]));
    bundle.as_bytes().to_vec()
}

/// A gateway and a node that know each other.
fn ends() -> (GatewaySeal, NodeSeal) {
    let (mut gateway, mut node) =
        (GatewaySeal::new(secret("n"), 11), NodeSeal::new(secret("n"), 22));
    assert_eq!(taken(&mut node, gateway.seal(&probe()), 1), Ok(probe()));
    let sealed = node.seal(address(1), &answer()).unwrap().to_vec();
    assert_eq!(heard(&mut gateway, &sealed), Ok(answer()));
    (gateway, node)
}

/// The content of a datagram at the node. A new sender is learned if the content is a signed message.
fn taken(node: &mut NodeSeal, sealed: &[u8], port: u16) -> Result<Vec<u8>, SealError> {
    let mut datagram = sealed.to_vec();
    let (content, sender) = node.open(&mut datagram, address(port))?;
    let content = content.to_vec();
    if TrunkQuestion::read(&content, &secret("n"), NOW_US).is_ok() {
        node.learn(sender);
    } else if sender.is_new() {
        return Err(SealError::Forged);
    }
    Ok(content)
}

fn heard(gateway: &mut GatewaySeal, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    gateway.open(&mut sealed.to_vec(), || NOW_US).map(|content| content.to_vec())
}

#[test]
fn datagrams_pass_encrypted_in_both_directions() {
    let (mut gateway, mut node) = ends();
    let sealed = gateway.seal(&bundle()).to_vec();
    assert_eq!(sealed.len(), bundle().len() + OVERHEAD);
    assert!(!sealed.windows(8).any(|part| part == [0x80; 8]), "the packet is encrypted");
    assert_eq!(demux::classify(&sealed), demux::DatagramKind::Sealed);
    assert_eq!(taken(&mut node, &sealed, 1), Ok(bundle()));
    let sealed = node.seal(address(1), &bundle()).unwrap().to_vec();
    assert_eq!(heard(&mut gateway, &sealed), Ok(bundle()));
    assert!(node.seal(address(2), &bundle()).is_none(), "an unknown socket");
}

#[test]
fn sent_datagram_is_known_by_its_start() {
    let (mut gateway, mut node) = ends();
    let sealed = gateway.seal(&bundle()).to_vec();
    assert!(gateway.has_sent(&sealed) && gateway.has_sent(&sealed[..17]));
    assert!(!gateway.has_sent(&sealed[..16]));
    let mut next = sealed.clone();
    next[16] += 1;
    assert!(!gateway.has_sent(&next) && !gateway.has_sent(&bundle()));
    assert!(!gateway.has_sent(node.seal(address(1), &bundle()).unwrap()));
}

#[test]
fn signed_message_moves_a_socket() {
    let (mut gateway, mut node) = ends();
    assert_eq!(taken(&mut node, gateway.seal(&bundle()), 2), Ok(bundle()));
    assert!(node.seal(address(2), &bundle()).is_none(), "a bundle moves nothing");
    assert_eq!(taken(&mut node, gateway.seal(&probe()), 2), Ok(probe()));
    assert!(node.seal(address(1), &bundle()).is_none());
    let sealed = node.seal(address(2), &bundle()).unwrap().to_vec();
    assert_eq!(heard(&mut gateway, &sealed), Ok(bundle()));
}

#[test]
fn changed_datagram_is_refused() {
    let (mut gateway, mut node) = ends();
    let up = gateway.seal(&bundle()).to_vec();
    let down = node.seal(address(1), &bundle()).unwrap().to_vec();
    for bit in 0..up.len() * 8 {
        let [mut up, mut down] = [up.clone(), down.clone()];
        up[bit / 8] ^= 1 << (bit % 8);
        down[bit / 8] ^= 1 << (bit % 8);
        assert!(taken(&mut node, &up, 1).is_err() && heard(&mut gateway, &down).is_err(), "{bit}");
    }
    for length in 0..up.len() {
        assert!(taken(&mut node, &up[..length], 1).is_err());
        assert!(heard(&mut gateway, &down[..length]).is_err());
    }
    assert_eq!(
        (taken(&mut node, &up, 1), heard(&mut gateway, &down)),
        (Ok(bundle()), Ok(bundle()))
    );
}

#[test]
fn replayed_datagram_is_refused() {
    let (mut gateway, mut node) = ends();
    let up = gateway.seal(&bundle()).to_vec();
    let down = node.seal(address(1), &bundle()).unwrap().to_vec();
    assert!(taken(&mut node, &up, 1).is_ok() && heard(&mut gateway, &down).is_ok());
    for port in [1, 2] {
        assert_eq!(taken(&mut node, &up, port), Err(SealError::Replayed));
    }
    assert_eq!(heard(&mut gateway, &down), Err(SealError::Replayed));
}

#[test]
fn reflected_datagram_is_refused() {
    let (mut gateway, mut node) = ends();
    let up = gateway.seal(&probe()).to_vec();
    let down = node.seal(address(1), &answer()).unwrap().to_vec();
    assert_eq!(heard(&mut gateway, &up), Err(SealError::Forged));
    assert_eq!(taken(&mut node, &down, 1), Err(SealError::Forged));
}

#[test]
fn datagram_to_another_end_is_refused() {
    let (mut gateway, mut node) = ends();
    let mut named = NodeSeal::new(secret("another"), 33);
    assert_eq!(taken(&mut named, gateway.seal(&probe()), 1), Err(SealError::Forged));
    // A node's datagrams are for one socket of the gateway.
    let down = node.seal(address(1), &answer()).unwrap().to_vec();
    let mut other = GatewaySeal::new(secret("n"), 12);
    assert_eq!(heard(&mut other, &down), Err(SealError::Forged));
}

#[test]
fn restarted_end_takes_no_recorded_datagram() {
    let (mut gateway, mut node) = ends();
    let recorded = gateway.seal(&bundle()).to_vec();
    let recorded_down = node.seal(address(1), &bundle()).unwrap().to_vec();
    let mut node = NodeSeal::new(secret("n"), 23);
    assert_eq!(taken(&mut node, &recorded, 1), Err(SealError::Forged), "the sender is unknown");
    assert_eq!(taken(&mut node, gateway.seal(&probe()), 1), Ok(probe()));
    assert_eq!(taken(&mut node, &recorded, 1), Err(SealError::Replayed));
    let down = node.seal(address(1), &answer()).unwrap().to_vec();
    assert_eq!(heard(&mut gateway, &down), Ok(answer()), "the new process is heard");

    let mut gateway = GatewaySeal::new(secret("n"), 12);
    assert_eq!(heard(&mut gateway, &recorded_down), Err(SealError::Forged));
    assert_eq!(taken(&mut node, gateway.seal(&probe()), 1), Ok(probe()), "at the port of the old");
    let down = node.seal(address(1), &answer()).unwrap().to_vec();
    assert_eq!(heard(&mut gateway, &down), Ok(answer()));
}

#[test]
fn stale_message_introduces_no_sender() {
    let mut gateway = GatewaySeal::new(secret("n"), 11);
    let mut node = NodeSeal::new(secret("n"), 22);
    assert!(taken(&mut node, gateway.seal(&probe()), 1).is_ok());
    let sealed = node.seal(address(1), &answer()).unwrap().to_vec();
    let late = gateway.open(&mut sealed.clone(), || NOW_US + 5_000_001).map(|_| ());
    assert_eq!(late, Err(SealError::Forged));
    assert_eq!(heard(&mut gateway, &sealed), Ok(answer()));
}

#[test]
fn reordered_datagrams_pass_within_the_window() {
    let (mut gateway, mut node) = ends();
    let sealed: Vec<Vec<u8>> = (0..WINDOW + 2).map(|_| gateway.seal(&bundle()).to_vec()).collect();
    for place in [WINDOW as usize, 5, 1, 1_000, 64] {
        assert_eq!(taken(&mut node, &sealed[place], 1), Ok(bundle()), "{place}");
        assert_eq!(taken(&mut node, &sealed[place], 1), Err(SealError::Replayed), "{place}");
    }
    assert_eq!(taken(&mut node, &sealed[0], 1), Err(SealError::Replayed), "too old to tell");
    assert_eq!(taken(&mut node, &sealed[2], 1), Ok(bundle()));
    assert_eq!(taken(&mut node, &sealed[WINDOW as usize + 1], 1), Ok(bundle()));
    assert_eq!(taken(&mut node, &sealed[1], 1), Err(SealError::Replayed));
}

#[test]
fn window_agrees_with_a_list_of_counters() {
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for first in [0, 1, 63, 64, 1_000] {
        let mut window = ReplayWindow::from(first);
        let (mut seen, mut highest) = (std::collections::BTreeSet::new(), first);
        for step in 0..20_000 {
            let ahead = if step % 500 == 0 { 5_000 } else { 3 };
            let counter = (highest + next(ahead)).saturating_sub(next(1_100));
            let known = counter < first || highest.saturating_sub(counter) >= WINDOW;
            let is_new = !known && !seen.contains(&counter);
            assert_eq!(window.is_new(counter), is_new, "{counter} of {highest} from {first}");
            if is_new {
                window.note(counter);
                seen.insert(counter);
                highest = highest.max(counter);
            }
        }
    }
}

#[test]
fn key_changes_after_its_share_of_datagrams() {
    let (mut gateway, mut node) = ends();
    gateway.sealer.next = (1 << KEY_BITS) - 1;
    let sealed: Vec<Vec<u8>> = (0..3).map(|_| gateway.seal(&bundle()).to_vec()).collect();
    for place in [1, 0, 2] {
        assert_eq!(taken(&mut node, &sealed[place], 1), Ok(bundle()), "{place}");
    }
    let key = |counter| format!("{:?}", gateway.sealer.origin.key(counter));
    assert_eq!(key(0), key(1), "debug output shows no key");
}

#[test]
fn relearned_socket_gets_another_key() {
    let (mut gateway, mut node) = ends();
    let before = node.seal(address(1), &answer()).unwrap().to_vec();
    node.keep(|_| false);
    assert_eq!(taken(&mut node, gateway.seal(&bundle()), 1), Err(SealError::Forged));
    assert_eq!(taken(&mut node, gateway.seal(&probe()), 1), Ok(probe()));
    let after = node.seal(address(1), &answer()).unwrap().to_vec();
    assert_ne!(salt(&before), salt(&after), "the counter starts anew");
    assert_eq!(heard(&mut gateway, &after), Ok(answer()));
}

#[test]
fn unused_gateway_sockets_are_forgotten() {
    let mut node = NodeSeal::new(secret("n"), 22);
    for number in 0..=GATEWAYS_MAX as u64 {
        let mut gateway = GatewaySeal::new(secret("n"), number);
        assert!(taken(&mut node, gateway.seal(&probe()), number as u16).is_ok());
    }
    assert_eq!(node.gateways.len(), GATEWAYS_MAX);
    assert!(node.seal(address(0), b"x").is_none() && node.seal(address(1), b"x").is_some());
    node.keep(|known| known == address(9));
    assert_eq!(node.gateways.len(), 1);
}

#[test]
fn wire_format_is_stable() {
    let mut gateway = GatewaySeal::new(secret("east-a1"), 0x0102_0304_0506_0708);
    let sealed = gateway.seal(b"datagram");
    let shown: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        shown,
        "e301020304050607080000000000000000ca78458c1ef28fbbf860c3da1aa4fe7616e9b206218aa00e"
    );
}

#[test]
fn fuzz_seal() {
    let (mut gateway, mut node) = ends();
    let to_node = gateway.seal(&bundle()).to_vec();
    let to_gateway = node.seal(address(1), &bundle()).unwrap().to_vec();
    let corpus = Corpus::of("seal").with(to_node.clone()).with(to_gateway.clone());
    corpus.check(|datagram| {
        // Both ends are in the same state for each input and accept only the other end's datagram.
        let (mut gateway, mut node) = ends();
        assert_eq!(taken(&mut node, datagram, 1).is_ok(), datagram == to_node);
        assert_eq!(heard(&mut gateway, datagram).is_ok(), datagram == to_gateway);
    });
}

#[test]
fn other_process_continues_unnoticed() {
    let (mut old, mut node) = ends();
    assert_eq!(taken(&mut node, old.seal(&bundle()), 1), Ok(bundle()));
    let late = old.seal(&bundle()).to_vec();
    let before = node.seal(address(1), &bundle()).unwrap().to_vec();
    assert_eq!(heard(&mut old, &before), Ok(bundle()));
    let mut new = GatewaySeal::new(secret("n"), 99);
    new.go_on(handed_over(&old.hand_out()));
    // No signed message is needed, in either direction.
    for _ in 0..3 {
        assert_eq!(taken(&mut node, new.seal(&bundle()), 1), Ok(bundle()));
        let back = node.seal(address(1), &bundle()).unwrap().to_vec();
        assert_eq!(heard(&mut new, &back), Ok(bundle()));
    }
    assert_eq!(heard(&mut new, &before), Err(SealError::Replayed));
    assert_eq!(taken(&mut node, &late, 1), Ok(bundle()), "sent before the hand-over");
    assert!(new.has_sent(&late));
}

#[test]
fn no_nonce_is_used_by_both_processes() {
    let (mut old, mut node) = ends();
    let mut new = GatewaySeal::new(secret("n"), 99);
    new.go_on(old.hand_out());
    let header = |sealed: &[u8]| sealed[..HEADER_LEN].to_vec();
    let news: Vec<_> = (0..100).map(|_| header(new.seal(&bundle()))).collect();
    // The new process failed; the old one goes on.
    for _ in 0..100 {
        let sealed = old.seal(&bundle()).to_vec();
        assert!(!news.contains(&header(&sealed)));
        assert_eq!(taken(&mut node, &sealed, 1), Ok(bundle()));
    }
    // A second attempt.
    new.go_on(old.hand_out());
    assert_eq!(taken(&mut node, new.seal(&bundle()), 1), Ok(bundle()));
}
