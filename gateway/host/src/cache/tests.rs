use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;

/// A temporary folder for a cache.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// The cache's folder, created by it.
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
fn code_survives_a_restart_for_its_plugin_only() {
    let folder = Folder::new();
    folder.open().put(b"plugin", &code(b"its code")).unwrap();
    let cache = folder.open();
    assert_eq!(kept(&cache, b"plugin").as_deref(), Some(&b"its code"[..]));
    assert_eq!(kept(&cache, b"another"), None);
    cache.forget(b"plugin");
    assert_eq!(kept(&cache, b"plugin"), None);
}

#[test]
fn modified_code_is_rejected_and_removed() {
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
fn code_of_another_plugin_is_rejected() {
    let folder = Folder::new();
    let cache = folder.open();
    cache.put(b"mine", &code(b"harm")).unwrap();
    fs::rename(folder.file(), folder.path().join(cache.name(b"yours"))).unwrap();
    assert!(matches!(cache.get(b"yours"), Cached::Forged));
}

#[test]
fn code_of_another_host_is_rejected() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let (cache, other) = (ours.open(), theirs.open());
    other.put(b"plugin", &code(b"its code")).unwrap();
    fs::copy(theirs.file(), ours.path().join(cache.name(b"plugin"))).unwrap();
    assert!(matches!(cache.get(b"plugin"), Cached::Forged));
}

#[test]
fn folder_or_key_open_to_others_is_refused() {
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
fn least_recently_used_is_evicted() {
    let folder = Folder::new();
    let cache = folder.open();
    let long_ago = SystemTime::now() - Duration::from_secs(3_600);
    // A file of another program, older than all cached files.
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
    // The oldest file was used just now.
    assert!(kept(&cache, &0_usize.to_le_bytes()).is_some());
    put(FILES_MAX);
    assert!(kept(&cache, &0_usize.to_le_bytes()).is_some());
    assert_eq!(kept(&cache, &1_usize.to_le_bytes()), None);
    assert!(kept(&cache, &2_usize.to_le_bytes()).is_some());
    assert!(kept(&cache, &FILES_MAX.to_le_bytes()).is_some());
    assert!(beside.is_dir());
}
