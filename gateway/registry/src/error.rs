//! Why a plugin was not pulled or published.

use std::path::PathBuf;

use evenkeel_config::PluginReference;
use evenkeel_http::HttpError;
use hyper::StatusCode;

/// Why a plugin was not pulled or published.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There was no whole answer.
    #[error("the registry {host} did not answer: {cause}")]
    NoAnswer {
        /// The registry.
        host: Box<str>,
        /// Why not.
        cause: HttpError,
    },
    /// There was no whole answer, and the plugin was not pulled before.
    #[error("the registry {host} did not answer; the cache has no {digest}: {cause}")]
    Offline {
        /// The registry.
        host: Box<str>,
        /// `sha256:…`.
        digest: Box<str>,
        /// Why not.
        cause: HttpError,
    },
    /// An error status.
    #[error("the registry {host} answered {status} to {request}{reason}")]
    Refused {
        /// The registry.
        host: Box<str>,
        status: StatusCode,
        /// Method and path.
        request: Box<str>,
        /// The registry's own words behind `: `, or nothing.
        reason: Box<str>,
    },
    /// The bytes have another digest. They were not parsed.
    #[error("the registry {host} sent other bytes than {expected}: found {bytes} bytes of {found}")]
    OtherBytes {
        /// The registry.
        host: Box<str>,
        /// `sha256:…` of the reference or manifest.
        expected: Box<str>,
        /// `sha256:…` of the bytes.
        found: Box<str>,
        /// Their number.
        bytes: usize,
    },
    /// The answer has not the form of the specification, or no plugin is there.
    #[error("the registry {host} sent {found}, expected {expected}")]
    Unfit {
        /// The registry.
        host: Box<str>,
        /// The answer.
        found: Box<str>,
        /// The form.
        expected: &'static str,
    },
    /// The challenge names a server that may not get the login.
    #[error(
        "the registry {host} asks for a token of {server}, which gets no login: set `token_server = \"{server}\"` in \
         [[registry]], or --token-server, if it is the registry's"
    )]
    TokenServer {
        /// The registry.
        host: Box<str>,
        /// Host and port of the server.
        server: Box<str>,
    },
    /// The host of the reference has not the form of one.
    #[error("found `{0}`, expected the host of a registry such as `registry.example:5000`")]
    NoHost(Box<str>),
    /// The plugin could not be kept.
    #[error("cannot keep {}: {error}", .path.display())]
    NotKept {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// `cache = "none"`.
    #[error("`cache = \"none\"`, so that no plugin can be kept")]
    NoCache,
}

impl RegistryError {
    /// True if the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            RegistryError::NoAnswer { cause, .. } => {
                !matches!(cause, HttpError::TooLong(_) | HttpError::Name(_) | HttpError::Request(_))
            }
            RegistryError::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    /// The error about a plugin that the cache lacks.
    pub(crate) fn without_cache(self, reference: &PluginReference) -> RegistryError {
        match (self, reference.digest()) {
            (RegistryError::NoAnswer { host, cause }, Some(digest)) => RegistryError::Offline {
                host,
                digest: crate::manifest::text(&digest).into(),
                cause,
            },
            (error, _) => error,
        }
    }
}
