use std::time::Duration;

use super::*;
use crate::manifest::PluginTitle;

fn manifest_of(plugin: &[u8]) -> Vec<u8> {
    let title = PluginTitle { name: "p".to_owned(), version: "1".to_owned() };
    manifest::write(plugin, &title)
}

fn cache(folder: &Path) -> PluginCache {
    PluginCache::open(&[folder.join("cache")]).unwrap()
}

#[test]
fn damaged_file_counts_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, manifest) = (cache(folder.path()), manifest_of(b"plugin"));
    let digest = sha256(&manifest);
    assert!(cache.find(&digest).is_none());
    let path = cache.keep(&manifest, b"plugin").unwrap();
    let found = cache.find(&digest).unwrap();
    assert_eq!(
        (&*found.bytes, found.content, found.digest),
        (&b"plugin"[..], sha256(b"plugin"), digest)
    );
    assert_eq!((found.path.as_ref(), found.was_kept), (Some(&path), true));
    for damaged in [path, cache.path(&digest, "json")] {
        let whole = std::fs::read(&damaged).unwrap();
        std::fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();
        assert!(cache.find(&digest).is_none(), "{}", damaged.display());
        std::fs::write(&damaged, whole).unwrap();
        assert!(cache.find(&digest).is_some());
    }
}

#[test]
fn least_recently_used_plugin_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let keep = |number: usize| {
        let plugin = number.to_string();
        let manifest = manifest_of(plugin.as_bytes());
        let path = cache.keep(&manifest, plugin.as_bytes()).unwrap();
        let digest = sha256(&manifest);
        // All of them were last used long ago, in the order of their numbers.
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
        for path in [path, cache.path(&digest, "json")] {
            File::open(path).unwrap().set_modified(at).unwrap();
        }
        digest
    };
    let kept: Vec<[u8; 32]> = (0..FILES_MAX / 2).map(keep).collect();
    assert!(cache.find(&kept[0]).is_some(), "it is used");
    keep(FILES_MAX);
    assert!(cache.find(&kept[0]).is_some());
    assert!(cache.find(&kept[1]).is_none());
}

#[test]
fn open_folder_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let candidates = [folder.path().to_owned()];
    let refused = PluginCache::open(&candidates).unwrap_err().to_string();
    assert!(refused.contains("chmod 700"), "{refused}");
    let usable = [folder.path().to_owned(), folder.path().join("own")];
    assert!(PluginCache::open(&usable).is_ok());
    assert!(matches!(PluginCache::open(&[]), Err(RegistryError::NoCache)));
}
