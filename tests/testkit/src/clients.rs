//! Third-party clients and servers that are installed on this machine.

pub use crate::need::{SYSTEM_PYTHON, browser_packages, page_packages, pion_call, python};

/// A certificate with its key, for ECDSA, as PEM.
///
/// # Panics
/// The system has no randomness.
pub fn ecdsa_certificate() -> String {
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a valid name");
    made.cert.pem() + &made.signing_key.serialize_pem()
}
