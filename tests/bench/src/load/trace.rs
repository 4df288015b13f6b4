//! Recorded packet lengths, one per line.

use std::fmt;

/// RTP header and mark: no packet of a load is shorter.
const SHORTEST: u16 = 45;
/// The longest packet in a bundle for a path MTU of 1,500 bytes.
const LONGEST: u16 = 1_389;

/// Lengths of packets in bytes, RTP header included, in the order they were recorded; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trace(Vec<u16>);

/// A line that is not a length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Malformed {
    /// The line's number, from 1; 0 without any line.
    pub(crate) line: usize,
    /// Content of the line.
    pub(crate) found: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, found } = self;
        write!(f, "line {line}: {found:?}, a length from {SHORTEST} to {LONGEST} is expected")
    }
}

impl Trace {
    /// Reads one length per line; lines that begin with `#` are comments. Lengths are at least header and mark.
    ///
    /// # Errors
    /// A line is no length, or too long for a datagram.
    pub(crate) fn parse(text: &str) -> Result<Trace, Malformed> {
        let mut lengths = Vec::new();
        for (line, found) in (1..).zip(text.lines()) {
            if found.starts_with('#') || found.trim().is_empty() {
                continue;
            }
            match found.trim().parse::<u16>() {
                Ok(length) if (1..=LONGEST).contains(&length) => lengths.push(length.max(SHORTEST)),
                _ => return Err(Malformed { line, found: found.to_owned() }),
            }
        }
        match lengths.is_empty() {
            true => Err(Malformed { line: 0, found: String::new() }),
            false => Ok(Trace(lengths)),
        }
    }

    pub(crate) fn constant(length: u16) -> Trace {
        Trace(vec![length.clamp(SHORTEST, LONGEST)])
    }

    /// Speech in Opus, variable bit rate around 32 kbit/s, one packet per 20 ms.
    ///
    /// # Errors
    /// The recording is damaged.
    pub(crate) fn voice() -> Result<Trace, Malformed> {
        Trace::parse(include_str!("voice.txt"))
    }

    /// H.264 video at 800 kbit/s, in packets of at most 1,200 bytes (RFC 6184).
    ///
    /// # Errors
    /// The recording is damaged.
    pub(crate) fn video() -> Result<Trace, Malformed> {
        Trace::parse(include_str!("video.txt"))
    }

    /// The length at this index; the trace repeats.
    pub(crate) fn length(&self, place: usize) -> usize {
        usize::from(self.0[place % self.0.len()])
    }

    /// Mean length in bytes.
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().map(|&length| f64::from(length)).sum::<f64>() / self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_repeat_in_order() {
        let trace = Trace::parse("# speech\n120\n\n77\n").unwrap();
        assert_eq!([0, 1, 2, 3].map(|place| trace.length(place)), [120, 77, 120, 77]);
    }

    #[test]
    fn what_is_no_length_is_told_with_its_line() {
        for (text, line) in [("120\nx", 2), ("0", 1), ("1390", 1), ("-5", 1), ("# no more", 0)] {
            assert_eq!(Trace::parse(text).unwrap_err().line, line, "{text}");
        }
        assert_eq!(Trace::parse("1389").unwrap().length(0), 1_389);
    }

    #[test]
    fn packets_have_room_for_header_and_mark() {
        assert_eq!(Trace::parse("9").unwrap().length(0), 45);
    }

    #[test]
    fn recordings_vary_as_voice_and_picture_do() {
        let (voice, video) = (Trace::voice().unwrap(), Trace::video().unwrap());
        for trace in [&voice, &video] {
            assert!(trace.0.len() > 1_000);
            let kinds: std::collections::BTreeSet<_> = trace.0.iter().collect();
            assert!(kinds.len() > 50, "a constant size is no recording");
        }
        assert!(voice.mean() < 200.0 && video.mean() > 600.0);
    }
}
