//! Checks whether this host has room for the sessions of the owner that a standby here follows (`[limits] host_sessions`).
//!
//! Each process writes its sessions to a file beside the socket of its API. It keeps a lock on the file: the system releases the lock
//! of a process that has ended.

use std::convert::Infallible;
use std::fs::{self, File, Metadata, TryLockError};
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_config::{GatewayConfig, PeerSettings};
use evenkeel_control::Handle;
use evenkeel_group::{Group, GroupOwnership, GroupRole, HostWarning};
use evenkeel_process::{file, lock};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Interval of the checks, as of the rehearsal of the standby.
const CHECKED_EVERY: Duration = Duration::from_secs(2);

/// The end of the files' names.
const SESSIONS_EXTENSION: &str = "sessions";

/// Maximum size of a file: two numbers and an address, with space for fields of later versions.
const BYTES_MAX: u64 = 1_024;

/// Checks until it is dropped: a check that fails ends no gateway.
pub(super) async fn follow(
    settings: &GatewayConfig,
    handle: &Handle,
    group: Option<Group>,
) -> Infallible {
    let Some(limit) = settings.limits.host_sessions else { return pending().await };
    let peers = settings.cluster.as_ref().map(|cluster| cluster.peers.as_slice());
    let peers = peers.unwrap_or_default();
    let file = Arc::new(Mutex::new(SessionsFile::beside(&settings.admin.socket)));
    let mut logged = None;
    loop {
        let Ok(status) = handle.status().await else {
            sleep(CHECKED_EVERY).await;
            continue;
        };
        let own = ProcessSessions::of(status.sessions, group.as_ref(), peers);
        let file = Arc::clone(&file);
        let exchanged = spawn_blocking(move || lock(&file).exchange(own)).await;
        let warning = match exchanged.unwrap_or_else(|error| Err(error.into())) {
            Ok(others) => own.warning(&others, limit, peers),
            Err(error) => Some(HostWarning::Unchecked(error.to_string())),
        };
        if let Some(group) = &group {
            group.set_host_warning(warning);
        } else if warning != logged {
            warning.iter().for_each(|warning| tracing::warn!("{warning}"));
            logged = warning;
        }
        sleep(CHECKED_EVERY).await;
    }
}

/// The sessions of one process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct ProcessSessions {
    /// Sessions that it serves.
    serves: u32,
    /// Sessions that a takeover would add.
    copies: u32,
    /// Of a standby: the address of its owner's host.
    owner: Option<IpAddr>,
}

impl ProcessSessions {
    fn of(sessions: usize, group: Option<&Group>, peers: &[PeerSettings]) -> ProcessSessions {
        let Some(group) = group else {
            return ProcessSessions::in_role(GroupRole::Owner, sessions, 0, None);
        };
        let gateways = group.status().gateways;
        let copies = gateways.iter().find(|gateway| gateway.here).map_or(0, |here| here.sessions);
        let owner = match group.owner() {
            GroupOwnership::Peer(name) => peers.iter().find(|peer| peer.name == name),
            _ => None,
        };
        let owner = owner.map(|owner| owner.address.ip());
        ProcessSessions::in_role(group.role().0, sessions, copies, owner)
    }

    /// A standby serves none; its copies count if it takes over.
    fn in_role(
        role: GroupRole,
        sessions: usize,
        copies: usize,
        owner: Option<IpAddr>,
    ) -> ProcessSessions {
        let bounded = |number| u32::try_from(number).unwrap_or(u32::MAX);
        match role {
            GroupRole::Owner | GroupRole::Restoring | GroupRole::Doubting => {
                ProcessSessions { serves: bounded(sessions), ..ProcessSessions::default() }
            }
            GroupRole::Standby => ProcessSessions { serves: 0, copies: bounded(copies), owner },
            GroupRole::Joining | GroupRole::Spare | GroupRole::Silent => ProcessSessions::default(),
        }
    }

    /// Assumes the failure of one host, which ends all owners there.
    fn warning(
        self,
        others: &[ProcessSessions],
        limit: u32,
        peers: &[PeerSettings],
    ) -> Option<HostWarning> {
        let owner = peers.iter().find(|peer| Some(peer.address.ip()) == self.owner)?;
        let all = others.iter().chain([&self]);
        let copies = |process: &ProcessSessions| match process.owner == self.owner {
            true => u64::from(process.copies),
            false => 0,
        };
        let sum: u64 = all.map(|process| u64::from(process.serves) + copies(process)).sum();
        let owner = owner.name.clone();
        (sum > limit.into()).then_some(HostWarning::Full { owner, limit })
    }
}

/// The file of this process.
struct SessionsFile {
    path: PathBuf,
    lock: Option<File>,
}

impl SessionsFile {
    fn beside(socket: &Path) -> SessionsFile {
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let mut path = socket.into_os_string();
        path.push(format!(".{SESSIONS_EXTENSION}"));
        SessionsFile { path: path.into(), lock: None }
    }

    /// Writes the sessions of this process, and returns those of the other ones.
    fn exchange(&mut self, own: ProcessSessions) -> io::Result<Vec<ProcessSessions>> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::metadata(folder)
            .and_then(|facts| require_own(&facts))
            .map_err(|error| with_path(folder, &error))?;
        let locked = file::replace_locked(&self.path, &serde_json::to_vec(&own)?)
            .map_err(|error| with_path(&self.path, &error))?;
        drop(self.lock.replace(locked));
        let mut others = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path == self.path || path.extension().is_none_or(|it| it != SESSIONS_EXTENSION) {
                continue;
            }
            match read_living(&path) {
                // Another process has removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(with_path(&path, &error)),
                Ok(living) => others.extend(living),
            }
        }
        Ok(others)
    }
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads the sessions of a living process. Removes the file of a process that has ended; a file of another form is an error and stays.
fn read_living(path: &Path) -> io::Result<Option<ProcessSessions>> {
    let sessions = serde_json::from_slice(&file::read(path, BYTES_MAX)?)?;
    let file = File::open(path)?;
    require_own(&file.metadata()?)?;
    match file.try_lock_shared() {
        // A living process may have replaced the file since it was opened.
        Ok(()) if fs::metadata(path)?.ino() == file.metadata()?.ino() => {
            fs::remove_file(path)?;
            Ok(None)
        }
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(Some(sessions)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Requires that no other user, except root, can write there.
fn require_own(facts: &Metadata) -> io::Result<()> {
    let is_own = facts.uid() == geteuid().as_raw() || facts.uid() == 0;
    if is_own && facts.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::PermissionDenied, "other users may write there"))
}

#[cfg(test)]
mod tests;
