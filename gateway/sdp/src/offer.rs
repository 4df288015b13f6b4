//! A typed offer.

use std::collections::BTreeSet;

use crate::SECTIONS_MAX;
use crate::codec::CodecKind;
use crate::description::Description;
use crate::error::SdpError;
use crate::section::{InheritedAttributes, OfferedSection};

/// An SDP offer (RFC 8829).
#[derive(Clone, Debug)]
pub struct SdpOffer {
    /// The m-lines in their order: at least 1, at most [`SECTIONS_MAX`](crate::SECTIONS_MAX).
    pub(crate) sections: Vec<OfferedSection>,
    /// The `mid`s of the first BUNDLE group (RFC 9143); `None` if the offer has no such group.
    pub(crate) bundle: Option<Vec<String>>,
    /// The client is ICE-lite (RFC 8445).
    pub(crate) ice_lite: bool,
    /// Header extensions of both forms may share a stream (RFC 8285, section 6).
    pub(crate) extmap_allow_mixed: bool,
    /// The `sess-version`, which each later offer of the session raises by one (RFC 3264, section 8).
    pub(crate) version: u64,
}

impl SdpOffer {
    /// Reads an offer.
    ///
    /// # Errors
    /// If it is longer than [`SDP_BYTES_MAX`](crate::SDP_BYTES_MAX), violates the grammar of RFC 8866, has no m-line, exceeds another limit
    /// of this crate, repeats a `mid`, or has a malformed `mid`, `rtpmap`, `fingerprint`, `setup`, `ice-ufrag` or `ice-pwd`.
    pub fn parse(text: &[u8]) -> Result<SdpOffer, SdpError> {
        let description = Description::parse(text)?;
        let (session, all) = description.session();
        let inherited = InheritedAttributes::read(all)?;
        let sections = description.sections();
        let sections =
            sections.map(|(media, own)| OfferedSection::read(session, &inherited, media, own));
        let sections = sections.collect::<Result<Vec<_>, _>>()?;
        if sections.is_empty() {
            return Err(SdpError::NoSections);
        }
        let mut mids = BTreeSet::new();
        for mid in sections.iter().filter_map(|section| section.mid.as_ref()) {
            if !mids.insert(mid) {
                return Err(SdpError::DuplicateMid(mid.clone()));
            }
        }
        let mut bundles = all.values("group").filter_map(|group| group.strip_prefix("BUNDLE "));
        let bundle: Option<Vec<String>> =
            bundles.next().map(|mids| mids.split_whitespace().map(str::to_owned).collect());
        let bundled = bundle.as_ref().map_or(0, Vec::len);
        SdpError::require_at_most(SECTIONS_MAX, "names in a=group:BUNDLE", bundled)?;
        let mut levels = description.sections().map(|(_, own)| own);
        Ok(SdpOffer {
            bundle,
            ice_lite: all.has("ice-lite"),
            extmap_allow_mixed: all.has("extmap-allow-mixed")
                || levels.all(|own| own.has("extmap-allow-mixed")),
            version: session.origin.sess_version,
            sections,
        })
    }

    /// Returns true if a line has a key. Such an offer must not come over a transport that others can read (RFC 4568, section 8).
    pub fn has_keys(&self) -> bool {
        self.sections.iter().any(|section| !section.crypto.is_empty())
    }

    /// Returns kind and `mid` of the m-lines on which the client would receive, for [`LocalTransport::sources`].
    ///
    /// [`LocalTransport::sources`]: crate::LocalTransport::sources
    pub fn receiving_mids(&self) -> impl Iterator<Item = (CodecKind, &str)> {
        let receives =
            |section: &&OfferedSection| !section.is_removed() && section.direction.has_recv();
        let sections = self.sections.iter().filter(receives);
        sections.filter_map(|section| Some((section.kind?, section.mid.as_deref()?)))
    }

    /// Returns true if the m-line is in the first BUNDLE group.
    pub(crate) fn is_bundled(&self, section: &OfferedSection) -> bool {
        let bundle = self.bundle.as_deref().unwrap_or_default();
        section.mid.as_ref().is_some_and(|mid| bundle.contains(mid))
    }

    /// Returns the m-line that has the attributes of the transport: itself, or the first of its group (RFC 9143, section 7.1.3).
    pub(crate) fn transport_of<'a>(&'a self, section: &'a OfferedSection) -> &'a OfferedSection {
        let has_own =
            section.ice.is_some() || !section.fingerprints.is_empty() || !section.crypto.is_empty();
        if has_own || !self.is_bundled(section) {
            return section;
        }
        let tag = self.bundle.as_ref().and_then(|bundle| bundle.first());
        let mut sections = self.sections.iter();
        sections.find(|other| other.mid.is_some() && other.mid.as_ref() == tag).unwrap_or(section)
    }
}

#[cfg(test)]
mod tests;
