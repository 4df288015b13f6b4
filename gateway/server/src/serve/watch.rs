//! Notices that files of policies change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// An editor writes a file in several steps: nothing is read before it was quiet for this long.
const QUIET: Duration = Duration::from_millis(50);

/// Where something changes all the time, what is there is read after this.
const SETTLED_AT_LATEST: Duration = Duration::from_secs(1);

/// Watches folders until it is dropped: what is in them, and that one of them comes, goes, or is put in the place of
/// another. What cannot be watched is said.
pub(super) fn watch(
    folders: &BTreeSet<PathBuf>,
    changed: &mpsc::Sender<()>,
) -> Option<RecommendedWatcher> {
    let (ours, changed) = (folders.clone(), changed.clone());
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
        Ok(event) => {
            if touches(&event, &ours) {
                // One word that waits is enough.
                let _ = changed.try_send(());
            }
        }
        Err(error) => tracing::warn!(%error, "a change of a policy's file may go unseen"),
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "changes of the policies' files are not seen; SIGHUP reloads them");
            return None;
        }
    };
    for folder in folders {
        let mut watch = |path: &Path| {
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                let path = path.display();
                tracing::warn!(%path, %error, "changes are not seen there; SIGHUP reloads");
            }
        };
        watch(folder);
        folder.parent().into_iter().for_each(watch);
    }
    Some(watcher)
}

/// Of what happens around the folders, what is in them or is one of them. Words without a path say that some were lost.
fn touches(event: &Event, folders: &BTreeSet<PathBuf>) -> bool {
    let ours = |path: &PathBuf| {
        folders.contains(path) || path.parent().is_some_and(|parent| folders.contains(parent))
    };
    let read_only = matches!(event.kind, EventKind::Access(_));
    !read_only && (event.paths.is_empty() || event.paths.iter().any(ours))
}

/// Waits until it is quiet, but not for ever.
pub(super) async fn settle(changed: &mut mpsc::Receiver<()>) {
    let quiet =
        async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changed.recv()).await {} };
    let _ = tokio::time::timeout(SETTLED_AT_LATEST, quiet).await;
}

#[cfg(test)]
mod tests {
    use super::super::reload::tests::Folder;
    use super::*;

    /// Long past what the kernel needs.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn hears(changed: &mut mpsc::Receiver<()>) {
        tokio::time::timeout(PATIENCE, changed.recv()).await.expect("it is noticed");
        settle(changed).await;
    }

    #[tokio::test]
    async fn a_folder_that_another_replaces_is_noticed_and_watched_on() {
        let folder = Folder::with("call.toml", "");
        let policies = folder.policies();
        let (word, mut changed) = mpsc::channel(1);
        let folders = BTreeSet::from([policies.clone()]);
        let first = watch(&folders, &word);
        folder.write("call.toml", "# changed\n");
        hears(&mut changed).await;

        std::fs::create_dir(policies.with_file_name("next")).unwrap();
        std::fs::rename(&policies, policies.with_file_name("last")).unwrap();
        std::fs::rename(policies.with_file_name("next"), &policies).unwrap();
        hears(&mut changed).await;

        let again = watch(&folders, &word);
        drop(first);
        folder.write("call.toml", "# changed again\n");
        hears(&mut changed).await;
        std::fs::write(policies.with_file_name("beside.txt"), "of no interest").unwrap();
        folder.write("live.toml", "");
        hears(&mut changed).await;
        drop(again);
        assert!(changed.try_recv().is_err());
    }

    #[test]
    fn a_file_beside_the_folder_and_one_that_is_read_are_of_no_interest() {
        let folders = BTreeSet::from([PathBuf::from("/etc/evenkeel/policies")]);
        let modify = EventKind::Modify(notify::event::ModifyKind::Any);
        let read = EventKind::Access(notify::event::AccessKind::Any);
        for (kind, path, expected) in [
            (modify, "/etc/evenkeel/policies/call.toml", true),
            (modify, "/etc/evenkeel/policies", true),
            (read, "/etc/evenkeel/policies/call.toml", false),
            (modify, "/etc/evenkeel/token", false),
        ] {
            let event = Event::new(kind).add_path(path.into());
            assert_eq!(touches(&event, &folders), expected, "{event:?}");
        }
        assert!(touches(&Event::new(EventKind::Other), &folders));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_all_the_time_is_read_all_the_same() {
        let (word, mut changed) = mpsc::channel(1);
        let busy = tokio::spawn(async move {
            loop {
                let _ = word.try_send(());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let before = tokio::time::Instant::now();
        settle(&mut changed).await;
        assert_eq!(before.elapsed(), SETTLED_AT_LATEST);
        busy.abort();
    }
}
