use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;

use evenkeel_testkit::required;
use tempfile::tempdir;

use super::*;

/// A user that runs no process of this test.
const OTHER: u32 = 54_321;

#[tokio::test]
async fn path_without_process_is_described() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    drop(UnixListener::bind(at("dead")).unwrap());
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("file"), "").unwrap();
    symlink(at("nothing"), at("link")).unwrap();
    for (name, expected) in [
        ("dead", "found the socket of a process that has ended"),
        ("folder", "found a folder, expected a socket"),
        ("file", "found a file that is no socket"),
        ("link", "found a symbolic link that leads to no gateway"),
        ("nothing", "No such file"),
    ] {
        let error = connect_unix(&at(name)).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreached(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    let _alive = UnixListener::bind(at("alive")).unwrap();
    connect_unix(&at("alive")).await.unwrap();
}

#[test]
fn only_root_and_own_user_are_trusted() {
    let path = Path::new("/run/evenkeel/evenkeel.sock");
    assert!(is_trusted(1_000, 1_000, path) && is_trusted(0, 1_000, path));
    assert!(!is_trusted(OTHER, 1_000, path));
}

#[required(Root)]
#[test]
fn root_trusts_the_owner_of_a_closed_folder() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("evenkeel.sock");
    assert!(!is_trusted(OTHER, 0, &path));
    chown(folder.path(), Some(OTHER), None).unwrap();
    assert!(is_trusted(OTHER, 0, &path));
    assert!(!is_trusted(OTHER, 1_000, &path), "other users trust no such owner");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(!is_trusted(OTHER, 0, &path), "any user may write there");
}
