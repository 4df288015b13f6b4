use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::{TempDir, tempdir};

use super::*;

const EDGE_1: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const EDGE_2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn serving(serves: u32) -> ProcessSessions {
    ProcessSessions { serves, copies: 0, owner: None }
}

fn standby(copies: u32, owner: IpAddr) -> ProcessSessions {
    ProcessSessions { serves: 0, copies, owner: Some(owner) }
}

/// The file of a process that lives until it is dropped.
fn process(folder: &TempDir, name: &str, sessions: ProcessSessions) -> SessionsFile {
    let mut file = SessionsFile::beside(&folder.path().join(name));
    file.exchange(sessions).unwrap();
    file
}

fn others(folder: &TempDir) -> io::Result<Vec<ProcessSessions>> {
    SessionsFile::beside(&folder.path().join("own.sock")).exchange(standby(1, EDGE_1))
}

fn peer(name: &str, address: IpAddr) -> PeerSettings {
    PeerSettings { name: name.into(), address: (address, 7100).into(), agent: None, fence: None }
}

fn warned(own: ProcessSessions, others: &[ProcessSessions], limit: u32) -> Option<HostWarning> {
    own.warning(others, limit, &[peer("edge-1", EDGE_1), peer("edge-2", EDGE_2)])
}

#[test]
fn copies_of_one_failed_host_add_up() {
    let folder = tempdir().unwrap();
    let _processes = [
        process(&folder, "a.sock", serving(700)),
        process(&folder, "b.sock", standby(300, EDGE_1)),
        process(&folder, "c.sock", standby(5_000, EDGE_2)),
    ];
    let (own, others) = (standby(1_000, EDGE_1), others(&folder).unwrap());
    assert_eq!(others.len(), 3);
    assert_eq!(warned(own, &others, 2_000), None);
    let full = HostWarning::Full { owner: "edge-1".into(), limit: 1_999 };
    assert_eq!(warned(own, &others, 1_999), Some(full.clone()));
    assert_eq!(
        full.to_string(),
        "after a takeover from the host of `edge-1` this host would serve more sessions than \
         `[limits] host_sessions = 1999`: move an owner or a standby to another host, or raise it"
    );
    // The standby of the larger owner warns of it.
    assert!(warned(standby(5_000, EDGE_2), &[], 4_999).is_some());
    assert_eq!(warned(serving(9_000), &others, 1), None, "no standby");
}

#[test]
fn owner_serves_and_standby_has_copies() {
    let in_role = |role| ProcessSessions::in_role(role, 7, 5, Some(EDGE_1));
    for role in [GroupRole::Owner, GroupRole::Restoring, GroupRole::Doubting] {
        assert_eq!(in_role(role), serving(7));
    }
    assert_eq!(in_role(GroupRole::Standby), standby(5, EDGE_1));
    for role in [GroupRole::Joining, GroupRole::Spare, GroupRole::Silent] {
        assert_eq!(in_role(role), serving(0));
    }
    assert_eq!(ProcessSessions::of(7, None, &[]), serving(7), "without a group");
}

#[test]
fn file_of_an_ended_process_is_removed() {
    let folder = tempdir().unwrap();
    let lives = process(&folder, "a.sock", serving(1));
    let ended = process(&folder, "b.sock", serving(2));
    drop(ended);
    assert_eq!(others(&folder).unwrap(), [serving(1)]);
    assert!(!folder.path().join("b.sock.sessions").exists());
    assert!(lives.path.exists());
}

#[test]
fn file_of_another_program_stays() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.sessions");
    fs::write(&path, "of another program").unwrap();
    assert!(others(&folder).is_err());
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = others(&folder).unwrap_err().to_string();
    assert_eq!(error, format!("{}: a pipe, not a regular file", path.display()));
}

#[tokio::test(start_paused = true)]
async fn failed_check_is_repeated() {
    let folder = tempdir().unwrap();
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
    settings.limits.host_sessions = Some(1);
    settings.admin.socket = folder.path().join("own.sock");
    let (handle, mut requests) = Handle::new(Arc::default(), Arc::default());
    // A suspended control drops requests.
    let repeated = async {
        drop(requests.recv().await);
        requests.recv().await
    };
    tokio::select! {
        never = follow(&settings, &handle, None) => match never {},
        request = repeated => assert!(request.is_some()),
    }
}

#[test]
fn replaced_file_stays_locked() {
    let folder = tempdir().unwrap();
    let mut lives = process(&folder, "a.sock", serving(1));
    assert_eq!(lives.exchange(serving(2)).unwrap(), []);
    assert_eq!(others(&folder).unwrap(), [serving(2)]);
    // The process of an upgrade has the same socket.
    let _successor = process(&folder, "a.sock", serving(3));
    drop(lives);
    assert_eq!(others(&folder).unwrap(), [serving(3)]);
}

#[test]
fn unreadable_file_is_named() {
    let folder = tempdir().unwrap();
    let lives = process(&folder, "a.sock", serving(1));
    let refused = || others(&folder).unwrap_err().to_string();
    for content in ["", "{}", r#"{"serves":-1,"copies":0}"#, r#"{"serves":4294967296,"copies":0}"#]
    {
        fs::write(&lives.path, content).unwrap();
        assert!(refused().starts_with(lives.path.to_str().unwrap()), "{content}: {}", refused());
    }
    fs::write(&lives.path, " ".repeat(1_025)).unwrap();
    assert!(refused().ends_with("more than 1024 bytes"), "{}", refused());
    // Of a later version.
    fs::write(&lives.path, r#"{"serves":1,"copies":0,"rooms":1}"#).unwrap();
    assert_eq!(others(&folder).unwrap(), [serving(1)]);
}

#[test]
fn place_that_others_may_write_is_refused() {
    let folder = tempdir().unwrap();
    let lives = process(&folder, "a.sock", serving(1));
    let refused = |path: &Path| {
        let before = fs::metadata(path).unwrap().permissions();
        for mode in [0o720, 0o702] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let expected = format!("{}: other users may write there", path.display());
            assert_eq!(others(&folder).unwrap_err().to_string(), expected);
        }
        fs::set_permissions(path, before).unwrap();
    };
    refused(&lives.path);
    refused(folder.path());
    assert_eq!(others(&folder).unwrap(), [serving(1)]);
}
