//! What is kept, and what is not believed.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;

/// A folder with room for a cache, gone with the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// Of the cache, which makes it.
    fn path(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn open(&self) -> Cache {
        Cache::open(&self.path(), &Engine::new()).unwrap()
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|ending| ending == "cwasm")).unwrap()
    }
}

fn code(bytes: &[u8]) -> NativeCode {
    NativeCode::trusted(bytes.to_vec())
}

fn kept(cache: &Cache, plugin: &[u8]) -> Option<Vec<u8>> {
    match cache.get(plugin) {
        Cached::Code(code) => Some(code.bytes().to_vec()),
        Cached::Nothing => None,
        Cached::Forged => panic!("forged"),
    }
}

#[test]
fn what_was_compiled_is_there_after_a_restart_and_for_that_plugin_alone() {
    let folder = Folder::new();
    folder.open().put(b"plugin", &code(b"its code")).unwrap();
    let cache = folder.open();
    assert_eq!(kept(&cache, b"plugin").as_deref(), Some(&b"its code"[..]));
    assert_eq!(kept(&cache, b"another"), None);
    cache.forget(b"plugin");
    assert_eq!(kept(&cache, b"plugin"), None);
}

#[test]
fn code_that_was_touched_is_not_believed_and_gone() {
    let folder = Folder::new();
    let cache = folder.open();
    for at in [0, 31, 32, 39] {
        cache.put(b"plugin", &code(b"its code")).unwrap();
        let mut bytes = fs::read(folder.file()).unwrap();
        bytes[at] ^= 1;
        fs::write(folder.file(), bytes).unwrap();
        assert!(matches!(cache.get(b"plugin"), Cached::Forged), "byte {at}");
        assert!(matches!(cache.get(b"plugin"), Cached::Nothing));
    }
    cache.put(b"plugin", &code(b"its code")).unwrap();
    fs::write(folder.file(), b"short").unwrap();
    assert!(matches!(cache.get(b"plugin"), Cached::Forged));
}

#[test]
fn code_of_one_plugin_does_not_pass_for_that_of_another() {
    let folder = Folder::new();
    let cache = folder.open();
    cache.put(b"mine", &code(b"harm")).unwrap();
    fs::rename(folder.file(), folder.path().join(cache.name(b"yours"))).unwrap();
    assert!(matches!(cache.get(b"yours"), Cached::Forged));
}

#[test]
fn code_of_another_host_is_not_believed() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let (cache, other) = (ours.open(), theirs.open());
    other.put(b"plugin", &code(b"its code")).unwrap();
    fs::copy(theirs.file(), ours.path().join(cache.name(b"plugin"))).unwrap();
    assert!(matches!(cache.get(b"plugin"), Cached::Forged));
}

#[test]
fn a_folder_or_key_that_others_can_reach_is_not_used() {
    let folder = Folder::new();
    let path = folder.path();
    drop(folder.open());
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(&path, 0o750).unwrap();
    assert!(Cache::open(&path, &Engine::new()).unwrap_err().to_string().contains("chmod 700"));
    mode(&path, 0o700).unwrap();
    let key = path.join(KEY);
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    mode(&key, 0o604).unwrap();
    assert!(Cache::open(&path, &Engine::new()).unwrap_err().to_string().contains("key"));
    mode(&key, 0o600).unwrap();
    drop(folder.open());
    fs::write(&key, b"short").unwrap();
    assert!(Cache::open(&path, &Engine::new()).is_err());
    let link = folder.0.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Cache::open(&link, &Engine::new()).is_err());
}

#[test]
fn what_was_of_no_use_for_longest_gives_way() {
    let folder = Folder::new();
    let cache = folder.open();
    let long_ago = SystemTime::now() - Duration::from_secs(3_600);
    // What somebody else keeps there is older than all.
    let beside = cache.folder().join("beside");
    fs::create_dir(&beside).unwrap();
    File::open(&beside).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let put = |plugin: usize| cache.put(&plugin.to_le_bytes(), &code(b"code")).unwrap();
    for plugin in 0..FILES_MAX {
        put(plugin);
        let path = folder.path().join(cache.name(&plugin.to_le_bytes()));
        let written = long_ago + Duration::from_secs(plugin as u64);
        File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
    }
    // The oldest was of use just now.
    assert!(kept(&cache, &0_usize.to_le_bytes()).is_some());
    put(FILES_MAX);
    assert!(kept(&cache, &0_usize.to_le_bytes()).is_some());
    assert_eq!(kept(&cache, &1_usize.to_le_bytes()), None);
    assert!(kept(&cache, &2_usize.to_le_bytes()).is_some());
    assert!(kept(&cache, &FILES_MAX.to_le_bytes()).is_some());
    assert!(beside.is_dir());
}
