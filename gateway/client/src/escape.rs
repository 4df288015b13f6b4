use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes text for a path segment or a value of the query (RFC 3986, sections 3.3 and 3.4).
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}
