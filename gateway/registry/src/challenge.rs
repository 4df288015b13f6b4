//! The challenge of a server that asks for authentication (RFC 9110, section 11.6.1).

/// One challenge. Parameters are in the order of the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Parses the first challenge of a header's value. Registries send each one in a header of its own.
    pub(crate) fn parse(text: &str) -> Option<Challenge> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.is_empty() || !scheme.bytes().all(is_token) {
            return None;
        }
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let length = rest.bytes().take_while(|byte| is_token(*byte)).count();
            let (key, after) = rest.split_at(length);
            let after = after.trim_start();
            // Anything else is another challenge.
            let Some(value) = after.strip_prefix('=').filter(|_| !key.is_empty()) else { break };
            let (value, after) = parameter(value.trim_start())?;
            parameters.push((key.to_ascii_lowercase(), value));
            rest = after;
        }
        Some(Challenge { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    /// The first parameter of this name, which is in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A token or quoted string, and the text behind it (RFC 9110, sections 5.6.2 and 5.6.4).
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.bytes().take_while(|byte| is_token(*byte)).count();
        let (value, rest) = text.split_at(length);
        return Some((value.to_owned(), rest));
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (place, c) in quoted.char_indices() {
        match c {
            c if is_escaped => {
                value.push(c);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            '"' => return Some((value, &quoted[place + 1..])),
            c => value.push(c),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
