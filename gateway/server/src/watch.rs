//! Watches the files of policies.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_process::lock;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Files copied together, such as a plugin and its settings, follow each other within this time.
const TOGETHER: Duration = Duration::from_millis(5);

/// An editor saves in several steps, between which a file is missing or empty. Files are read after this time without a
/// change, or earlier if they are complete.
const QUIET: Duration = Duration::from_millis(50);

/// Limit for steady changes: the files are read after this time anyway, and again once they are complete.
const SETTLED_AT_LATEST: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct WatchedFolders {
    /// Folders with policy sets, plugins and data documents, and single files.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Plugins and data documents that sets are bound to.
    pub(super) files: BTreeSet<PathBuf>,
}

impl WatchedFolders {
    /// Returns true for a watched folder and for the files in it.
    fn touches(&self, path: &Path) -> bool {
        self.folders.contains(path)
            || path.parent().is_some_and(|parent| self.folders.contains(parent))
    }

    /// Returns true if the gateway reads the path: policy sets, plugins, data documents and watched files. Hidden files
    /// belong to editors.
    fn reads(&self, path: &Path) -> bool {
        let hidden = || path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        let is_set = || path.extension().is_some_and(|extension| extension == "toml") && !hidden();
        self.folders.contains(path) || self.files.contains(path) || is_set()
    }
}

/// Unfinished changes. Clones share the state.
#[derive(Clone, Default, Debug)]
pub(super) struct UnfinishedChanges(Arc<Mutex<FileSteps>>);

#[derive(Default, Debug)]
struct FileSteps {
    /// Files that are open and were written to.
    written: BTreeSet<PathBuf>,
    /// Files that were removed, or created and still empty; more steps will follow.
    begun: BTreeSet<PathBuf>,
    /// Another change happened that does not show whether more will follow.
    vague: bool,
}

/// The reason to wait before files are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitReason {
    /// All written files are closed; only files copied with them may follow.
    Together,
    Quiet,
    /// A written file is still open.
    Whole,
}

impl UnfinishedChanges {
    /// Notes an event; returns true if it may need a reload.
    fn note(&self, event: &Event, watched: &WatchedFolders) -> bool {
        let mut steps = lock(&self.0);
        if event.paths.is_empty() {
            // The kernel's queue overflowed, so events were lost.
            steps.vague = true;
            return true;
        }
        let ours = event.paths.iter().filter(|path| watched.touches(path));
        let mut word = false;
        for path in ours {
            word |= steps.note(event.kind, path, watched.reads(path));
        }
        word
    }

    fn until(&self) -> WaitReason {
        let steps = lock(&self.0);
        match () {
            () if !steps.written.is_empty() => WaitReason::Whole,
            () if steps.vague || !steps.begun.is_empty() => WaitReason::Quiet,
            () => WaitReason::Together,
        }
    }
}

impl FileSteps {
    /// Notes an event of one path; returns true if it may need a reload.
    fn note(&mut self, kind: EventKind, path: &Path, is_read: bool) -> bool {
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.written.remove(path);
                self.begun.remove(path);
                self.vague |= !is_read;
            }
            // Read accesses, and renames that were reported by both paths.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                return false;
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.written.remove(path);
                self.begun.remove(path);
                // The earlier steps prepared this rename.
                self.vague = false;
            }
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From))
                if is_read =>
            {
                self.written.remove(path);
                self.begun.insert(path.to_owned());
            }
            EventKind::Modify(ModifyKind::Data(_)) if is_read => {
                self.begun.remove(path);
                self.written.insert(path.to_owned());
            }
            _ => self.vague = true,
        }
        true
    }
}

/// Watches files in the folders, and the creation, removal or replacement of the folders, until the watcher is dropped.
/// Logs folders that cannot be watched.
pub(super) fn watch(
    watched: &WatchedFolders,
    changed: &mpsc::Sender<()>,
    underway: &UnfinishedChanges,
) -> Option<RecommendedWatcher> {
    let (ours, changed, underway) = (watched.clone(), changed.clone(), underway.clone());
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
        Ok(event) => {
            if underway.note(&event, &ours) {
                // One pending message is enough.
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
    for folder in &watched.folders {
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

/// Waits until all written files are complete. If that is unknown, waits until nothing has changed for a while. The
/// wait is limited.
pub(super) async fn settle(changed: &mut mpsc::Receiver<()>, underway: &UnfinishedChanges) {
    let settled = async {
        loop {
            let more = match underway.until() {
                WaitReason::Together => tokio::time::timeout(TOGETHER, changed.recv()).await,
                WaitReason::Quiet => tokio::time::timeout(QUIET, changed.recv()).await,
                WaitReason::Whole => Ok(changed.recv().await),
            };
            if !matches!(more, Ok(Some(()))) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(SETTLED_AT_LATEST, settled).await;
    *lock(&underway.0) = FileSteps::default();
}

#[cfg(test)]
mod tests;
