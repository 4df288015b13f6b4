use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::engine::Component;
use crate::shipped;

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
fn errors_of_the_compiler_keep_their_kind() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, b"plugin");
    for refused in [
        PluginRefusal::NotAPlugin("a memory is missing".into()),
        PluginRefusal::HookMissing(Hook::Routing),
        PluginRefusal::ExportMissing("evenkeel:policy/routing@0.1.1#open".into()),
        PluginRefusal::Engine("tail calls".into()),
    ] {
        let outcome = order.accept(CompilerOutput(refusal(&refused)));
        assert_eq!(outcome.err(), Some(refused));
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
    let beside = cache.folder.join("beside");
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

fn plugin() -> &'static [u8] {
    shipped()[0].bytes
}

#[test]
fn code_of_another_compiler_runs() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, plugin());
    let code = order.accept(CompilerOutput(compile_order(&order.words().concat()))).unwrap();
    let component = Component::vet_native(&engine, plugin(), &code).unwrap();
    assert_eq!(&*component.manifest().name, shipped()[0].name);
}

#[test]
fn incomplete_answer_is_refused() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, plugin());
    let answer = compile_order(&order.words().concat());
    let longer = [&answer[..], b"more"].concat();
    let cuts = [0, 1, HEAD_BYTES, answer.len() - 1].map(|cut| answer[..cut].to_vec());
    let mut of_no_kind = answer.clone();
    of_no_kind[0] = b'X';
    for answer in cuts.into_iter().chain([longer, of_no_kind]) {
        assert!(matches!(order.accept(CompilerOutput(answer)), Err(PluginRefusal::Compiler(_))));
    }
    assert!(order.accept(CompilerOutput(answer)).is_ok());
}

#[test]
fn output_that_is_no_code_is_not_loaded() {
    let engine = Engine::new();
    let forged = b"\x7fELF, or so it says";
    let answer = [&[CODE], &(forged.len() as u64).to_le_bytes()[..], forged].concat();
    let code = CompileOrder::new(&engine, plugin()).accept(CompilerOutput(answer)).unwrap();
    let loaded = Component::vet_native(&engine, plugin(), &code);
    assert!(matches!(loaded.err(), Some(PluginRefusal::Engine(_))));
}

#[test]
fn compiler_gets_no_key_and_signs_nothing() {
    let engine = Engine::new();
    let order = CompileOrder::new(&engine, plugin()).words().concat();
    assert_eq!(order[1..], *plugin());
    let code = compile_here(&engine, plugin()).unwrap();
    assert_eq!(compile_order(&order)[HEAD_BYTES..], *code.bytes());
}

#[test]
fn compile_error_is_returned() {
    let module = b"\0asm\x01\0\0\0";
    let order = CompileOrder::new(&Engine::new(), module);
    let said = order.accept(CompilerOutput(compile_order(&order.words().concat()))).unwrap_err();
    assert!(said.to_string().contains("evenkeel:manifest"), "{said}");
    assert!(matches!(
        order.accept(CompilerOutput(compile_order(b"short"))),
        Err(PluginRefusal::Engine(_))
    ));
}

#[test]
fn code_of_another_plugin_is_not_linked() {
    let [one, other, ..] = shipped() else { panic!("plugins are shipped") };
    let engine = Engine::new();
    let code = compile_here(&engine, other.bytes).unwrap();
    let seen = Component::vet_native(&engine, one.bytes, &code);
    assert!(matches!(seen.err(), Some(PluginRefusal::Engine(_))), "they implement other hooks");
}
