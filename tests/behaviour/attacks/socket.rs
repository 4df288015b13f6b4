//! Other users at the path of the API's socket: they get no byte, stop no command and no gateway, and are named.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use evenkeel_client::{ApiClient, ApiEndpoint, ClientError};
use evenkeel_config::AdminSettings;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use nix::sys::socket::{Backlog, listen};
use serde_json::Value;
use tempfile::tempdir;

use crate::harness::{TIMEOUT, wait_until};

/// The other user; it has no account.
const OTHER: u32 = 61_234;

/// The environment variable with the path that the other user takes.
const SQUATTED: &str = "EVENKEEL_SQUATTED";

/// Runs an ignored test of this file as the other user.
fn as_other_user(test: &str, path: &Path, folder: &Path) -> ChildProcess {
    // The other user need not reach the folder of the program.
    let mut command = Command::new("/proc/self/exe");
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    command.args(["--exact", &name, "--ignored", "--nocapture"]).env(SQUATTED, path);
    command.env_remove("XDG_RUNTIME_DIR").current_dir("/").uid(OTHER).gid(OTHER);
    ChildProcess::start("other-user", &mut command, folder).unwrap()
}

/// The `count` lines that begin with this word. The test runner may have begun the first line.
fn lines_of(process: &ChildProcess, word: &str, count: usize) -> Vec<String> {
    let find = |lines: &[String]| {
        let found = lines.iter().filter_map(|line| line.find(word).map(|at| line[at..].to_owned()));
        let found: Vec<String> = found.collect();
        (found.len() >= count).then_some(found)
    };
    process.wait_for(word, TIMEOUT, find).unwrap()
}

fn gateway(folder: &Path, socket: &Path) -> ChildProcess {
    let config = folder.join("evenkeel.toml");
    let text = format!(
        "[gateway]\ncache = \"none\"\n[admin]\nsocket = {socket:?}\n[limits]\nworkers = 1\n\
         [[listen]]\nudp = \"127.0.0.1:0\"\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(evenkeel());
    command.args(["run", "--json", "--config"]).arg(config);
    ChildProcess::start("gateway", &mut command, folder).unwrap()
}

/// Reads the status over the library; an answer or an error comes in time.
fn read_status(socket: &Path) -> Result<Value, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut client = ApiClient::new(ApiEndpoint::Unix(socket.to_owned()));
    let asked = async { tokio::time::timeout(TIMEOUT, client.read("/v1/status")).await };
    runtime.block_on(asked).expect("the client does not wait")
}

/// Reads the status by the command line.
fn status(socket: &Path) -> Output {
    let mut command = Command::new(evenkeel());
    command.args(["status", "--timeout", "10", "--api"]).arg(socket).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts a gateway that refuses its socket's path, and returns its error.
fn refused(folder: &Path, socket: &Path) -> String {
    let mut process = gateway(folder, socket);
    let ended = process.wait(TIMEOUT).unwrap();
    assert_eq!(ended.code(), Some(1), "{}", process.log());
    process.all_lines(TIMEOUT).join("\n")
}

#[required(Root)]
#[test]
fn squatter_gets_no_byte() {
    let (ours, shared) = (tempdir().unwrap(), tempdir().unwrap());
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let path = shared.path().join("evenkeel.sock");
    let squatter = as_other_user("squat", &path, ours.path());
    lines_of(&squatter, "listening", 1);

    let error = read_status(&path).unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { user: OTHER, .. }), "{error}");
    let output = status(&path);
    let named = format!("belongs to user {OTHER}");
    assert!(output.status.code() == Some(1) && stderr(&output).contains(&named), "{output:?}");
    assert!(refused(ours.path(), &path).contains("another process, listens at"));

    // A client without the check.
    UnixStream::connect(&path).unwrap().write_all(b"control").unwrap();
    let received = lines_of(&squatter, "received", 4);
    let expected = [0, 0, 0, 7].map(|bytes| format!("received {bytes} bytes"));
    assert_eq!(received, expected, "library, command, gateway, control");

    let path = shared.path().join("own.sock");
    let mut own = gateway(ours.path(), &path);
    own.json_line(TIMEOUT).unwrap();
    assert!(status(&path).status.success());
}

#[test]
#[ignore = "the process of another user, which squatter_gets_no_byte starts"]
fn squat() {
    let path = PathBuf::from(std::env::var_os(SQUATTED).unwrap());
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    println!("listening");
    for stream in listener.incoming().take(4) {
        let mut bytes = Vec::new();
        stream.unwrap().read_to_end(&mut bytes).unwrap();
        println!("received {} bytes", bytes.len());
    }
}

#[test]
fn full_backlog_is_an_error_at_once() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("evenkeel.sock");
    let squatter = UnixListener::bind(&path).unwrap();
    listen(&squatter, Backlog::new(0).unwrap()).unwrap();
    let queued = UnixStream::connect(&path).unwrap();
    let error = read_status(&path).unwrap_err().to_string();
    assert!(error.contains("found a process that accepts no connections"), "{error}");
    let output = status(&path);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(refused(folder.path(), &path).contains("another process, listens at"));
    drop((squatter, queued));

    // The socket of a process that ended is replaced. A child of another test may have it until it calls exec.
    wait_until("the process has ended", || {
        let error = read_status(&path).unwrap_err().to_string();
        error.contains("found the socket of a process that has ended")
    });
    let mut gateway = gateway(folder.path(), &path);
    gateway.json_line(TIMEOUT).unwrap();
    read_status(&path).unwrap();
}

#[test]
fn link_folder_and_file_are_named_and_kept() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "precious").unwrap();
    symlink(at("file"), at("link")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (name, found) in
        [("link", "a symbolic link"), ("folder", "a folder"), ("file", "a file that is no socket")]
    {
        let error = refused(folder.path(), &at(name));
        let named = format!("found {found}; remove it, or name another path");
        assert!(error.contains(&named), "{error}");
        let output = status(&at(name));
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stderr(&output).contains(&format!("found {found}")), "{output:?}");
    }
    assert_eq!(fs::read_to_string(at("link")).unwrap(), "precious");
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink() && at("folder").is_dir());
}

#[required(Root)]
#[test]
fn squatted_default_folder_is_refused() {
    let logs = tempdir().unwrap();
    let folder = PathBuf::from(format!("/tmp/evenkeel-{OTHER}"));
    let prepared = || {
        let process = as_other_user("prepare", &folder, logs.path());
        lines_of(&process, "prepared", 1).remove(0)
    };
    // An aborted run may have left it.
    let _ = fs::remove_dir(&folder).or_else(|_| fs::remove_file(&folder));
    fs::create_dir(&folder).unwrap();
    let squatted = prepared();
    fs::remove_dir(&folder).unwrap();
    symlink(logs.path(), &folder).unwrap();
    let linked = prepared();
    fs::remove_file(&folder).unwrap();
    assert!(squatted.contains("it belongs to another user; set XDG_RUNTIME_DIR"), "{squatted}");
    assert!(linked.contains("it is not a folder"), "{linked}");

    let own = prepared();
    let facts = fs::symlink_metadata(&folder).unwrap();
    fs::remove_dir(&folder).unwrap();
    assert_eq!(own, "prepared: Ok(())");
    assert_eq!((facts.uid(), facts.mode() & 0o777), (OTHER, 0o700));
}

#[test]
#[ignore = "the process of another user, which squatted_default_folder_is_refused starts"]
fn prepare() {
    let socket = AdminSettings::default_socket();
    assert_eq!(socket.parent().map(Path::as_os_str), std::env::var_os(SQUATTED).as_deref());
    println!("prepared: {:?}", AdminSettings::prepare_folder(&socket));
}
