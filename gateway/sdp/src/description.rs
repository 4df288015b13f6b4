//! The lines of a description, by the grammar of `sdp-types`.

use sdp_types::{Attribute, Media, ParserError, Session};

use crate::error::{SdpError, excerpt};
use crate::{CANDIDATES_MAX, LINES_MAX, SDP_BYTES_MAX, SECTIONS_MAX};

/// Attributes that contain a key or a password.
const SECRET_ATTRIBUTES: [&str; 3] = ["crypto", "ice-pwd", "key-mgmt"];

/// Parts of other lines if a line break before a secret is missing.
const MISPLACED: [&str; 4] = ["a=crypto", "a=ice-pwd", "a=key-mgmt", "inline:"];

/// A parsed description. Values of [`SECRET_ATTRIBUTES`] remain slices of the client's text: `sdp-types` would copy them to memory that is
/// not wiped.
pub(crate) struct Description<'a> {
    session: Session,
    /// The secrets of the session level, then of each m-line.
    secrets: Vec<Vec<SecretLine<'a>>>,
}

struct SecretLine<'a> {
    name: &'static str,
    value: &'a str,
}

/// The attributes of the session level or of an m-line.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    lines: &'a [Attribute],
    secrets: &'a [SecretLine<'a>],
}

impl<'a> Description<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Result<Description<'a>, SdpError> {
        if text.len() > SDP_BYTES_MAX {
            return Err(SdpError::TooLong { bytes: text.len() });
        }
        let lines = text.split_inclusive(|byte| *byte == b'\n').count();
        SdpError::require_at_most(LINES_MAX, "lines", lines)?;
        let mut public = Vec::with_capacity(text.len());
        let mut secrets = vec![Vec::new()];
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if line.starts_with(b"m=") {
                secrets.push(Vec::new());
            }
            if let Some(secret) = SecretLine::read(line) {
                secrets.last_mut().expect("it has the session level").push(secret);
                // An empty line is skipped and counted.
                public.push(b'\n');
            } else if let Some(part) = MISPLACED.into_iter().find(|part| contains(line, part)) {
                let number = index + 1;
                let error = format!("line {number} contains {part}, expected a line of its own");
                return Err(SdpError::Grammar(error));
            } else {
                public.extend_from_slice(line);
            }
        }
        let session = Session::parse(&public).map_err(|error| {
            SdpError::Grammar(match error {
                ParserError::InvalidVersion(..) => String::from("line 1 is not v=0"),
                error => excerpt(&error.to_string()),
            })
        })?;
        let description = Description { session, secrets };
        let sections = description.session.medias.len();
        SdpError::require_at_most(SECTIONS_MAX, "m-lines", sections)?;
        let candidates = description.levels().map(|level| level.values("candidate").count());
        SdpError::require_at_most(CANDIDATES_MAX, "lines a=candidate", candidates.sum())?;
        Ok(description)
    }

    /// The session level.
    pub(crate) fn session(&self) -> (&Session, Attributes<'_>) {
        let secrets = &self.secrets[0];
        (&self.session, Attributes { lines: &self.session.attributes, secrets })
    }

    /// The m-lines.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&Media, Attributes<'_>)> {
        let sections = self.session.medias.iter().zip(&self.secrets[1..]);
        sections.map(|(media, secrets)| (media, Attributes { lines: &media.attributes, secrets }))
    }

    /// The session level and the m-lines.
    pub(crate) fn levels(&self) -> impl Iterator<Item = Attributes<'_>> {
        let sections = self.sections().map(|(_, attributes)| attributes);
        std::iter::once(self.session().1).chain(sections)
    }
}

fn contains(line: &[u8], part: &str) -> bool {
    line.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

impl<'a> SecretLine<'a> {
    /// Returns the name and value of a line with a secret. A `k=` line, which has one as well, is obsolete (RFC 8866, section 5.12).
    fn read(line: &'a [u8]) -> Option<SecretLine<'a>> {
        if line.starts_with(b"k=") {
            return Some(SecretLine { name: "key", value: "" });
        }
        let line = line.strip_prefix(b"a=")?.trim_ascii_end();
        let name = SECRET_ATTRIBUTES.into_iter().find(|name| {
            let start = line.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        })?;
        // An empty value is malformed for each of them.
        let value = line[name.len()..].strip_prefix(b":").unwrap_or_default();
        Some(SecretLine { name, value: str::from_utf8(value).unwrap_or_default() })
    }
}

impl<'a> Attributes<'a> {
    /// Returns the values of the attributes of this name; empty for a property.
    pub(crate) fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        #[cfg(test)]
        steps::add(self.lines.len());
        let is_named = move |line: &&Attribute| line.attribute.eq_ignore_ascii_case(name);
        let named = self.lines.iter().filter(is_named);
        named.map(|line| line.value.as_deref().unwrap_or_default())
    }

    /// Returns the values of one of [`SECRET_ATTRIBUTES`].
    pub(crate) fn secrets(self, name: &str) -> impl Iterator<Item = &'a str> {
        #[cfg(test)]
        steps::add(self.secrets.len());
        let named = self.secrets.iter().filter(move |secret| secret.name == name);
        named.map(|secret| secret.value)
    }

    /// Returns true if there is an attribute of this name.
    pub(crate) fn has(self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Returns the direction, if there is one.
    pub(crate) fn direction(self) -> Option<sdp_types::Direction> {
        #[cfg(test)]
        steps::add(self.lines.len());
        self.lines.iter().find_map(|line| line.attribute.parse().ok())
    }
}

/// Counts the lines that searches for attributes read, at most.
#[cfg(test)]
pub(crate) mod steps {
    use std::cell::Cell;

    thread_local!(static LINES: Cell<usize> = const { Cell::new(0) });

    pub(crate) fn add(lines: usize) {
        LINES.set(LINES.get() + lines);
    }

    /// The count since the last call.
    pub(crate) fn take() -> usize {
        LINES.take()
    }
}

#[cfg(test)]
mod tests;
