use std::sync::Mutex;

use super::*;

/// Keeps the written text. A write waits while `stopped` is locked.
#[derive(Clone, Default)]
struct Screen {
    text: Arc<Mutex<Vec<u8>>>,
    stopped: Arc<Mutex<()>>,
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _turn = self.stopped.lock().unwrap();
        self.text.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn last_lines_are_written_in_order() {
    let screen = Screen::default();
    let lines = LogLines::to(screen.clone()).unwrap();
    let at_end = lines.flushed_at_end();
    for number in 0..100 {
        writeln!(&lines, "{number}").unwrap();
    }
    drop(at_end);
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!(screen.text(), expected);
}

#[test]
fn lines_do_not_wait_for_a_stopped_reader() {
    let screen = Screen::default();
    let lines = LogLines::to(screen.clone()).unwrap();
    let stopped = screen.stopped.lock().unwrap();
    // One more may be on its way to the reader.
    for _ in 0..LINES_MAX + 11 {
        (&lines).write_all(b"line\n").unwrap();
    }
    lines.flush(Duration::ZERO);
    drop(stopped);
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !screen.text().contains(" log lines lost: ") {
        assert!(std::time::Instant::now() < until, "the loss is told");
        std::thread::yield_now();
    }
    lines.flush(Duration::from_secs(30));
    let text = screen.text();
    let told = text.lines().find_map(|line| line.split_once(" log lines lost")).unwrap();
    assert!((10..=11).contains(&told.0.parse().unwrap()), "{}", told.0);
    let written = text.lines().filter(|line| *line == "line").count();
    assert!((LINES_MAX..=LINES_MAX + 1).contains(&written), "{written}");
}
