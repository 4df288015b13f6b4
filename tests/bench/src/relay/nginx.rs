//! nginx as a UDP proxy: its `stream` module, one process, a socket per session.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::load::Wire;

use super::{Kind, Places, Running, Stage, rig, system, write};
use crate::namespace::RELAY;
use crate::process;

const PROGRAM: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const PORT: u16 = 5_001;

pub(super) fn missing() -> Option<String> {
    let absent = [PROGRAM, MODULE].into_iter().find(|path| !Path::new(path).exists());
    absent.map(|path| format!("{path} is not there (nginx-light, libnginx-mod-stream)"))
}

pub(super) fn start(stage: Stage, places: &Places) -> Result<Running, String> {
    let rig = rig(stage, Wire::Port, Vec::new())?;
    let listen = SocketAddr::from((RELAY, PORT));
    let mut servers = String::new();
    for node in rig.nodes_at().map_err(system)? {
        writeln!(servers, "    server {node};").map_err(|error| error.to_string())?;
    }
    let folder = places.folder.display();
    // A session has two connections, one at each side.
    let connections = 2 * stage.sessions + 1_024;
    let config = format!(
        "load_module {MODULE};\n\
         user root;\n\
         daemon off;\n\
         master_process off;\n\
         worker_rlimit_nofile 20000;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr warn;\n\
         events {{ worker_connections {connections}; }}\n\
         stream {{\n\
         \x20 upstream nodes {{\n{servers}  }}\n\
         \x20 server {{ listen {listen} udp rcvbuf=4m sndbuf=4m; proxy_pass nodes; proxy_timeout 1h; }}\n\
         }}\n"
    );
    let config = write(&places.folder, "nginx.conf", &config)?;
    let words = ["-c".to_owned(), config.display().to_string(), "-e".into(), "stderr".into()];
    let process = process::start("nginx", Path::new(PROGRAM), &words, b"", &places.folder)?;
    for session in (0..).take(stage.sessions) {
        rig.connect(session, listen).map_err(system)?;
    }
    Ok(Running { kind: Kind::Nginx, process, rig, api: None })
}
