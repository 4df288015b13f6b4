//! Output of start programs, logged line by line within limits.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// Longer lines are truncated.
const LINE_MAX: usize = 512;

/// Lines per second; excess is counted. A server that logs every packet must not fill the gateway's log.
const LINES_PER_SECOND: u32 = 50;

/// Size limit of one write. The rest of a longer write is lost.
const WRITE_MAX: usize = 64 << 10;

pub(super) struct ProgramOutput<'a> {
    node: &'a str,
    line: Vec<u8>,
    /// Start of the current second, and lines logged in it.
    shown: (Instant, u32),
    /// Lines of the current second that were not logged.
    hidden: u64,
    bytes: Vec<u8>,
}

impl ProgramOutput<'_> {
    pub(super) fn new(node: &str) -> ProgramOutput<'_> {
        let shown = (Instant::now(), 0);
        ProgramOutput { node, line: Vec::new(), shown, hidden: 0, bytes: vec![0; WRITE_MAX] }
    }

    pub(super) fn read(&mut self, says: &UnixDatagram) {
        let mut bytes = std::mem::take(&mut self.bytes);
        while let Ok(length) = says.recv(&mut bytes) {
            if length == 0 {
                break;
            }
            for line in self.take(&bytes[..length], Instant::now()) {
                tracing::info!(node = %self.node, "start hook: {line}");
            }
        }
        self.bytes = bytes;
    }

    /// The lines to log.
    fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => lines.extend(self.line_ends(now)),
                _ if self.line.len() < LINE_MAX => self.line.push(byte),
                _ => {}
            }
        }
        lines
    }

    fn line_ends(&mut self, now: Instant) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.line).replace(char::is_control, " ");
        self.line.clear();
        let mut lines = Vec::new();
        if now.saturating_duration_since(self.shown.0) >= Duration::from_secs(1) {
            self.shown = (now, 0);
            if self.hidden > 0 {
                lines.push(format!("({} lines were not shown)", std::mem::take(&mut self.hidden)));
            }
        }
        if self.shown.1 < LINES_PER_SECOND {
            self.shown.1 += 1;
            lines.push(text);
        } else {
            self.hidden += 1;
        }
        lines
    }
}

impl Drop for ProgramOutput<'_> {
    /// Logs the last line, which may lack a newline.
    fn drop(&mut self) {
        if !self.line.is_empty() {
            for line in self.line_ends(Instant::now()) {
                tracing::info!(node = %self.node, "start hook: {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
