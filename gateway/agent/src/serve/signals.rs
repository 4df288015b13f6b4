//! Unix signals as events of the loop.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::low_level::pipe;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SignalAction {
    /// SIGTERM, SIGINT.
    Exit,
    /// SIGUSR1.
    Drain,
    /// SIGUSR2.
    Serve,
}

pub(super) struct SignalReader {
    reader: UnixStream,
    came: Vec<(SignalAction, Arc<AtomicBool>)>,
}

impl SignalReader {
    pub(super) fn new() -> io::Result<SignalReader> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let mut came = Vec::new();
        for (signal, action) in [
            (SIGTERM, SignalAction::Exit),
            (SIGINT, SignalAction::Exit),
            (SIGUSR1, SignalAction::Drain),
            (SIGUSR2, SignalAction::Serve),
        ] {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag is registered first, so that it is set before the pipe is written.
            flag::register(signal, Arc::clone(&flag))?;
            pipe::register(signal, writer.try_clone()?)?;
            came.push((action, flag));
        }
        Ok(SignalReader { reader, came })
    }

    /// A stream that is readable when a signal has arrived.
    pub(super) fn reader(&self) -> &UnixStream {
        &self.reader
    }

    pub(super) fn read(&mut self) -> Vec<SignalAction> {
        while self.reader.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        let came = self.came.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        came.map(|(action, _)| *action).collect()
    }
}
