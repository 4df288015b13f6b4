//! The certificates that DTLS clients and browsers' WebTransport see, and their files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_control::{CertificateChannels, CertificatesRecord, SecretPem};
use evenkeel_dataplane::quic::ShortLivedCertificates;
use evenkeel_dtls::DtlsCertificate;
use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::file;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// The file of the certificate of DTLS and its key.
const DTLS_FILE: &str = "dtls.pem";

/// The file of WebTransport's certificates and their keys, beside it.
const WEBTRANSPORT_FILE: &str = "webtransport.pem";

/// The interval in which the certificates are compared with the clock.
const RENEWED_EVERY: Duration = Duration::from_secs(60 * 60);

/// Length limit of a file: a certificate and a key have less than 2 KiB.
const FILE_MAX: u64 = 16 * 1_024;

/// Certificates that the gateway made itself or, at a standby, copied from the owner of its group. Without a folder each process
/// has its own.
#[derive(Debug)]
pub(crate) struct ClientCertificates {
    /// `None` with a configured certificate, and without a QUIC listener.
    pub(crate) webtransport: Option<Arc<ShortLivedCertificates>>,
    dtls: watch::Sender<DtlsCertificate>,
    folder: Option<PathBuf>,
    own: watch::Sender<CertificatesRecord>,
    copied: watch::Sender<Option<CertificatesRecord>>,
    received: watch::Receiver<Option<CertificatesRecord>>,
    unwritten: UnwrittenDocuments,
}

impl ClientCertificates {
    /// Opens the certificates of the process before, or makes new ones and keeps them for the next process. A file with other content is
    /// renamed. One that other users can read, or that cannot be read, is an error: an operator changed it.
    ///
    /// Gateways with other `socket`s of the API may share the folder.
    pub(crate) fn open(
        folder: Option<&Path>,
        socket: &Path,
        has_webtransport: bool,
        unwritten: UnwrittenDocuments,
    ) -> io::Result<Self> {
        let folder = folder.map(|folder| own_folder(folder, socket));
        let at = |name| folder.as_ref().map(|folder| folder.join(name));
        let dtls = open(
            at(DTLS_FILE),
            "DTLS certificate",
            |pem| DtlsCertificate::from_pem(pem).map_err(io::Error::other),
            || DtlsCertificate::generate().map_err(io::Error::other),
        )?;
        let names = || vec!["localhost".to_owned()];
        let open_webtransport = || {
            open(
                at(WEBTRANSPORT_FILE),
                "WebTransport certificates",
                |pem| ShortLivedCertificates::from_pem(names(), pem).map_err(io::Error::other),
                || {
                    let made = ShortLivedCertificates::generate(names(), SystemTime::now());
                    made.map_err(io::Error::other)
                },
            )
        };
        let webtransport = has_webtransport.then(open_webtransport).transpose()?.map(Arc::new);
        let own = watch::Sender::new(record(&dtls, webtransport.as_deref()));
        let (copied, received) = watch::channel(None);
        let dtls = watch::Sender::new(dtls);
        let opened =
            ClientCertificates { webtransport, dtls, folder, own, copied, received, unwritten };
        opened.keep_dtls();
        opened.keep_webtransport();
        opened.renew(SystemTime::now());
        Ok(opened)
    }

    /// The certificate that DTLS clients see.
    pub(crate) fn dtls(&self) -> watch::Receiver<DtlsCertificate> {
        self.dtls.subscribe()
    }

    /// The channels of a member of a group.
    pub(crate) fn channels(&self) -> CertificateChannels {
        CertificateChannels { own: self.own.subscribe(), copied: self.copied.clone() }
    }

    /// Renews the certificates as their times end, and replaces them by those of the owner. A caller begins it once.
    pub(crate) async fn follow(&self) -> std::convert::Infallible {
        let mut received = self.received.clone();
        let mut every = tokio::time::interval(RENEWED_EVERY);
        let mut again = tokio::time::interval(WRITTEN_AGAIN_WITHIN);
        loop {
            tokio::select! {
                _ = every.tick() => self.renew(SystemTime::now()),
                _ = again.tick() => self.keep_unwritten(),
                Ok(()) = received.changed() => {
                    let copied = received.borrow_and_update().clone();
                    copied.iter().for_each(|copied| self.adopt(copied));
                }
            }
        }
    }

    fn renew(&self, now: SystemTime) {
        let Some(certificates) = &self.webtransport else { return };
        match certificates.renew(now) {
            Ok(false) => {}
            Ok(true) => self.keep_webtransport(),
            Err(error) => {
                tracing::error!(%error, "WebTransport certificate not renewed; browsers refuse it once it has ended");
            }
        }
    }

    /// Replaces the certificates by those of the owner.
    fn adopt(&self, copied: &CertificatesRecord) {
        match DtlsCertificate::from_pem(&copied.dtls.0) {
            Ok(copied) if copied.fingerprint() == self.dtls.borrow().fingerprint() => {}
            Ok(copied) => {
                self.dtls.send_replace(copied);
                self.keep_dtls();
                tracing::info!("DTLS certificate replaced by that of the group's owner");
            }
            Err(error) => {
                tracing::error!(%error, "DTLS certificate of the group's owner refused; after a takeover clients meet another one");
            }
        }
        let Some((own, copied)) = self.webtransport.as_ref().zip(copied.webtransport.as_ref())
        else {
            return;
        };
        match own.replace(&copied.0) {
            Ok(false) => {}
            Ok(true) => {
                self.keep_webtransport();
                tracing::info!("WebTransport certificates replaced by those of the group's owner");
            }
            Err(error) => {
                tracing::error!(%error, "WebTransport certificates of the group's owner refused; after a takeover pages meet others");
            }
        }
    }

    fn keep_dtls(&self) {
        self.keep(KeptDocument::DtlsCertificate, DTLS_FILE, self.dtls.borrow().to_pem());
    }

    fn keep_webtransport(&self) {
        if let Some(certificates) = &self.webtransport {
            let document = KeptDocument::WebTransportCertificates;
            self.keep(document, WEBTRANSPORT_FILE, &certificates.to_pem());
        }
    }

    /// Writes the certificates again that could not be written.
    fn keep_unwritten(&self) {
        for unwritten in self.unwritten.list() {
            if unwritten.document == KeptDocument::DtlsCertificate.name() {
                self.keep_dtls();
            } else if unwritten.document == KeptDocument::WebTransportCertificates.name() {
                self.keep_webtransport();
            }
        }
    }

    /// Writes the text to a file for the next process, unless it is there, and shows it to the member of a group.
    fn keep(&self, document: KeptDocument, name: &str, pem: &str) {
        let record = record(&self.dtls.borrow(), self.webtransport.as_deref());
        self.own.send_if_modified(|own| {
            let differs = *own != record;
            *own = record;
            differs
        });
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(name)) else { return };
        if read(&path).is_ok_and(|kept| kept.is_some_and(|kept| *kept == *pem.as_bytes())) {
            return;
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let written = file::create_private_folder(folder);
        let written = written.and_then(|()| file::replace(&path, pem.as_bytes()));
        self.unwritten.note(document, &path, &written);
    }
}

/// The folder of a gateway's files in the cache folder.
fn own_folder(folder: &Path, socket: &Path) -> PathBuf {
    folder.join("certificates").join(file::name_of(socket))
}

fn record(
    dtls: &DtlsCertificate,
    webtransport: Option<&ShortLivedCertificates>,
) -> CertificatesRecord {
    CertificatesRecord {
        dtls: SecretPem(dtls.to_pem().to_owned().into()),
        webtransport: webtransport.map(|certificates| SecretPem(certificates.to_pem())),
    }
}

/// Parses the file, if there is one. After its removal or damage the certificates are new.
fn open<T>(
    path: Option<PathBuf>,
    subject: &str,
    parse: impl FnOnce(&str) -> io::Result<T>,
    generate: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(path) = path else { return generate() };
    let unusable = |error: io::Error| {
        let file = path.display();
        io::Error::other(format!("{subject} `{file}`: {error}; repair or remove the file"))
    };
    let Some(content) = read(&path).map_err(unusable)? else { return generate() };
    let text = str::from_utf8(&content).map_err(io::Error::other);
    let error = match text.and_then(parse) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let aside = path.with_extension("damaged");
    fs::rename(&path, &aside).map_err(unusable)?;
    let (file, aside) = (path.display(), aside.display());
    tracing::error!(%file, %error, %aside, "{subject} damaged, and replaced; clients with an earlier answer must open a new session");
    generate()
}

/// The content of a file that only this user can read; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mode = match fs::metadata(path) {
        Ok(found) => found.mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if mode & 0o077 != 0 {
        let message = format!("found mode {:o}, expected 600: it contains a key", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    file::read(path, FILE_MAX).map(|content| Some(content.into()))
}

#[cfg(test)]
mod tests;
