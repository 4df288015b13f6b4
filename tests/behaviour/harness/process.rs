//! Media servers and agents that run as processes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::binary::evenkeel;
use tempfile::{TempDir, tempdir};

use super::{GATEWAYS, SECRET, TIMEOUT};

/// An `evenkeel` process that listens.
pub(crate) struct Server {
    pub(crate) process: ChildProcess,
    pub(crate) address: SocketAddr,
}

impl Server {
    fn start(arguments: &[&str], folder: &Path) -> Server {
        let mut command = Command::new(evenkeel());
        command.args(arguments).arg("--json");
        let mut process = ChildProcess::start(arguments[0], &mut command, folder).unwrap();
        let line = process.json_line(TIMEOUT).unwrap();
        let address = line["listening"].as_str().unwrap().parse().unwrap();
        Server { process, address }
    }
}

/// The folder of an agent's files, removed on drop.
pub(crate) struct AgentFiles {
    folder: TempDir,
}

impl AgentFiles {
    pub(crate) fn new() -> AgentFiles {
        let folder = tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        AgentFiles { folder }
    }

    /// A media server without trunk support, which echoes media.
    pub(crate) fn server(&self, name: &str, listen: &str) -> Server {
        Server::start(&["sample-node", "--name", name, "--listen", listen], self.folder.path())
    }

    /// A media server that speaks the trunk protocol itself.
    pub(crate) fn node(&self, name: &str) -> Server {
        let secret = self.folder.path().join("secret");
        let secret = secret.to_str().unwrap();
        let listen = "127.0.0.1:0";
        let words = ["sample-node", "--name", name, "--listen", listen, "--secret", secret];
        Server::start(&words, self.folder.path())
    }

    /// The agent beside the first of two gateways of a group, in the network namespace of this thread.
    pub(crate) fn gateway_agent(&self) -> Server {
        let [(name, own), (_, peer), _] = GATEWAYS;
        let config = self.folder.path().join("agent.toml");
        let text = format!(
            "name = \"{name}\"\nlisten = \"{own}:7200\"\nsecret_file = \"secret\"\n\
             [gateway]\naddress = \"{own}:7100\"\npeer = \"{peer}:7100\"\n"
        );
        std::fs::write(&config, text).unwrap();
        Server::start(&["agent", "--config", config.to_str().unwrap()], self.folder.path())
    }

    /// A witness of groups, in the network namespace of this thread.
    pub(crate) fn witness(&self, name: &str, listen: &str) -> Server {
        let config = self.folder.path().join("witness.toml");
        let text = format!("name = \"{name}\"\nlisten = \"{listen}\"\nsecret_file = \"secret\"\n");
        std::fs::write(&config, text).unwrap();
        Server::start(&["witness", "--config", config.to_str().unwrap()], self.folder.path())
    }

    /// Writes the pid file, as a daemon would.
    pub(crate) fn write_pid(&self, server: &Server) {
        let pid = format!("{}\n", server.process.id());
        std::fs::write(self.folder.path().join("pid"), pid).unwrap();
    }

    /// Starts the agent of node `east-a9`, which watches the process of the pid file; `more` is appended to its
    /// configuration.
    pub(crate) fn agent(&self, more: &str) -> Server {
        let config = self.folder.path().join("agent.toml");
        let text = format!(
            "name = \"east-a9\"\nlisten = \"127.0.0.1:0\"\nsecret_file = \"secret\"\n{more}\n\
             [process]\npid_file = \"pid\"\n"
        );
        std::fs::write(&config, text).unwrap();
        Server::start(&["agent", "--config", config.to_str().unwrap()], self.folder.path())
    }
}
