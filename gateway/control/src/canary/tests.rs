use tokio::task::LocalSet;

use super::*;

const SECRET: &[u8] = b"a secret of some length";

/// Sends canaries to a node that handles datagrams by `node`, and returns the reports.
async fn told_by(node: impl Fn(&[u8], &NodeSecret) -> Vec<Vec<u8>> + 'static) -> Vec<ProbeResult> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let secret = NodeSecret::new(SECRET, "east-a1").unwrap();
    let (told, mut words) = mpsc::channel(64);
    let mut drawn = 0;
    let mut draw = move || {
        drawn += 1;
        drawn
    };
    let run = async move {
        let canary = CanaryProbe::start(
            NodeId(3),
            CanaryNode { address, secret: secret.clone(), seal: None },
            told,
            &mut draw,
        );
        tokio::task::yield_now().await;
        let mut buffer = [0; 2_048];
        // Two openings and a packet, then four more packets.
        for sequence in 70..75 {
            canary.send(sequence, &mut draw, Clock::read());
        }
        for _ in 0..7 {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in node(&buffer[..length], &secret) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
        socket.send_to(&[0], canary.socket.get().unwrap().local_addr().unwrap()).await.unwrap();
        let mut all = Vec::new();
        let patience = std::time::Duration::from_millis(300);
        while let Ok(Some(word)) = tokio::time::timeout(patience, words.recv()).await {
            all.extend(word.if_current());
        }
        all
    };
    LocalSet::new().run_until(run).await
}

/// Answers any opening.
fn opens(datagram: &[u8], secret: &NodeSecret) -> Option<Vec<u8>> {
    let now = Clock::read().unix_us;
    let asked = TrunkQuestion::read(datagram, secret, now).ok()?;
    let TrunkQuestion::Open { tag, .. } = asked.message else { return None };
    let mut answer = Vec::new();
    TrunkAnswer::Open { tag, status: OpenStatus::Ok }.write(secret, asked.nonce, now, &mut answer);
    Some(answer)
}

/// Forwards the other session's packet to this session.
fn forwards(datagram: &[u8], to: Tag) -> Option<Vec<u8>> {
    let (from, packet) = trunk::entries(datagram).next()?.ok()?;
    assert_eq!(from, Tag(1), "it goes in at the first");
    let mut bundle = Bundle::new(BUNDLE_MAX);
    assert!(bundle.push(to, packet));
    Some(bundle.as_bytes().to_vec())
}

fn passed(words: &[ProbeResult]) -> Vec<u64> {
    let sequence = |word: &ProbeResult| match word {
        ProbeResult::Evidence {
            node: NodeId(3),
            evidence: NodeEvidence::CanaryPassed(sequence),
            ..
        } => Some(*sequence),
        _ => None,
    };
    words.iter().filter_map(sequence).collect()
}

fn opened(words: &[ProbeResult]) -> usize {
    let is_open = |word: &&ProbeResult| {
        matches!(word, ProbeResult::Evidence { evidence: NodeEvidence::CanaryOpen, .. })
    };
    words.iter().filter(is_open).count()
}

#[tokio::test]
async fn canary_packet_crosses_between_sessions() {
    let words = told_by(|datagram, secret| {
        opens(datagram, secret).into_iter().chain(forwards(datagram, Tag(2))).collect()
    })
    .await;
    assert_eq!(passed(&words), [70, 71, 72, 73, 74]);
    assert_eq!(opened(&words), 1, "both were opened once");
}

#[tokio::test]
async fn node_without_forwarding_only_accepts() {
    let words = told_by(|datagram, secret| opens(datagram, secret).into_iter().collect()).await;
    assert_eq!((passed(&words), opened(&words)), (vec![], 1));
}

#[tokio::test]
async fn packet_returned_to_its_sender_does_not_count() {
    let words = told_by(|datagram, _| forwards(datagram, Tag(1)).into_iter().collect()).await;
    assert_eq!((passed(&words), opened(&words)), (vec![], 0));
}
