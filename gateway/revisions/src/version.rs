//! Order of plugin versions.

use std::cmp::Ordering;
use std::fmt;

/// A plugin's version. Ordered by Semantic Versioning 2.0.0, with missing numbers as 0 (`1.2` is
/// `1.2.0`) and without build metadata; a text that is not a version is older than any version.
#[derive(Clone, Debug)]
pub struct Version {
    text: Box<str>,
    read: Option<semver::Version>,
}

impl Version {
    /// Parses the manifest's text.
    pub fn read(text: &str) -> Version {
        let (number, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
        let missing = ".0".repeat(2_usize.saturating_sub(number.matches('.').count()));
        let read = semver::Version::parse(&format!("{number}{missing}{rest}")).ok();
        Version { text: text.into(), read }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        match (&self.read, &other.read) {
            (Some(one), Some(two)) => one.cmp_precedence(two),
            (None, None) => Ordering::Equal,
            (one, two) => one.is_some().cmp(&two.is_some()),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests;
