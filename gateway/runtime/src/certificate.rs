//! The certificate that DTLS clients see.

use std::io;
use std::path::Path;

use evenkeel_dtls::DtlsCertificate;
use evenkeel_process::file;
use zeroize::Zeroizing;

/// The file of the certificate and its key, in the folder of compiled plugins.
const FILE: &str = "dtls.pem";

/// Length limit of the file: a certificate and a key have less than 2 KiB.
const FILE_MAX: u64 = 16 * 1_024;

/// The certificate of the process before, or a new one, which is kept for the next process. Without a folder each process has its
/// own.
pub(crate) fn certificate(folder: Option<&Path>) -> io::Result<DtlsCertificate> {
    let generate = || DtlsCertificate::generate().map_err(io::Error::other);
    let Some(path) = folder.map(|folder| folder.join(FILE)) else { return generate() };
    let parse = |pem: Vec<u8>| {
        let pem = Zeroizing::new(String::from_utf8(pem).map_err(io::Error::other)?);
        DtlsCertificate::from_pem(&pem).map_err(io::Error::other)
    };
    let kept = file::read(&path, FILE_MAX).and_then(parse);
    match kept {
        Ok(certificate) => return Ok(certificate),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "DTLS certificate not read; a new one replaces it");
        }
    }
    let certificate = generate()?;
    if let Err(error) = file::replace(&path, certificate.to_pem().as_bytes()) {
        let file = path.display();
        tracing::warn!(%file, %error, "DTLS certificate not kept; the next process has another one");
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests;
