//! Media servers and agents that run as processes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::SECRET;
use evenkeel_testkit::binary::evenkeel;

/// An `evenkeel` process, killed on drop.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(evenkeel());
        let mut child = command
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = line["listening"].as_str().unwrap().parse().unwrap();
        Process { child, address }
    }

    /// A media server without trunk support, which echoes media.
    pub(crate) fn server(name: &str, listen: &str) -> Process {
        Process::start(&["sample-node", "--name", name, "--listen", listen])
    }

    /// A media server that speaks the trunk protocol itself.
    pub(crate) fn node(name: &str, files: &AgentFiles) -> Process {
        let secret = files.folder.join("secret");
        let secret = secret.to_str().unwrap();
        let listen = "127.0.0.1:0";
        Process::start(&["sample-node", "--name", name, "--listen", listen, "--secret", secret])
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of an agent's files, removed on drop.
pub(crate) struct AgentFiles {
    folder: PathBuf,
}

impl AgentFiles {
    pub(crate) fn new(name: &str) -> AgentFiles {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("agent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("secret"), SECRET).unwrap();
        AgentFiles { folder }
    }

    /// Writes the pid file, as a daemon would.
    pub(crate) fn write_pid(&self, process: &Process) {
        std::fs::write(self.folder.join("pid"), format!("{}\n", process.child.id())).unwrap();
    }

    /// Starts an agent that watches the process of the pid file; `more` is appended to its configuration.
    pub(crate) fn agent(&self, more: &str) -> Process {
        let config = self.folder.join("agent.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nsecret_file = \"secret\"\n{more}\n[process]\npid_file = \"pid\"\n"
        );
        std::fs::write(&config, text).unwrap();
        Process::start(&["agent", "--config", config.to_str().unwrap()])
    }
}

impl Drop for AgentFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
