//! The certificates that DTLS clients and browsers' WebTransport see.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_dataplane::quic::ShortLivedCertificates;
use evenkeel_dtls::DtlsCertificate;
use evenkeel_process::file;
use zeroize::Zeroizing;

/// The file of the certificate and its key, in the folder of compiled plugins.
const FILE: &str = "dtls.pem";

/// The file of WebTransport's certificates and their keys, beside it.
const SHORT_LIVED_FILE: &str = "webtransport.pem";

/// The interval in which the certificates are compared with the clock.
const RENEWED_EVERY: Duration = Duration::from_secs(60 * 60);

/// Length limit of a file: a certificate and a key have less than 2 KiB.
const FILE_MAX: u64 = 16 * 1_024;

/// The certificate of the process before, or a new one, which is kept for the next process. Without a folder each process has its
/// own. A file that cannot be used is an error: clients may know its fingerprint.
pub(crate) fn certificate(folder: Option<&Path>) -> io::Result<DtlsCertificate> {
    let generate = || DtlsCertificate::generate().map_err(io::Error::other);
    let Some(path) = folder.map(|folder| folder.join(FILE)) else { return generate() };
    if let Some(pem) = read(&path, "DTLS certificate")? {
        return DtlsCertificate::from_pem(&pem)
            .map_err(|error| unusable(&path, "DTLS certificate", error));
    }
    let certificate = generate()?;
    keep(&path, certificate.to_pem());
    Ok(certificate)
}

/// The certificates of WebTransport, and the file that keeps them.
#[derive(Debug)]
pub(crate) struct KeptCertificates {
    pub(crate) certificates: Arc<ShortLivedCertificates>,
    path: Option<PathBuf>,
}

impl KeptCertificates {
    /// Opens the certificates of the previous process, or makes new ones. A file that cannot be used is an error: pages may know its hashes.
    pub(crate) fn open(folder: Option<&Path>) -> io::Result<KeptCertificates> {
        let (names, now) = (vec!["localhost".to_owned()], SystemTime::now());
        let path = folder.map(|folder| folder.join(SHORT_LIVED_FILE));
        let kept = path.as_deref().map(|path| read(path, "WebTransport certificates"));
        let certificates = match (&path, kept.transpose()?.flatten()) {
            (Some(path), Some(pem)) => ShortLivedCertificates::from_pem(names, &pem)
                .map_err(|error| unusable(path, "WebTransport certificates", error))?,
            _ => ShortLivedCertificates::generate(names, now).map_err(io::Error::other)?,
        };
        let kept = KeptCertificates { certificates: Arc::new(certificates), path };
        kept.renew(now);
        kept.keep();
        Ok(kept)
    }

    /// Renews the certificates as their times end.
    pub(crate) async fn follow(&self) -> std::convert::Infallible {
        let mut every = tokio::time::interval(RENEWED_EVERY);
        loop {
            every.tick().await;
            if self.renew(SystemTime::now()) {
                self.keep();
            }
        }
    }

    fn renew(&self, now: SystemTime) -> bool {
        let renewed = self.certificates.renew(now);
        renewed.unwrap_or_else(|error| {
            tracing::error!(%error, "WebTransport certificate not renewed; browsers refuse it once it has ended");
            false
        })
    }

    fn keep(&self) {
        if let Some(path) = &self.path {
            keep(path, &self.certificates.to_pem());
        }
    }
}

/// Writes the text to a file for the next process.
fn keep(path: &Path, pem: &str) {
    if let Err(error) = file::replace(path, pem.as_bytes()) {
        let file = path.display();
        tracing::warn!(%file, %error, "certificate not kept; the next process has another one");
    }
}

/// The text of a file that only this user can read; `None` if there is none.
fn read(path: &Path, subject: &str) -> io::Result<Option<Zeroizing<String>>> {
    match read_private(path) {
        Ok(pem) => Ok(Some(pem)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path, subject, error)),
    }
}

fn read_private(path: &Path) -> io::Result<Zeroizing<String>> {
    let mode = fs::metadata(path)?.mode();
    if mode & 0o077 != 0 {
        let message = format!("found mode {:o}, expected 600: it contains a key", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    String::from_utf8(file::read(path, FILE_MAX)?).map(Zeroizing::new).map_err(io::Error::other)
}

fn unusable(path: &Path, subject: &str, error: impl std::error::Error) -> io::Error {
    let file = path.display();
    io::Error::other(format!("{subject} `{file}`: {error}; repair or remove the file"))
}

#[cfg(test)]
mod tests;
