//! Which gateway is spoken to, and how its refusals end a command.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel_client::{Admin, Call, Failed, Place, Rising};
use evenkeel_server::settings;
use hyper::Method;
use serde_json::Value;

use crate::Failure;

/// How long a gateway that says it is coming up is waited for: it compiles policies, and a demo's sessions come in.
const COMES_UP_WITHIN: Duration = Duration::from_secs(60);
/// How long one is waited for of which nothing is seen: what was started just before may not have said so yet.
const MOMENT: Duration = Duration::from_secs(1);
/// How often is looked meanwhile.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// Which gateway is spoken to.
#[derive(Args, Clone)]
pub(crate) struct Api {
    /// The API's Unix socket, or its TCP address; default: where `evenkeel run` listens
    #[arg(long, value_name = "SOCKET|ADDRESS", env = "EVENKEEL_API", global = true)]
    api: Option<String>,
    /// A file with the API's token, for TCP
    #[arg(long, value_name = "FILE", global = true)]
    token: Option<PathBuf>,
    /// Seconds after which no answer is awaited any more; to compile a large plugin takes several
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    timeout: u64,
}

impl Api {
    /// The same, with more patience: for what takes so long by itself.
    pub(crate) fn waiting_longer(&self, by: Duration) -> Api {
        Api { timeout: self.timeout.saturating_add(by.as_secs()), ..self.clone() }
    }

    /// Runs what speaks with the API.
    pub(crate) fn with<T>(
        &self,
        speak: impl AsyncFnOnce(&mut Admin) -> Result<T, Failed>,
    ) -> Result<T, Failure> {
        self.speak(speak, |failed| Failure::Failed(failed.to_string()))
    }

    /// The same for an operator's verb: what names nothing that is there is a wrong command line.
    pub(crate) fn operate<T>(
        &self,
        speak: impl AsyncFnOnce(&mut Admin) -> Result<T, Failed>,
    ) -> Result<T, Failure> {
        self.speak(speak, |failed| match failed {
            Failed::Refused { status: 400 | 404, message, .. } => Failure::Wrong(message),
            failed => Failure::Failed(failed.to_string()),
        })
    }

    /// Has the API do something.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.operate(async |admin| {
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let call = Call { method: Method::POST, path, headers: &[], body: text.into() };
            admin.ask(call).await?.accepted()
        })
    }

    fn speak<T>(
        &self,
        speak: impl AsyncFnOnce(&mut Admin) -> Result<T, Failed>,
        failure: impl FnOnce(Failed) -> Failure,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let mut admin = self.client()?;
        let within = Duration::from_secs(self.timeout);
        let answer =
            runtime.block_on(async { tokio::time::timeout(within, speak(&mut admin)).await });
        let silent = |_| {
            let (shown, within) = (self.shown(), self.timeout);
            Failure::NoGateway(format!("the gateway at {shown} did not answer within {within} s"))
        };
        answer.map_err(silent)?.map_err(|failed| match failed {
            Failed::Unreached(error) => Failure::NoGateway(format!(
                "no gateway answers at {}: {error}; start one with `evenkeel run`, or name another with --api",
                self.shown()
            )),
            failed => failure(failed),
        })
    }

    /// Waits for a gateway that is coming up, and no longer than a moment where nothing is seen of one.
    pub(crate) fn await_gateway(&self) -> Result<(), Failure> {
        let socket = PathBuf::from(self.shown());
        let began = Instant::now();
        loop {
            let rises = Rising::is_at(&socket);
            let status = self.with(async |admin| admin.read("/v1/status").await);
            let starting = |status: &Value| rises || status["state"] == "starting";
            let (within, outcome) = match status {
                Ok(status) if starting(&status) => (COMES_UP_WITHIN, Ok(())),
                Ok(_) => return Ok(()),
                Err(Failure::NoGateway(words)) => {
                    let within = if rises { COMES_UP_WITHIN } else { MOMENT };
                    (within, Err(Failure::NoGateway(words)))
                }
                Err(failed) => return Err(failed),
            };
            if began.elapsed() >= within {
                return outcome;
            }
            std::thread::sleep(LOOKS_EVERY);
        }
    }

    pub(crate) fn client(&self) -> Result<Admin, Failure> {
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

/// A name as a piece of a path (RFC 3986, section 3.3).
pub(crate) fn segment(name: &str) -> String {
    let mut segment = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(byte.into());
            }
            other => segment += &format!("%{other:02X}"),
        }
    }
    segment
}
