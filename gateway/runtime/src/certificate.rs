//! The certificate that DTLS clients see.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use evenkeel_dtls::DtlsCertificate;
use evenkeel_process::file;
use zeroize::Zeroizing;

/// The file of the certificate and its key, in the folder of compiled plugins.
const FILE: &str = "dtls.pem";

/// Length limit of the file: a certificate and a key have less than 2 KiB.
const FILE_MAX: u64 = 16 * 1_024;

/// The certificate of the process before, or a new one, which is kept for the next process. Without a folder each process has its
/// own. A file that cannot be used is an error: clients may know its fingerprint.
pub(crate) fn certificate(folder: Option<&Path>) -> io::Result<DtlsCertificate> {
    let generate = || DtlsCertificate::generate().map_err(io::Error::other);
    let Some(path) = folder.map(|folder| folder.join(FILE)) else { return generate() };
    match read(&path) {
        Ok(certificate) => return Ok(certificate),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let file = path.display();
            let message = format!("DTLS certificate `{file}`: {error}; repair or remove the file");
            return Err(io::Error::new(error.kind(), message));
        }
    }
    let certificate = generate()?;
    if let Err(error) = file::replace(&path, certificate.to_pem().as_bytes()) {
        let file = path.display();
        tracing::warn!(%file, %error, "DTLS certificate not kept; the next process has another one");
    }
    Ok(certificate)
}

fn read(path: &Path) -> io::Result<DtlsCertificate> {
    let mode = fs::metadata(path)?.mode();
    if mode & 0o077 != 0 {
        let message = format!("found mode {:o}, expected 600: it contains a key", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let pem = String::from_utf8(file::read(path, FILE_MAX)?).map_err(io::Error::other)?;
    DtlsCertificate::from_pem(&Zeroizing::new(pem)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
