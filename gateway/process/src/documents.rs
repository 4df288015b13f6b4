//! Documents that outlive the process, and those that cannot be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::lock;

/// Writers try again within this time: soon enough for an operator that waits after freeing space, and seldom enough for a disk that
/// fails.
pub const WRITTEN_AGAIN_WITHIN: Duration = Duration::from_secs(10);

macro_rules! documents {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)*) => {
        /// A document that the next process reads.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum KeptDocument { $($(#[doc = $doc])+ $name,)* }

        impl KeptDocument {
            /// All documents, by name.
            pub const ALL: &[KeptDocument] = &[$(KeptDocument::$name,)*];

            /// `dtls-certificate`.
            pub fn name(self) -> &'static str {
                match self { $(KeptDocument::$name => $text,)* }
            }
        }
    };
}

documents! {
    /// The certificate that DTLS clients see.
    DtlsCertificate = "dtls-certificate";
    /// The certificates that pages see.
    WebTransportCertificates = "webtransport-certificates";
}

impl From<KeptDocument> for &'static str {
    fn from(document: KeptDocument) -> &'static str {
        document.name()
    }
}

impl fmt::Display for KeptDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A document of which the disk does not have the newest content.
#[derive(Clone, Debug)]
pub struct UnwrittenDocument {
    pub document: &'static str,
    pub file: PathBuf,
    /// The time of the first failure since the document was last written.
    pub since: SystemTime,
    /// The reason of the last failure.
    pub reason: Box<str>,
}

impl fmt::Display for UnwrittenDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnwrittenDocument { document, file, reason, .. } = self;
        let file = file.display();
        write!(f, "{document} not on the disk: {file}: {reason}; a restart would forget changes")
    }
}

/// All documents that cannot be written. Each writer reports to it.
#[derive(Clone, Default, Debug)]
pub struct UnwrittenDocuments(Arc<Mutex<DocumentStates>>);

#[derive(Default, Debug)]
struct DocumentStates {
    known: BTreeSet<&'static str>,
    unwritten: BTreeMap<&'static str, UnwrittenDocument>,
}

impl UnwrittenDocuments {
    /// Notes whether the disk has the newest content of a document. The log has the first failure, and its end.
    pub fn note(&self, document: impl Into<&'static str>, file: &Path, written: &io::Result<()>) {
        let document = document.into();
        let unwritten = &mut lock(&self.0).unwritten;
        match written {
            Ok(()) => {
                if unwritten.remove(&document).is_some() {
                    tracing::info!(%document, "document written again");
                }
            }
            Err(error) => {
                let first = || {
                    tracing::warn!(%document, file = %file.display(), %error, "document not written; a restart would forget changes");
                    let (file, since) = (file.to_owned(), SystemTime::now());
                    UnwrittenDocument { document, file, since, reason: Box::default() }
                };
                let failure = unwritten.entry(document).or_insert_with(first);
                failure.reason = error.to_string().into();
            }
        }
    }

    /// The documents by name.
    pub fn list(&self) -> Vec<UnwrittenDocument> {
        lock(&self.0).unwritten.values().cloned().collect()
    }

    /// Names a document that may be reported.
    pub fn register(&self, document: &'static str) {
        lock(&self.0).known.insert(document);
    }

    /// The names of all documents.
    pub fn documents(&self) -> BTreeSet<&'static str> {
        let own = KeptDocument::ALL.iter().map(|document| document.name());
        lock(&self.0).known.iter().copied().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_lasts_until_the_document_is_written() {
        let unwritten = UnwrittenDocuments::default();
        let note = |document, written: io::Result<()>| {
            unwritten.note(document, Path::new("/cache/a.json"), &written);
        };
        note("policies", Err(io::Error::other("disk full")));
        note(KeptDocument::DtlsCertificate.name(), Err(io::Error::other("disk full")));
        let since = unwritten.list()[1].since;
        note("policies", Err(io::Error::other("disk failed")));
        note(KeptDocument::DtlsCertificate.name(), Ok(()));
        note(KeptDocument::WebTransportCertificates.name(), Ok(()));
        let [failure] = &unwritten.list()[..] else { panic!("one") };
        assert_eq!((failure.document, failure.since), ("policies", since));
        let text =
            "policies not on the disk: /cache/a.json: disk failed; a restart would forget changes";
        assert_eq!(failure.to_string(), text);
    }

    #[test]
    fn documents_are_in_order_of_names() {
        assert!(KeptDocument::ALL.is_sorted_by_key(|document| document.name()));
    }
}
