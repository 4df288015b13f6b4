//! Signals, as words that can be waited for.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level::pipe};

/// What a signal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// SIGTERM, SIGINT.
    End,
    /// SIGUSR1.
    Drain,
    /// SIGUSR2.
    Serve,
}

pub(super) struct Signals {
    reader: UnixStream,
    came: Vec<(Word, Arc<AtomicBool>)>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let mut came = Vec::new();
        for (signal, word) in [
            (SIGTERM, Word::End),
            (SIGINT, Word::End),
            (SIGUSR1, Word::Drain),
            (SIGUSR2, Word::Serve),
        ] {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag is set before the bell rings.
            flag::register(signal, Arc::clone(&flag))?;
            pipe::register(signal, writer.try_clone()?)?;
            came.push((word, flag));
        }
        Ok(Signals { reader, came })
    }

    /// Readable when a signal came.
    pub(super) fn reader(&self) -> &UnixStream {
        &self.reader
    }

    /// Those that came since.
    pub(super) fn read(&mut self) -> Vec<Word> {
        while self.reader.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        let came = self.came.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        came.map(|(word, _)| *word).collect()
    }
}
