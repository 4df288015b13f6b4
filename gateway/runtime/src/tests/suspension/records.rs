//! A follower of the records: its replica, and a gateway that continues from it although the other one was killed.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Wake, Waker};

use crossbeam_channel::bounded;
use evenkeel_control::{AlertsRecord, Continuation, EventRecord, NoticeRecord};
use evenkeel_kept::Encoded;
use evenkeel_model::CloseReason;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::*;

/// The records that came so far.
struct Follower {
    batches: mpsc::Receiver<RecordBatch>,
    replica: Replica,
}

impl Follower {
    async fn of(gateway: &RunningGateway, hands_over: bool) -> Follower {
        let batches = gateway.handle.follow_records(hands_over).await.unwrap();
        Follower { batches, replica: Replica::new() }
    }

    /// Takes batches as another machine reads them.
    fn take(&mut self, batch: &RecordBatch) {
        let batch = RecordBatch::decode(&batch.encode(), Some(Instant::now())).unwrap();
        self.replica.apply(batch).unwrap();
    }

    /// Follows for a while, at least until the copy is whole.
    async fn follow(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until || !self.replica.is_whole() {
            let next = tokio::time::timeout(TIMEOUT, self.batches.recv()).await;
            self.take(&next.unwrap().unwrap());
        }
    }
}

/// Stops the thread that wakes it until the test has looked.
struct Pause {
    reached: crossbeam_channel::Sender<()>,
    looked: crossbeam_channel::Receiver<()>,
}

impl Wake for Pause {
    fn wake(self: Arc<Self>) {
        // Fails only after the test has ended.
        let _ = self.reached.send(());
        // The test drops the other end.
        let _ = self.looked.recv();
    }
}

/// Looks at a gateway just after its control has sent the answer. Control waits until the look ends.
async fn look_at_answer<T>(
    gateway: &RunningGateway,
    request: impl FnOnce(oneshot::Sender<T>) -> ControlRequest,
    look: impl FnOnce(),
) -> T {
    let ((reached, answered), (done, looked)) = (bounded(1), bounded(1));
    let waker = Waker::from(Arc::new(Pause { reached, looked }));
    let (reply, mut answer) = oneshot::channel();
    assert!(Pin::new(&mut answer).poll(&mut Context::from_waker(&waker)).is_pending());
    gateway.handle.requests.send(request(reply)).await.unwrap();
    answered.recv_timeout(TIMEOUT).unwrap();
    look();
    drop(done);
    answer.await.unwrap()
}

/// The lines of a snapshot's text, without times.
fn content(snapshot: &Snapshot) -> Vec<String> {
    let text = format!("{snapshot:#?}");
    let lines = text.lines().filter(|line| !line.contains("tv_sec") && !line.contains("tv_nsec"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn replica_equals_the_records_at_a_quiet_moment() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut follower = Follower::of(&first, true).await;
    let mut clients = talking(&first).await;
    follower.follow(Duration::from_millis(200)).await;
    // Sessions end, come and move, and others go on.
    let ended = clients.pop().unwrap().session();
    first.handle.close(ended).await.unwrap();
    clients.push(Client::open_at(&first, "plain", "later").await);
    first.handle.move_room("agent".into(), "plain".into()).await.unwrap();
    clients.iter_mut().for_each(|client| client.talk(30));
    follower.follow(Duration::from_millis(1_500)).await;
    assert_eq!(follower.replica.sessions(), SESSIONS);

    let suspended = first.handle.suspend().await.unwrap();
    let (last, ports) = (suspended.batch, suspended.descriptors.len());
    suspended.guard.stay();
    while let Ok(batch) = follower.batches.try_recv() {
        follower.take(&batch);
    }
    follower.take(&last);
    assert_eq!(follower.replica.number(), last.number());
    first.handle.resume(Continuation::Upgrade).await.unwrap();
    let again = first.handle.suspend().await.unwrap();
    assert_eq!(again.descriptors.len(), ports);
    let [kept, all] = [follower.replica.snapshot().unwrap(), snapshot_of([again.batch])];
    assert_eq!(content(&kept.without_left_hops()), content(&all));
    again.guard.stay();
    for gateway in [first, second] {
        gateway.handle.release().await.unwrap();
        gateway.join().unwrap();
    }
}

#[tokio::test]
async fn replica_has_the_call_with_renewed_keys() {
    let world = World::with_srtp();
    let (first, second) = world.gateways().await;
    let mut client = Client::open_at(&first, "rtpengine", "rtpengine").await;
    client.talk(20);
    let mut follower = Follower::of(&first, true).await;
    follower.follow(Duration::from_millis(200)).await;
    let (calls, requests) = (world.rtpengine.srtp_calls(), world.rtpengine.requests());
    // The stream restarts. An offer, an answer and a `delete` follow.
    client.sent = 0;
    (0..8).for_each(|_| client.send());
    wait_until(async || world.rtpengine.requests() == requests + 3).await;
    assert_eq!(world.rtpengine.srtp_calls(), calls + 1);
    follower.follow(Duration::from_millis(1_500)).await;

    let suspended = first.handle.suspend().await.unwrap();
    suspended.guard.stay();
    while let Ok(batch) = follower.batches.try_recv() {
        follower.take(&batch);
    }
    follower.take(&suspended.batch);
    first.handle.resume(Continuation::Upgrade).await.unwrap();
    let again = first.handle.suspend().await.unwrap();
    let [kept, all] = [follower.replica.snapshot().unwrap(), snapshot_of([again.batch])];
    assert_eq!(content(&kept.without_left_hops()), content(&all));
    again.guard.stay();
    for gateway in [first, second] {
        gateway.handle.release().await.unwrap();
        gateway.join().unwrap();
    }
}

#[tokio::test]
async fn last_change_is_for_a_standby_once_that_has_joined() {
    let world = World::new();
    let (gateway, other) = world.gateways().await;
    let clients = talking(&gateway).await;
    let sent = async || gateway.handle.records_sent().await.unwrap();
    assert_eq!(sent().await, None, "there is no follower");
    // One joins within milliseconds.
    let until = Instant::now() + TIMEOUT;
    let mut joins = Follower::of(&gateway, false).await;
    while sent().await.unwrap().is_for_standby {
        assert!(Instant::now() < until, "one that joins has not had all records");
        joins = Follower::of(&gateway, false).await;
    }
    joins.follow(Duration::ZERO).await;
    let last = sent().await.unwrap();
    assert!(last.is_for_standby && last.number >= joins.replica.number());
    drop(joins);
    let mut next_process = Follower::of(&gateway, true).await;
    next_process.follow(Duration::ZERO).await;
    assert!(!sent().await.unwrap().is_for_standby);
    drop(clients);
    end(gateway).await;
    end(other).await;
}

#[tokio::test]
async fn alerts_that_were_kept_follow() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut follower = Follower::of(&first, false).await;
    follower.follow(Duration::ZERO).await;
    assert!(!follower.replica.take_kept().is_empty(), "a new follower gets all documents");
    let (receiver, alert) = ("ops".into(), "EvenkeelNodeDown".into());
    let notices = vec![NoticeRecord { receiver, alert, at_us: 7 }];
    let alerts = AlertsRecord { notices, ..AlertsRecord::default() };
    let written = first.handle.keep_alerts(Encoded::new("", &alerts)).await.unwrap();
    let kept = first.handle.kept_alerts().await.unwrap().unwrap();
    assert_eq!(kept.decode().as_ref(), Ok(&alerts));
    let last = first.handle.records_sent().await.unwrap().unwrap();
    while follower.replica.number() < last.number {
        let batch = tokio::time::timeout(TIMEOUT, follower.batches.recv()).await.unwrap().unwrap();
        follower.take(&batch);
    }
    let kept = follower.replica.take_kept();
    assert_eq!(kept.iter().find_map(|part| part.document("")), Some(alerts));
    written.await.unwrap().unwrap();

    first.handle.suspend().await.unwrap().guard.stay();
    let (handle, none) = (first.handle.clone(), Encoded::new("", &AlertsRecord::default()));
    let held = tokio::spawn(async move { handle.keep_alerts(none).await.map(drop) });
    tokio::task::yield_now().await;
    wait_until(async || first.handle.requests.capacity() == first.handle.requests.max_capacity())
        .await;
    for gateway in [first, second] {
        gateway.handle.release().await.unwrap();
        gateway.join().unwrap();
    }
    assert_eq!(held.await.unwrap(), Err(ControlError::Replaced), "another process has the alerts");
}

/// The policy writes another state at the first tick with measurements, and nothing else of the session changes then.
#[tokio::test]
async fn state_of_a_policy_follows_each_second() {
    let mut world = World::new();
    world.bind_degradation();
    let (first, second) = world.gateways().await;
    let mut follower = Follower::of(&first, false).await;
    let mut client = Client::open_at(&first, "plain", "plain").await;
    let (mut states, quiet) = (BTreeSet::new(), Instant::now() + Duration::from_secs(2));
    while Instant::now() < quiet {
        states.extend(follower.batches.recv().await.unwrap().policy_states());
    }
    client.talk(50);
    let (known, talked) = (states.len(), Instant::now());
    while states.len() == known {
        assert!(talked.elapsed() < TIMEOUT, "no new state");
        states.extend(follower.batches.recv().await.unwrap().policy_states());
    }
    end(first).await;
    end(second).await;
}

#[tokio::test]
async fn descriptors_stay_with_sessions_copied_before() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut clients = talking(&first).await;
    for _ in 0..20 {
        let mut follower = Follower::of(&first, true).await;
        follower.follow(Duration::ZERO).await;
        clients.iter_mut().rev().for_each(|client| client.talk(1));
        let suspended = first.handle.suspend().await.unwrap();
        while let Ok(batch) = follower.batches.try_recv() {
            follower.take(&batch);
        }
        let expected = suspended.batch.with_sockets();
        assert!(expected.len() > 2);
        follower.take(&suspended.batch);
        assert_eq!(follower.replica.snapshot().unwrap().with_sockets(), expected);
        first.handle.resume(Continuation::Upgrade).await.unwrap();
    }
    for gateway in [first, second] {
        end(gateway).await;
    }
}

#[tokio::test]
async fn sessions_continue_from_a_replica_without_descriptors() {
    continue_from_replica(&World::new()).await;
}

#[tokio::test]
async fn legs_with_srtp_are_opened_again_after_a_takeover() {
    continue_from_replica(&World::with_srtp()).await;
}

async fn continue_from_replica(world: &World) {
    let (first, mut second) = world.gateways().await;
    let mut clients = talking(&first).await;
    let mut follower = Follower::of(&first, false).await;
    follower.follow(Duration::from_millis(50)).await;
    // The first gateway sends more than the follower learns.
    clients.iter_mut().for_each(|client| client.talk(20));
    let before = views(&first).await;
    let (opens, calls) = (world.agent.count("open"), world.rtpengine.srtp_calls());
    drop(follower.batches);
    first.handle.suspend().await.unwrap().guard.stay();
    stop_packets(&first).await;

    let events = second.events();
    let snapshot = follower.replica.snapshot().unwrap();
    first.handle.release().await.unwrap();
    first.join().unwrap();
    let restored =
        second.handle.take_over(snapshot, Vec::new(), Continuation::Takeover).await.unwrap();
    assert_eq!(restored.sessions, SESSIONS);
    wait_until(async || views(&second).await == before).await;
    await_packets(&second, &mut clients).await;
    assert_eq!(world.agent.count("open"), opens, "the leg of a trunk goes on");
    // Each call with SRTP is another one, with other keys.
    wait_until(async || world.rtpengine.srtp_calls() == 2 * calls).await;
    assert_no_timeout(events);
    end(second).await;
}

#[tokio::test]
async fn prepared_sessions_are_forgotten_or_served() {
    let world = World::new();
    let (first, mut second) = world.gateways().await;
    let mut clients = talking(&first).await;
    let mut follower = Follower::of(&first, false).await;
    follower.follow(Duration::from_millis(50)).await;
    let replica = |follower: &Follower| Arc::new(follower.replica.clone());
    let before = views(&first).await;
    for _ in 0..2 {
        let prepared = second.handle.prepare(replica(&follower)).await.unwrap().unwrap();
        assert_eq!(prepared.sessions, SESSIONS);
        second.handle.forget_restored().await.unwrap();
        assert!(second.handle.sessions().await.unwrap().is_empty());
        assert!(second.handle.rooms().await.unwrap().is_empty());
    }
    // The first gateway goes on, and sends more than the follower learns.
    clients.iter_mut().for_each(|client| client.talk(20));
    let opens = world.agent.count("open");
    let events = second.events();
    second.handle.prepare(replica(&follower)).await.unwrap().unwrap();
    first.handle.suspend().await.unwrap().guard.stay();
    stop_packets(&first).await;
    first.handle.release().await.unwrap();
    first.join().unwrap();
    second.handle.resume_prepared(&follower.replica, Continuation::Takeover).await.unwrap();
    wait_until(async || views(&second).await == before).await;
    await_packets(&second, &mut clients).await;
    assert_eq!(world.agent.count("open"), opens, "the leg of a trunk goes on");
    assert_no_timeout(events);
    end(second).await;
}

#[tokio::test]
async fn shutdown_of_a_prepared_gateway_closes_no_session_of_the_other() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    talking(&first).await;
    let mut follower = Follower::of(&first, false).await;
    follower.follow(Duration::from_millis(50)).await;
    let (before, closes) = (views(&first).await, world.agent.count("close"));
    second.handle.prepare(Arc::new(follower.replica)).await.unwrap().unwrap();
    end(second).await;
    assert_eq!(world.agent.count("close"), closes);
    assert_eq!(views(&first).await, before);
    end(first).await;
    assert!(world.agent.count("close") > closes);
}

/// Waits until each client hears numbers that it has not heard from the gateway before.
async fn await_packets(gateway: &RunningGateway, clients: &mut [Client]) {
    for (client, node) in clients.iter_mut().zip(NODES) {
        // Sessions on ports are opened again.
        let session = client.session();
        wait_until(async || {
            let session = gateway.handle.session(session).await.unwrap().unwrap();
            session.state.hop.is_some()
        })
        .await;
        let arrives = async |client: &mut Client| {
            client.send();
            client.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut packet = [0; 1_500];
            match client.socket.recv(&mut packet) {
                Ok(_) if packet[1] & 0x7f == 111 => {
                    Some(u16::from_be_bytes([packet[2], packet[3]]))
                }
                _ => None,
            }
        };
        let mut heard = None;
        let began = Instant::now();
        while heard.is_none() && began.elapsed() < TIMEOUT {
            heard = arrives(client).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let heard = heard.unwrap_or_else(|| panic!("nothing comes back from {node}"));
        assert!(!client.heard.contains(&heard), "{heard} was used before");
    }
}

/// The sessions that continued are not closed for silence.
fn assert_no_timeout(mut events: broadcast::Receiver<Arc<EventRecord>>) {
    while let Ok(record) = events.try_recv() {
        if let GatewayEvent::Core(CoreEvent::Closed { reason, .. }) = record.event {
            assert_ne!(reason, CloseReason::MediaTimeout, "the sessions go on");
        }
    }
}

#[tokio::test]
async fn resume_serves_packets_before_it_decides() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut clients = talking(&first).await;
    let mut follower = Follower::of(&first, true).await;
    follower.follow(Duration::ZERO).await;
    first.handle.suspend().await.unwrap().guard.stay();
    stop_packets(&first).await;
    look_at_answer(
        &first,
        |reply| ControlRequest::Resume(Continuation::Upgrade, reply),
        || {
            clients.iter_mut().for_each(|client| client.talk(1));
            assert!(!follower.batches.is_closed(), "the follower is dropped later");
        },
    )
    .await;
    while follower.batches.recv().await.is_some() {}
    end(first).await;
    end(second).await;
}

#[tokio::test]
async fn takeover_answers_once_packets_are_served() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut clients = talking(&first).await;
    let Suspended { batch, descriptors, guard, .. } = first.handle.suspend().await.unwrap();
    stop_packets(&first).await;
    guard.stay();
    first.handle.release().await.unwrap();
    first.join().unwrap();
    let snapshot = Box::new(snapshot_of([batch]));
    let take_over = |reply| ControlRequest::Restore {
        snapshot,
        descriptors,
        resume: Some(Continuation::Takeover),
        reply,
    };
    let restored = look_at_answer(&second, take_over, || {
        clients.iter_mut().for_each(|client| client.talk(1));
    });
    assert_eq!(restored.await.unwrap().sessions, SESSIONS);
    end(second).await;
}

#[tokio::test]
async fn first_copy_takes_a_part_of_the_processor() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let sessions = 200;
    for number in 0..sessions {
        let room = number.to_string();
        first.handle.offer(Client::wanted(&room, ClientIdentity::Stun)).await.unwrap();
    }
    let began = Instant::now();
    let mut follower = Follower::of(&first, false).await;
    let mut largest = 0;
    while !follower.replica.is_whole() {
        let batch = follower.batches.recv().await.unwrap();
        largest = largest.max(batch.sessions());
        follower.take(&batch);
    }
    assert_eq!(follower.replica.sessions(), sessions);
    // 32 sessions of each worker every 5 ms.
    assert!(largest <= 64, "{largest} in one batch");
    assert!(began.elapsed() >= Duration::from_millis(30), "{:?}", began.elapsed());
    end(first).await;
    end(second).await;
}

#[tokio::test]
async fn lagging_follower_is_dropped_and_begins_again() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut clients = talking(&first).await;
    let mut follower = Follower::of(&first, false).await;
    follower.follow(Duration::ZERO).await;
    // States of sessions fill the queue of a follower that reads nothing.
    while !follower.batches.is_closed() {
        clients.iter_mut().for_each(|client| client.talk(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut read = 0;
    while follower.batches.recv().await.is_some() {
        read += 1;
    }
    assert!(read > 0, "the batches that were sent arrive");
    let mut again = Follower::of(&first, false).await;
    again.follow(Duration::ZERO).await;
    assert!(again.replica.is_whole());
    let later = again.batches.recv().await.unwrap();
    let gap = Replica::new().apply(later).unwrap_err();
    assert!(gap.to_string().contains("from the beginning"), "{gap}");
    end(first).await;
    end(second).await;
}
