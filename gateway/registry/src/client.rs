//! Requests to one registry (OCI distribution-spec 1.1), with authentication and retries.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use evenkeel_client::escape;
use evenkeel_config::{RegistrySettings, SecretFile, Url};
use evenkeel_http::{HttpClient, HttpError, HttpRequest};
use evenkeel_process::{lock, sha256};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, WWW_AUTHENTICATE,
};
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::error::RegistryError;
use crate::manifest::{self, MANIFEST, MANIFEST_BYTES_MAX, PluginLayer};

/// Attempts of a request without an answer, or with an error of the server.
const TRIES: u32 = 3;

/// Pause before the second attempt; it doubles with each further one.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A registry may keep plugins at another server, which may send on once more.
const REDIRECTIONS_MAX: usize = 3;

/// Maximum size of an answer that is neither manifest nor plugin.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Maximum length of the registry's own words in an error.
const REASON_CHARACTERS_MAX: usize = 200;

/// Talks with one registry.
pub(crate) struct RegistryClient {
    http: HttpClient,
    settings: RegistrySettings,
    root: Url,
    /// As the last challenge asked for.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Repeats an attempt after errors that may pass.
pub(crate) async fn retry<T>(
    attempt: impl AsyncFn() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut pause = AGAIN_AFTER;
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if error.is_transient() => {}
            outcome => return outcome,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    attempt().await
}

fn request(method: Method, url: Url) -> HttpRequest {
    let (headers, body, answer_max) = (HeaderMap::new(), Bytes::new(), ANSWER_BYTES_MAX);
    HttpRequest { method, url, headers, body, answer_max }
}

fn with(mut request: HttpRequest, name: HeaderName, value: &'static str) -> HttpRequest {
    request.headers.insert(name, HeaderValue::from_static(value));
    request
}

impl RegistryClient {
    pub(crate) fn new(registry: &RegistrySettings) -> Result<RegistryClient, RegistryError> {
        let root = registry.url().ok_or_else(|| RegistryError::NoHost(registry.host.clone()))?;
        let (http, authorization) = (HttpClient::default(), Mutex::default());
        Ok(RegistryClient { http, settings: registry.clone(), root, authorization })
    }

    /// Pulls a manifest (section "Pulling manifests"): by digest, with which it is compared, or by tag.
    pub(crate) async fn manifest(
        &self,
        name: &str,
        tag: Option<&str>,
        digest: Option<&[u8; 32]>,
    ) -> Result<Bytes, RegistryError> {
        let reference = digest.map(manifest::text);
        let reference = reference.as_deref().or(tag).unwrap_or("latest");
        let url = self.url(&format!("/v2/{name}/manifests/{reference}"))?;
        let asked = with(request(Method::GET, url), ACCEPT, MANIFEST);
        let asked = HttpRequest { answer_max: MANIFEST_BYTES_MAX, ..asked };
        let answer = self.expect(asked, StatusCode::OK).await?;
        let manifest = answer.into_body();
        if let Some(digest) = digest {
            self.compare(&manifest, digest)?;
        }
        Ok(manifest)
    }

    /// Pulls a plugin (section "Pulling blobs"), and compares it with its digest.
    pub(crate) async fn plugin(
        &self,
        name: &str,
        layer: &PluginLayer,
    ) -> Result<Bytes, RegistryError> {
        let digest = manifest::text(&layer.digest);
        let mut url = self.url(&format!("/v2/{name}/blobs/{digest}"))?;
        for _ in 0..=REDIRECTIONS_MAX {
            let answer_max = layer.bytes.max(ANSWER_BYTES_MAX);
            let asked = HttpRequest { answer_max, ..request(Method::GET, url.clone()) };
            let answer = self.send(asked.clone()).await?;
            if !answer.status().is_redirection() {
                let plugin = self.require(&asked, answer, StatusCode::OK)?.into_body();
                self.compare(&plugin, &layer.digest)?;
                return Ok(plugin);
            }
            url = self.location(&url, answer.headers())?;
        }
        let found = format!("more than {REDIRECTIONS_MAX} redirections");
        Err(self.unfit(found, "a plugin"))
    }

    /// Pushes content that the registry lacks (section "Pushing a blob in chunks", "POST then PUT").
    pub(crate) async fn upload(&self, name: &str, content: Bytes) -> Result<(), RegistryError> {
        let digest = manifest::text(&sha256(&content));
        let url = self.url(&format!("/v2/{name}/blobs/{digest}"))?;
        let asked = request(Method::HEAD, url);
        let answer = self.send(asked.clone()).await?;
        if answer.status() != StatusCode::NOT_FOUND {
            return self.require(&asked, answer, StatusCode::OK).map(drop);
        }
        let url = self.url(&format!("/v2/{name}/blobs/uploads/"))?;
        let asked = with(request(Method::POST, url.clone()), CONTENT_LENGTH, "0");
        let answer = self.expect(asked, StatusCode::ACCEPTED).await?;
        let place = self.location(&url, answer.headers())?;
        let separator = if place.path().contains('?') { '&' } else { '?' };
        let place = format!("{place}{separator}digest={}", escape(&digest));
        let place = self.parse(&place)?;
        let asked = with(request(Method::PUT, place), CONTENT_TYPE, "application/octet-stream");
        self.expect(HttpRequest { body: content, ..asked }, StatusCode::CREATED).await.map(drop)
    }

    /// Pushes a manifest (section "Pushing Manifests").
    pub(crate) async fn push_manifest(
        &self,
        name: &str,
        tag: Option<&str>,
        manifest: Bytes,
    ) -> Result<(), RegistryError> {
        let digest = manifest::text(&sha256(&manifest));
        let url = self.url(&format!("/v2/{name}/manifests/{}", tag.unwrap_or(&digest)))?;
        let asked = with(request(Method::PUT, url), CONTENT_TYPE, MANIFEST);
        self.expect(HttpRequest { body: manifest, ..asked }, StatusCode::CREATED).await.map(drop)
    }

    pub(crate) fn no_answer(&self, cause: HttpError) -> RegistryError {
        RegistryError::NoAnswer { host: self.settings.host.clone(), cause }
    }

    pub(crate) fn unfit(&self, found: String, expected: &'static str) -> RegistryError {
        RegistryError::Unfit { host: self.settings.host.clone(), found: found.into(), expected }
    }

    fn compare(&self, bytes: &[u8], digest: &[u8; 32]) -> Result<(), RegistryError> {
        let found = sha256(bytes);
        if found == *digest {
            return Ok(());
        }
        let (host, expected) = (self.settings.host.clone(), manifest::text(digest).into());
        let found = manifest::text(&found).into();
        Err(RegistryError::OtherBytes { host, expected, found, bytes: bytes.len() })
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.parse(&format!("{}{path}", self.root.to_string().trim_end_matches('/')))
    }

    fn parse(&self, url: &str) -> Result<Url, RegistryError> {
        url.parse().map_err(|_| self.unfit(format!("`{url}`"), "a URL"))
    }

    /// Checks that requests may go to a URL that the registry names: a registry with TLS leads to none without.
    fn admit(&self, url: Url) -> Result<Url, RegistryError> {
        if url.is_https() || url.is_local() || !self.root.is_https() {
            return Ok(url);
        }
        Err(self.unfit(format!("`{url}`"), "an `https` URL"))
    }

    /// The URL to which an answer leads (RFC 9110, section 10.2.2).
    fn location(&self, of: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
        let found = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let found = found.ok_or_else(|| self.unfit("no location".to_owned(), "`Location`"))?;
        if !found.starts_with('/') || found.starts_with("//") {
            return self.admit(self.parse(found)?);
        }
        let scheme = if of.is_https() { "https" } else { "http" };
        self.parse(&format!("{scheme}://{}{found}", of.authority()))
    }

    async fn expect(
        &self,
        asked: HttpRequest,
        expected: StatusCode,
    ) -> Result<Response<Bytes>, RegistryError> {
        let answer = self.send(asked.clone()).await?;
        self.require(&asked, answer, expected)
    }

    /// Returns the answer if it has this status.
    fn require(
        &self,
        asked: &HttpRequest,
        answer: Response<Bytes>,
        expected: StatusCode,
    ) -> Result<Response<Bytes>, RegistryError> {
        let status = answer.status();
        if status == expected {
            return Ok(answer);
        }
        let request = format!("{} {}", asked.method, asked.url.path()).into();
        let reason = reason(answer.body()).into();
        Err(RegistryError::Refused { host: self.settings.host.clone(), status, request, reason })
    }

    /// Sends a request; once more if the registry asks for authentication that this client can give.
    async fn send(&self, asked: HttpRequest) -> Result<Response<Bytes>, RegistryError> {
        let answer = self.send_once(asked.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !self.is_own(&asked.url) {
            return Ok(answer);
        }
        let Some(authorization) = self.authorize(answer.headers()).await? else {
            return Ok(answer);
        };
        *lock(&self.authorization) = Some(authorization);
        self.send_once(asked).await
    }

    async fn send_once(&self, mut asked: HttpRequest) -> Result<Response<Bytes>, RegistryError> {
        let authorization = lock(&self.authorization).clone();
        // Another server gets no login or token of this one.
        if let Some(authorization) = authorization.filter(|_| self.is_own(&asked.url)) {
            asked.headers.insert(AUTHORIZATION, authorization);
        }
        self.http.request(asked).await.map_err(|cause| self.no_answer(cause))
    }

    fn is_own(&self, url: &Url) -> bool {
        url.authority() == self.root.authority() && url.is_https() == self.root.is_https()
    }

    /// The authorization that one of the challenges asks for.
    async fn authorize(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, RegistryError> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> =
            values.filter_map(|value| Challenge::parse(value.to_str().ok()?)).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(challenge) = of("bearer") {
            return self.token(challenge).await.map(Some);
        }
        Ok(of("basic").and(self.settings.login.as_ref()).map(basic))
    }

    /// Asks the token server of the challenge for a bearer token (RFC 6750; the request is that of the registry's token authentication,
    /// which distribution-spec leaves to registries). A registry that is not trusted with the login elsewhere cannot name the server
    /// that gets it.
    async fn token(&self, challenge: &Challenge) -> Result<HeaderValue, RegistryError> {
        let realm = challenge.get("realm");
        let mut url = realm
            .ok_or_else(|| self.unfit("a challenge without a realm".to_owned(), "`realm`"))?
            .to_owned();
        for key in ["service", "scope"] {
            if let Some(value) = challenge.get(key) {
                let separator = if url.contains('?') { '&' } else { '?' };
                url += &format!("{separator}{key}={}", escape(value));
            }
        }
        let mut asked = request(Method::GET, self.admit(self.parse(&url)?)?);
        if let Some(login) = &self.settings.login {
            if !self.settings.trusts_token_server(&asked.url) {
                let (host, server) = (self.settings.host.clone(), asked.url.authority().into());
                return Err(RegistryError::TokenServer { host, server });
            }
            asked.headers.insert(AUTHORIZATION, basic(login));
        }
        let answer = self.http.request(asked.clone()).await;
        let answer = answer.map_err(|cause| self.no_answer(cause))?;
        let answer = self.require(&asked, answer, StatusCode::OK)?;
        let TokenAnswer { token, access_token } = serde_json::from_slice(answer.body())
            .map_err(|_| self.unfit("no object of JSON".to_owned(), "a token"))?;
        let bearer = token.or(access_token).map(|token| format!("Bearer {token}"));
        let value = bearer.and_then(|bearer| HeaderValue::from_str(&bearer).ok());
        let mut value = value.ok_or_else(|| self.unfit("no token".to_owned(), "a token"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    /// The same, as in OAuth 2.0 (RFC 6749, section 5.1).
    access_token: Option<String>,
}

/// RFC 7617, section 2.
fn basic(login: &SecretFile) -> HeaderValue {
    let text = format!("Basic {}", BASE64.encode(login.bytes()));
    let mut value = HeaderValue::from_str(&text).expect("Base64 has no control characters");
    value.set_sensitive(true);
    value
}

/// The registry's own words behind `: ` (section "Error Codes"), or nothing.
fn reason(body: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &answer["errors"][0];
    let words = ["code", "message"].map(|key| error[key].as_str().unwrap_or_default());
    let words = words.into_iter().filter(|word| !word.is_empty());
    let text: String = words.flat_map(|word| [": ", word]).collect();
    text.chars().take(REASON_CHARACTERS_MAX).collect()
}
