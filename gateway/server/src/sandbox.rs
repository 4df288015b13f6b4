//! The privileges that the process gives up once its sockets are bound.

use evenkeel_config::GatewayConfig;
use evenkeel_process::sandbox::{self, MissingMeasure};

use super::paths::{ServeError, ServePaths};

/// The privileges that the process gave up.
pub(super) enum Sandbox {
    /// The configuration keeps them.
    Off,
    /// The process that this one replaces gave them up, for all that it starts. `wanted`: by the configuration too.
    Inherited {
        wanted: bool,
        missing: Vec<MissingMeasure>,
    },
    Entered(Vec<MissingMeasure>),
}

impl Sandbox {
    /// Gives up the privileges. The sockets are open, and no thread has been started, which would keep its own. Fails if
    /// the configuration cannot be read without them, since a reload could not read it either. A filter that is
    /// inherited is not installed again: each call would pass one more with each upgrade.
    pub(super) fn enter(
        place: &ServePaths,
        settings: &GatewayConfig,
        is_inherited: bool,
    ) -> Result<Sandbox, ServeError> {
        let wanted = settings.gateway.sandbox;
        if is_inherited {
            let missing = sandbox::hide_memory().err().into_iter().collect();
            return Ok(Sandbox::Inherited { wanted, missing });
        }
        if !wanted {
            return Ok(Sandbox::Off);
        }
        let was_privileged = sandbox::is_privileged();
        let missing = sandbox::confine([]);
        if was_privileged {
            place.load()?;
        }
        Ok(Sandbox::Entered(missing))
    }

    /// True if a process that this one starts needs no sandbox of its own.
    pub(super) fn is_confined(&self) -> bool {
        match self {
            Sandbox::Off => false,
            Sandbox::Inherited { .. } => true,
            Sandbox::Entered(missing) => missing.is_empty(),
        }
    }

    pub(super) fn log(&self) {
        match self {
            Sandbox::Off => tracing::warn!("sandbox is off ([gateway] sandbox = false)"),
            Sandbox::Inherited { wanted: true, .. } => tracing::info!("sandbox inherited"),
            Sandbox::Inherited { wanted: false, .. } => {
                tracing::warn!("sandbox is on until a restart: an upgrade cannot leave it");
            }
            Sandbox::Entered(missing) if missing.is_empty() => {
                tracing::info!("sandbox: no capabilities, system calls filtered, memory hidden");
            }
            Sandbox::Entered(_) => {}
        }
        if let Sandbox::Inherited { missing, .. } | Sandbox::Entered(missing) = self
            && !missing.is_empty()
        {
            let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
            tracing::warn!("kernel refused a part of the sandbox: {}", missing.join("; "));
        }
    }
}
