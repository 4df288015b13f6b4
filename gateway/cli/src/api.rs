//! The options that select a gateway, and exit codes for its refusals.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint, ClientError};
use hyper::Method;
use serde_json::Value;

use crate::CommandError;

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

    pub(crate) fn shown(&self) -> String {
        self.api.clone().unwrap_or_else(|| {
            evenkeel_config::AdminSettings::default_socket().display().to_string()
        })
    }
}
