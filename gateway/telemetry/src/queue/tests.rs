use std::cell::RefCell;
use std::sync::mpsc::sync_channel;

use opentelemetry_sdk::Resource;

use super::super::instruments::{Meters, Prometheus, meters};
use super::*;

/// Accepts batches while it is up, and records the time of each attempt.
struct Receiver {
    up_after: usize,
    asked: RefCell<Vec<(tokio::time::Instant, Vec<u32>)>>,
}

impl SendBatch<u32> for &Receiver {
    async fn send_batch(&self, batch: &[u32]) -> Result<(), String> {
        let mut asked = self.asked.borrow_mut();
        asked.push((tokio::time::Instant::now(), batch.to_vec()));
        if asked.len() > self.up_after { Ok(()) } else { Err("refused".to_owned()) }
    }
}

fn receiver(up_after: usize) -> Receiver {
    Receiver { up_after, asked: RefCell::default() }
}

fn tally() -> (ExportTally, Prometheus, impl Drop) {
    struct Keep<T>(T);
    impl<T> Drop for Keep<T> {
        fn drop(&mut self) {}
    }
    let Meters { providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    let tally = ExportTally::new("spans", &instruments, &ExportFailures::default());
    (tally, prometheus, Keep(providers))
}

fn counted(text: &Prometheus, name: &str, labels: &str) -> u64 {
    let text = text.render();
    let line = text.lines().find(|l| l.starts_with(name) && l.contains(labels));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn batch_gathers_and_is_counted() {
    let (tally, text, _keep) = tally();
    let (queue, flush, sending) = queue(&tally);
    let receiver = receiver(0);
    (0..3).for_each(|n| queue.push(n));
    let stop = async {
        while receiver.asked.borrow().is_empty() {
            sleep(GATHER / 4).await;
        }
        drop((queue, flush));
    };
    tokio::join!(sending.run(&receiver), stop);
    let asked = receiver.asked.into_inner();
    assert_eq!(asked.into_iter().map(|(_, batch)| batch).collect::<Vec<_>>(), [[0, 1, 2]]);
    assert_eq!(counted(&text, "evenkeel_telemetry_sent_total", "spans"), 3);
}

#[tokio::test(start_paused = true)]
async fn full_batch_gathers_no_longer() {
    let (tally, _text, _keep) = tally();
    let (queue, flush, sending) = queue(&tally);
    let (receiver, began) = (receiver(0), tokio::time::Instant::now());
    queue.push(0);
    let stop = async {
        sleep(GATHER / 10).await;
        (1..BATCH_MAX as u32).for_each(|n| queue.push(n));
        while receiver.asked.borrow().is_empty() {
            sleep(GATHER / 10).await;
        }
        drop((queue, flush));
    };
    tokio::join!(sending.run(&receiver), stop);
    let asked = receiver.asked.into_inner();
    assert_eq!(asked[0].1.len(), BATCH_MAX);
    assert!(asked[0].0 - began < GATHER / 2, "{:?}", asked[0].0 - began);
}

#[tokio::test(start_paused = true)]
async fn failed_batch_is_retried_with_backoff() {
    let (tally, text, _keep) = tally();
    let (queue, flush, sending) = queue(&tally);
    let receiver = receiver(3);
    queue.push(7);
    let stop = async {
        while receiver.asked.borrow().len() < 4 {
            sleep(GATHER).await;
        }
        drop((queue, flush));
    };
    tokio::join!(sending.run(&receiver), stop);
    let asked = receiver.asked.into_inner();
    assert!(asked.iter().all(|(_, batch)| *batch == [7]), "{asked:?}");
    let pauses: Vec<_> =
        asked.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
    for (pause, usual) in pauses.iter().zip([1.0, 2.0, 4.0]) {
        assert!((0.75 * usual..=1.25 * usual + 0.01).contains(pause), "{pauses:?}");
    }
    assert_eq!(counted(&text, "evenkeel_telemetry_failures_total", "spans"), 3);
    assert_eq!(counted(&text, "evenkeel_telemetry_dropped_total", "spans"), 0);
}

#[tokio::test(start_paused = true)]
async fn rejected_batch_is_dropped_and_counted() {
    let (tally, text, _keep) = tally();
    let (queue, flush, sending) = queue(&tally);
    let receiver = receiver(TRIES_MAX as usize + 1);
    (0..BATCH_MAX as u32 + 1).for_each(|n| queue.push(n));
    let stop = async {
        while counted(&text, "evenkeel_telemetry_sent_total", "spans") == 0 {
            sleep(GATHER).await;
        }
        drop((queue, flush));
    };
    tokio::join!(sending.run(&receiver), stop);
    let dropped = counted(&text, "evenkeel_telemetry_dropped_total", "not-taken");
    assert_eq!(dropped, BATCH_MAX as u64);
    assert_eq!(receiver.asked.borrow().last().unwrap().1, [BATCH_MAX as u32]);
}

#[tokio::test(start_paused = true)]
async fn full_queue_drops_and_counts() {
    let (tally, text, _keep) = tally();
    let (queue, _flush, _sending) = queue(&tally);
    (0..WAITING_MAX as u32 + 5).for_each(|n| queue.push(n));
    assert_eq!(counted(&text, "evenkeel_telemetry_dropped_total", "queue-full"), 5);
}

#[tokio::test(start_paused = true)]
async fn flush_ends_without_a_receiver() {
    let (tally, text, _keep) = tally();
    let (queue, flush, sending) = queue(&tally);
    let receiver = receiver(usize::MAX);
    (0..2_000).for_each(|n| queue.push(n));
    let (done, waiting) = sync_channel(1);
    flush.try_send(done).unwrap();
    let stop = async {
        while waiting.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            sleep(GATHER).await;
        }
        drop((queue, flush));
    };
    tokio::join!(sending.run(&receiver), stop);
    assert_eq!(counted(&text, "evenkeel_telemetry_dropped_total", "not-taken"), 2_000);
}

#[test]
fn backoff_is_capped_at_a_minute() {
    let mut backoff = Backoff::default();
    assert_eq!(backoff.pause(), None);
    (0..100).for_each(|_| backoff.fail());
    let pause = backoff.pause().unwrap().as_secs_f64();
    assert!((45.0..=75.0).contains(&pause), "{pause}");
}

#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn failing_receiver_is_logged_once_a_reason() {
    let (tally, text, _keep) = tally();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        tally.sent(1);
        (0..3).for_each(|_| tally.clone().failed("connection refused"));
        tally.failed("HTTP status 401");
        let failing = tally.failures.list().remove(0);
        assert_eq!((failing.signal, failing.failures), ("spans", 4));
        assert_eq!(failing.reason, "HTTP status 401");
        tally.sent(1);
        assert!(tally.failures.list().is_empty());
        tally.sent(1);
    });
    let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("takes no exports") && said.contains("takes exports again"), "{said}");
    assert!(said.contains("connection refused") && said.contains("HTTP status 401"), "{said}");
    assert_eq!(counted(&text, "evenkeel_telemetry_failures_total", "spans"), 4);
}
