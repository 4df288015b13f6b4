//! The caller's place in a trace (W3C Trace Context, section 3.2).

use axum::http::HeaderMap;

/// A caller's span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traceparent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The caller's span in it.
    pub span_id: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
}

impl Traceparent {
    /// The caller's span; `None` where there is no header or it is not valid, as the standard has it.
    pub fn of(headers: &HeaderMap) -> Option<Traceparent> {
        let mut all = headers.get_all("traceparent").iter();
        let header = all.next()?.to_str().ok()?;
        if all.next().is_some() {
            return None;
        }
        Traceparent::parse(header)
    }

    fn parse(header: &str) -> Option<Traceparent> {
        let mut parts = header.split('-');
        let [version] = hexadecimal(parts.next()?)?;
        let trace_id = hexadecimal(parts.next()?)?;
        let span_id = hexadecimal(parts.next()?)?;
        let [flags] = hexadecimal(parts.next()?)?;
        // A later version may have more parts, this one must not; 255 is none.
        let fits = version != 0xff && (version > 0 || parts.next().is_none());
        let valid = fits && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Traceparent { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.as_bytes().iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_understood() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = Traceparent::parse(header).unwrap();
        assert_eq!(parsed.trace_id[..4], [0x4b, 0xf9, 0x2f, 0x35]);
        assert_eq!(parsed.span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(parsed.sampled);
        assert!(!Traceparent::parse(&header.replace("-01", "-00")).unwrap().sampled);
        let later = header.replacen("00", "01", 1) + "-more";
        assert!(Traceparent::parse(&later).is_some());
    }

    #[test]
    fn what_is_not_valid_is_as_if_it_were_not_there() {
        let zero = "0".repeat(32);
        for header in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            &format!("00-{zero}-00f067aa0ba902b7-01"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(Traceparent::parse(header), None, "{header}");
        }
    }
}
