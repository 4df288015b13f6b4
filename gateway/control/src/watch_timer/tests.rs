use tokio::runtime::{Builder, Handle};

use super::*;

#[test]
fn thread_waits_once_for_each_tick() {
    const TICKS: u64 = 100;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let waits = runtime.block_on(async {
        let (mut watch, metrics) = (WatchTimer::start(), Handle::current().metrics());
        // The first ticks set both timers.
        for _ in 0..4 {
            watch.tick().await;
        }
        let before = metrics.worker_park_count(0);
        for _ in 0..TICKS {
            watch.tick().await;
        }
        metrics.worker_park_count(0) - before
    });
    // Tokio sorts its timers each 64 ms.
    assert!(waits <= TICKS + TICKS / 4, "{waits} waits for {TICKS} ticks");
}

/// The time of the next tick, in milliseconds.
async fn ticked(watch: &mut WatchTimer, start: Instant) -> u128 {
    watch.tick().await;
    (Instant::now() - start).as_millis()
}

#[tokio::test(start_paused = true)]
async fn tick_after_a_late_one_is_an_interval_later() {
    let (mut watch, start) = (WatchTimer::start(), Instant::now());
    for at in [0, 2, 4, 6] {
        assert_eq!(ticked(&mut watch, start).await, at);
    }
    // The next tick is due at 8 ms.
    tokio::time::advance(LATE + Duration::from_millis(5)).await;
    for at in [16, 18, 20, 22] {
        assert_eq!(ticked(&mut watch, start).await, at);
    }
    tokio::time::advance(LATE).await;
    for at in [27, 27, 28, 30] {
        assert_eq!(ticked(&mut watch, start).await, at, "a short delay keeps the times");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_wait_loses_no_tick() {
    let (mut watch, start) = (WatchTimer::start(), Instant::now());
    assert_eq!(ticked(&mut watch, start).await, 0);
    for _ in 0..3 {
        tokio::select! {
            biased;
            () = watch.tick() => panic!("the tick is not due"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(ticked(&mut watch, start).await, 2);
}
