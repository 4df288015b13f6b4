//! Which gateway is spoken to, and how its refusals end a command.

use std::path::PathBuf;

use clap::Args;
use evenkeel_lab::admin::{Admin, Failed, Place};
use evenkeel_server::settings;

use crate::Failure;

/// Which gateway is spoken to.
#[derive(Args, Clone)]
pub(crate) struct Api {
    /// The API's Unix socket, or its TCP address; default: where `evenkeel run` listens
    #[arg(long, value_name = "SOCKET|ADDRESS", env = "EVENKEEL_API")]
    api: Option<String>,
    /// A file with the API's token, for TCP
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

impl Api {
    /// Runs what speaks with the API.
    pub(crate) fn with<T>(
        &self,
        speak: impl AsyncFnOnce(&mut Admin) -> Result<T, Failed>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let mut admin = self.client()?;
        runtime.block_on(speak(&mut admin)).map_err(|failed| match failed {
            Failed::Unreached(error) => Failure::NoGateway(format!(
                "no gateway answers at {}: {error}; start one with `evenkeel run`, or name another with --api",
                self.shown()
            )),
            failed => Failure::Failed(failed.to_string()),
        })
    }

    fn client(&self) -> Result<Admin, Failure> {
        let place = match self.shown().parse() {
            Ok(address) => Place::Tcp(address),
            Err(_) => Place::Unix(self.shown().into()),
        };
        let admin = Admin::new(place);
        let Some(path) = &self.token else {
            return Ok(admin);
        };
        let token = std::fs::read_to_string(path).map_err(|error| {
            Failure::Wrong(format!("cannot read the token {}: {error}", path.display()))
        })?;
        Ok(admin.with_token(token.trim_end()))
    }

    fn shown(&self) -> String {
        self.api.clone().unwrap_or_else(|| settings::Admin::default_socket().display().to_string())
    }
}
