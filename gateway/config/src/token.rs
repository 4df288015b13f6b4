//! Bearer tokens of WebRTC clients: JSON Web Tokens (RFC 7519), signed by an operator's key.
//!
//! A key of [`TokenKeys`] has one algorithm, which its kind determines. The header of a token chooses none (RFC 8725, section 3.1).

mod claims;
mod key;
mod refusal;
#[cfg(test)]
mod tests;
mod verifier;

pub use claims::{ClientDirection, TokenClaims};
pub use key::{TokenKeyError, TokenKeys, Validity};
pub use refusal::TokenRefusal;
