//! The options that select a gateway, and exit codes for its refusals.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint, ClientError, Rising};
use hyper::Method;
use serde_json::Value;

use crate::CommandError;

/// Wait for a gateway that is starting: it compiles policies, and a demo opens sessions.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Wait for a gateway that shows no sign of starting, because it may have been started just now.
const APPEARS_WITHIN: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Args, Clone)]
pub(crate) struct ApiArgs {
    /// Unix socket or TCP address of the API; default: that of `evenkeel run`
    #[arg(long, value_name = "SOCKET|ADDRESS", env = "EVENKEEL_API", global = true)]
    api: Option<String>,
    /// File with the API's token, for TCP
    #[arg(long, value_name = "FILE", global = true)]
    token: Option<PathBuf>,
    /// Seconds to wait for an answer; compiling a large plugin takes several
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    timeout: u64,
}

impl ApiArgs {
    /// Returns the same options with a longer timeout.
    pub(crate) fn waiting_longer(&self, by: Duration) -> ApiArgs {
        ApiArgs { timeout: self.timeout.saturating_add(by.as_secs()), ..self.clone() }
    }

    pub(crate) fn with<T>(
        &self,
        speak: impl AsyncFnOnce(&mut ApiClient) -> Result<T, ClientError>,
    ) -> Result<T, CommandError> {
        self.speak(speak, |failed| CommandError::Failed(failed.to_string()))
    }

    /// Runs an operation. An unknown name counts as a wrong command line.
    pub(crate) fn operate<T>(
        &self,
        speak: impl AsyncFnOnce(&mut ApiClient) -> Result<T, ClientError>,
    ) -> Result<T, CommandError> {
        self.speak(speak, |failed| match failed {
            ClientError::Refused { status: 400 | 404, message, .. } => CommandError::Wrong(message),
            failed => CommandError::Failed(failed.to_string()),
        })
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, CommandError> {
        self.operate(async |admin| {
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let call = ApiCall { method: Method::POST, path, headers: &[], body: text.into() };
            admin.ask(call).await?.accepted()
        })
    }

    fn speak<T>(
        &self,
        speak: impl AsyncFnOnce(&mut ApiClient) -> Result<T, ClientError>,
        failure: impl FnOnce(ClientError) -> CommandError,
    ) -> Result<T, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let mut admin = self.client()?;
        let within = Duration::from_secs(self.timeout);
        let answer =
            runtime.block_on(async { tokio::time::timeout(within, speak(&mut admin)).await });
        let silent = |_| {
            let (shown, within) = (self.shown(), self.timeout);
            CommandError::NoGateway(format!(
                "the gateway at {shown} did not answer within {within} s"
            ))
        };
        answer.map_err(silent)?.map_err(|failed| match failed {
            ClientError::Unreached(error) if error.kind() == ErrorKind::PermissionDenied => {
                CommandError::NoGateway(format!(
                    "this user may not use {}: run the command as its owner or as root",
                    self.shown()
                ))
            }
            ClientError::Unreached(error) => CommandError::NoGateway(format!(
                "no gateway answers at {}: {error}; start one with `evenkeel run`, or name another with --api",
                self.shown()
            )),
            failed => failure(failed),
        })
    }

    /// Waits for a gateway up to [`STARTS_WITHIN`] if it is starting, else up to [`APPEARS_WITHIN`].
    pub(crate) fn await_gateway(&self) -> Result<(), CommandError> {
        let socket = PathBuf::from(self.shown());
        let began = Instant::now();
        loop {
            let rises = Rising::is_at(&socket);
            let status = self.with(async |admin| admin.read("/v1/status").await);
            let starting = |status: &Value| rises || status["state"] == "starting";
            let (within, outcome) = match status {
                Ok(status) if starting(&status) => (STARTS_WITHIN, Ok(())),
                Ok(_) => return Ok(()),
                Err(CommandError::NoGateway(words)) => {
                    let within = if rises { STARTS_WITHIN } else { APPEARS_WITHIN };
                    (within, Err(CommandError::NoGateway(words)))
                }
                Err(failed) => return Err(failed),
            };
            if began.elapsed() >= within {
                return outcome;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn client(&self) -> Result<ApiClient, CommandError> {
        let place = match self.shown().parse() {
            Ok(address) => ApiEndpoint::Tcp(address),
            Err(_) => ApiEndpoint::Unix(self.shown().into()),
        };
        let admin = ApiClient::new(place);
        let Some(path) = &self.token else {
            return Ok(admin);
        };
        let token = std::fs::read_to_string(path).map_err(|error| {
            CommandError::Wrong(format!("cannot read the token {}: {error}", path.display()))
        })?;
        Ok(admin.with_token(token.trim_end()))
    }

    fn shown(&self) -> String {
        self.api.clone().unwrap_or_else(|| {
            evenkeel_config::AdminSettings::default_socket().display().to_string()
        })
    }
}
