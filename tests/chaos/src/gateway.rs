//! A gateway's process, and the process that replaces it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_lab::process::{ChildProcess, ProcessError};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::process;
use crate::stage::Places;

type Start = fn(&str, &Path, &[&str], &Path) -> Result<ChildProcess, ProcessError>;

/// It is killed when this is dropped.
pub(crate) struct Gateway {
    name: &'static str,
    /// Holds the gateway's files.
    folder: PathBuf,
    pub(crate) process: ChildProcess,
    successor: Option<Successor>,
    /// The socket of its API.
    pub(crate) socket: PathBuf,
    pub(crate) udp: SocketAddr,
}

impl Gateway {
    /// Starts a gateway with `evenkeel.toml` of this folder, in the network namespace of this thread.
    pub(crate) fn start(
        name: &'static str,
        folder: PathBuf,
        program: &Path,
        places: &Places,
        has_host: bool,
    ) -> Result<Gateway, String> {
        let start = if has_host { process::start_apart } else { process::start };
        Gateway::start_with(start, name, folder, program, places)
    }

    fn start_with(
        start: Start,
        name: &'static str,
        folder: PathBuf,
        program: &Path,
        places: &Places,
    ) -> Result<Gateway, String> {
        let config = folder.join("evenkeel.toml").display().to_string();
        let words = ["run", "--config", &config, "--json"];
        let mut process = start(name, program, &words, &places.folder)?;
        let listening = process.json_line(process::FIRST_LINE_WITHIN)?;
        let udp = listening["udp"][0].as_str().and_then(|udp| udp.parse().ok());
        let (Some(udp), Some(socket)) = (udp, listening["socket"].as_str()) else {
            return Err(process.error(format!("said {listening}")).into());
        };
        let socket = socket.into();
        Ok(Gateway { name, folder, process, successor: None, socket, udp })
    }

    /// Starts it again with the same files, after it has ended, by the newer program if there are two. It has low priority until it is raised.
    pub(crate) fn start_again(&mut self, places: &Places) -> Result<(), String> {
        let (low, folder) = (process::start_low, self.folder.clone());
        *self = Gateway::start_with(low, self.name, folder, &places.evenkeel, places)?;
        Ok(())
    }

    pub(crate) fn raise(&self) -> Result<(), String> {
        process::raise(&self.process)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A new client of the admin API.
    pub(crate) fn admin(&self) -> ApiClient {
        ApiClient::new(ApiEndpoint::Unix(self.socket.clone()))
    }

    /// The error of a request to it, with the end of its log.
    pub(crate) fn request_error<E: Display>(&self, action: &str) -> impl FnOnce(E) -> String {
        move |error| self.process.error(format!("{action}: {error}")).into()
    }

    /// Reads `/v1/LIST`, an object with a list of this name.
    pub(crate) async fn read_list(&self, list: &str) -> Result<Vec<Value>, String> {
        let read = self.admin().read(&format!("/v1/{list}")).await;
        let read = read.map_err(self.request_error(&format!("listing {list}")))?;
        Ok(read[list].as_array().cloned().unwrap_or_default())
    }

    /// Replaces the process by a new one, of the newer program if there are two.
    pub(crate) async fn upgrade(&mut self, places: &Places) -> Result<(), String> {
        let newer = places.from.as_ref().map(|_| json!({"binary": places.evenkeel}));
        let request = newer.unwrap_or_else(|| json!({}));
        let answer = self.admin().post("/v1/gateway:upgrade", &request).await;
        let answer = answer.map_err(|error| format!("upgrading the gateway: {error}"))?;
        let process = answer["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let process = process.ok_or_else(|| format!("upgrading the gateway: {answer}"))?;
        // The process before it has ended, or does so now.
        self.successor = Some(Successor(Pid::from_raw(process)));
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        match &self.successor {
            // This process is its parent once the process that started it has ended.
            Some(Successor(process)) => match waitpid(*process, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => status == WaitStatus::StillAlive,
                Err(_) => kill(*process, None).is_ok(),
            },
            None => self.process.is_running(),
        }
    }
}

/// A gateway's process that another one started. It is killed when this is dropped.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = kill(self.0, Signal::SIGKILL);
    }
}
