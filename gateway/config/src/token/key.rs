//! The operator's keys, and the verification of tokens by them.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};

use crate::token::claims::TokenClaims;
use crate::token::refusal::TokenRefusal;
use crate::token::verifier;

/// Least length of a shared secret: that of the hash (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// A key, and the one before it.
const KEYS_MAX: usize = 2;

/// Difference of the signer's clock that `exp` and `nbf` allow.
const CLOCK_SECONDS: u64 = 5;

/// The `SubjectPublicKeyInfo` before the uncompressed point of P-256 (RFC 5480, section 2).
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The `SubjectPublicKeyInfo` before the key of Ed25519 (RFC 8410, section 4).
const ED25519_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const EXPECTED: &str = "a public key of ECDSA by P-256 or of Ed25519 in PEM, or a secret of at least 32 bytes for HS256; \
    while it is rotated two public keys, or two secrets, each on a line";

/// The keys that verify tokens: one, or two while it is rotated.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenKeys(Vec<TokenKey>);

/// A public key for ES256 or EdDSA, or a secret for HS256.
#[derive(Clone)]
struct TokenKey {
    key: Arc<DecodingKey>,
    algorithm: Algorithm,
}

/// The use of the times in a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// The token is refused after `exp` and before `nbf`.
    Now,
    /// The token was valid once: it is about a session that it opened.
    Once,
}

/// The reason for which a file is no key. It quotes no part of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub struct TokenKeyError {
    /// The content of the file, in words.
    pub found: String,
    /// The right content.
    pub expected: &'static str,
}

impl TokenKeys {
    /// Reads one or two public keys in PEM (RFC 7468), or else secrets, each on a line.
    ///
    /// # Errors
    /// A secret is short, a public key is of another kind, or there is another number of keys.
    pub fn read(file: &[u8]) -> Result<TokenKeys, TokenKeyError> {
        verifier::install();
        if !file.windows(b"-----BEGIN".len()).any(|text| text == b"-----BEGIN") {
            let lines = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            let secrets: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
            require_number(secrets.len(), "secrets")?;
            return secrets
                .into_iter()
                .map(TokenKey::of_secret)
                .collect::<Result<_, _>>()
                .map(TokenKeys);
        }
        if PrivateKeyDer::from_pem_slice(file).is_ok() {
            let expected = "the public key of the pair alone: `openssl pkey -in FILE -pubout`";
            return Err(TokenKeyError { found: "a private key".to_owned(), expected });
        }
        let keys: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(file).collect();
        let keys = keys.map_err(|_| wrong("PEM that cannot be read".to_owned()))?;
        require_number(keys.len(), "sections `PUBLIC KEY`")?;
        keys.iter().map(TokenKey::of_public).collect::<Result<_, _>>().map(TokenKeys)
    }

    /// Returns true for keys that must be kept secret, since they also sign.
    pub fn are_secret(&self) -> bool {
        self.0.iter().any(|key| key.algorithm == Algorithm::HS256)
    }

    /// Verifies a token by each key and returns its claims.
    ///
    /// # Errors
    /// The signature is that of no key, the token has expired, or it lacks a claim.
    pub fn verify(&self, token: &str, validity: Validity) -> Result<TokenClaims, TokenRefusal> {
        let mut refusal = TokenRefusal::Missing;
        for key in &self.0 {
            match key.verify(token, validity) {
                // The other key may have signed it. A wrong signature says more than another algorithm.
                Err(TokenRefusal::Algorithm(_)) if refusal == TokenRefusal::Signature => {}
                Err(other @ (TokenRefusal::Algorithm(_) | TokenRefusal::Signature)) => {
                    refusal = other;
                }
                outcome => return outcome,
            }
        }
        Err(refusal)
    }
}

fn wrong(found: String) -> TokenKeyError {
    TokenKeyError { found, expected: EXPECTED }
}

fn require_number(found: usize, keys: &str) -> Result<(), TokenKeyError> {
    if (1..=KEYS_MAX).contains(&found) { Ok(()) } else { Err(wrong(format!("{found} {keys}"))) }
}

impl TokenKey {
    fn of_secret(secret: &[u8]) -> Result<TokenKey, TokenKeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(wrong(format!("a secret of {} bytes", secret.len())));
        }
        let key = DecodingKey::from_secret(secret).map_err(|error| wrong(error.to_string()))?;
        Ok(TokenKey { key: Arc::new(key), algorithm: Algorithm::HS256 })
    }

    fn of_public(key: &SubjectPublicKeyInfoDer<'_>) -> Result<TokenKey, TokenKeyError> {
        let (key, algorithm) = if let Some(point) = key.strip_prefix(&P256_HEAD) {
            (DecodingKey::from_ec_der(point), Algorithm::ES256)
        } else if let Some(key) = key.strip_prefix(&ED25519_HEAD) {
            (DecodingKey::from_ed_der(key), Algorithm::EdDSA)
        } else {
            return Err(wrong("a public key of another kind".to_owned()));
        };
        Ok(TokenKey { key: Arc::new(key), algorithm })
    }

    /// The member `alg` of the tokens that the key verifies.
    fn alg(&self) -> &'static str {
        match self.algorithm {
            Algorithm::HS256 => "HS256",
            Algorithm::ES256 => "ES256",
            _ => "EdDSA",
        }
    }

    fn verify(&self, token: &str, validity: Validity) -> Result<TokenClaims, TokenRefusal> {
        let alg = self.alg();
        let header = decode_header(token).map_err(|_| {
            TokenRefusal::Malformed(format!(
                "expected a header with `alg` {alg}, claims and a signature in base64url (RFC 7515), with `.` between them"
            ))
        })?;
        if header.alg != self.algorithm {
            return Err(TokenRefusal::Algorithm(alg));
        }
        let mut validation = Validation::new(self.algorithm);
        validation.leeway = CLOCK_SECONDS;
        validation.validate_exp = validity == Validity::Now;
        validation.validate_nbf = validity == Validity::Now;
        let token = decode::<TokenClaims>(token, &self.key, &validation);
        let claims = token.map_err(|error| refusal(&error))?.claims;
        claims.check_id()?;
        claims.check_sessions()?;
        Ok(claims)
    }
}

fn refusal(error: &Error) -> TokenRefusal {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenRefusal::Signature,
        ErrorKind::ExpiredSignature => TokenRefusal::Expired,
        ErrorKind::ImmatureSignature => TokenRefusal::Early,
        ErrorKind::InvalidAudience => {
            TokenRefusal::Malformed("`aud` names another recipient; expected no `aud`".to_owned())
        }
        ErrorKind::MissingRequiredClaim(claim) => {
            TokenRefusal::Malformed(format!("`{claim}` is missing, or no number of seconds"))
        }
        ErrorKind::InvalidClaimFormat(claim) => {
            TokenRefusal::Malformed(format!("`{claim}` has another type than in RFC 7519"))
        }
        ErrorKind::Json(error) => TokenRefusal::Malformed(format!("claims: {error}")),
        ErrorKind::Base64(_) => TokenRefusal::Malformed(
            "expected base64url without padding (RFC 7515) in each part".to_owned(),
        ),
        _ => TokenRefusal::Malformed(
            "expected claims in JSON, and no `crit` or `b64` in the header".to_owned(),
        ),
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &TokenKey) -> bool {
        let bytes = |key: &TokenKey| key.key.try_get_as_bytes().map(<[u8]>::to_vec).ok();
        self.algorithm == other.algorithm && bytes(self) == bytes(other)
    }
}

/// Omits the key.
impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
