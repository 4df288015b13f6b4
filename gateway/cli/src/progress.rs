//! Lines on standard error about work that takes long.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter work needs no line.
const FIRST_AFTER: Duration = Duration::from_secs(1);

/// Interval of later lines.
const THEN_EACH: Duration = Duration::from_secs(5);

/// Does the work of this name, such as `compiling big.wasm`, and writes to standard error how long it has taken so far.
pub(crate) fn report_progress<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let name = name.to_owned();
    let say = move |passed: Duration| {
        eprintln!("evenkeel: {name}: {} s so far", passed.as_secs());
    };
    report_each(FIRST_AFTER, THEN_EACH, say, work)
}

fn report_each<T>(
    first_after: Duration,
    then_each: Duration,
    mut say: impl FnMut(Duration) + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (is_done, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (began, mut wait) = (Instant::now(), first_after);
            while done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                say(began.elapsed());
                wait = then_each;
            }
        });
        let outcome = work();
        drop(is_done);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(1 << 20);

    #[test]
    fn long_work_is_told_until_it_ends() {
        let (said, lines) = mpsc::channel();
        let say = move |passed| said.send(passed).unwrap_or_default();
        let work = || (0..3).filter_map(|_| lines.recv().ok()).count();
        let outcome = report_each(Duration::ZERO, Duration::ZERO, say, work);
        assert_eq!(outcome, 3, "a line as long as the work waits for one");
    }

    #[test]
    fn short_work_is_not_told() {
        let mut lines = 0;
        let outcome = report_each(NEVER, NEVER, |_| lines += 1, || "done");
        assert_eq!((outcome, lines), ("done", 0));
    }
}
