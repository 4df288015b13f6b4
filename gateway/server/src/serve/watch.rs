//! Notices that files of policies change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Files that are copied together come so soon after one another: a plugin, and the settings that go with it.
const TOGETHER: Duration = Duration::from_millis(5);

/// An editor saves in several steps, between which a file is gone or new: then nothing is read before it was quiet for this
/// long, unless the file is whole before.
const QUIET: Duration = Duration::from_millis(50);

/// Where something changes all the time, or somebody writes on and on, what is there is read after this. What is whole
/// only later is read again then.
const SETTLED_AT_LATEST: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Watched {
    /// Folders with policy sets and plugins, and single files.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Plugins that sets are bound to.
    pub(super) plugins: BTreeSet<PathBuf>,
}

impl Watched {
    /// Of what happens around the folders, what is in them or is one of them.
    fn touches(&self, path: &Path) -> bool {
        self.folders.contains(path)
            || path.parent().is_some_and(|parent| self.folders.contains(parent))
    }

    /// Whether it is read. What begins with a dot is an editor's, and so is most of what is no set.
    fn reads(&self, path: &Path) -> bool {
        let hidden = || path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        let is_set = || path.extension().is_some_and(|extension| extension == "toml") && !hidden();
        self.folders.contains(path) || self.plugins.contains(path) || is_set()
    }
}

/// What is not done yet. Clones are the same.
#[derive(Clone, Default, Debug)]
pub(super) struct Underway(Arc<Mutex<Steps>>);

#[derive(Default, Debug)]
struct Steps {
    /// Files that somebody writes to.
    written: BTreeSet<PathBuf>,
    /// Files that went, or came and are empty: more is to come.
    begun: BTreeSet<PathBuf>,
    /// Something else happened, of which nobody can say whether it was all.
    vague: bool,
}

/// How long is to be waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    /// All that was written is whole.
    Together,
    Quiet,
    /// Somebody has a file open and writes.
    Whole,
}

impl Underway {
    /// Nobody panics while holding it.
    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is worth a word.
    fn note(&self, event: &Event, watched: &Watched) -> bool {
        let mut steps = self.steps();
        if event.paths.is_empty() {
            // Some words were lost.
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

    fn until(&self) -> Until {
        let steps = self.steps();
        match () {
            () if !steps.written.is_empty() => Until::Whole,
            () if steps.vague || !steps.begun.is_empty() => Until::Quiet,
            () => Until::Together,
        }
    }
}

impl Steps {
    /// Something happened to a path, which is read or is not. Whether it is worth a word.
    fn note(&mut self, kind: EventKind, path: &Path, is_read: bool) -> bool {
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.written.remove(path);
                self.begun.remove(path);
                self.vague |= !is_read;
            }
            // Looked at; and a rename that was told of by either end.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                return false;
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.written.remove(path);
                self.begun.remove(path);
                // It was what all else was made for.
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
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => self.vague = true,
        }
        true
    }
}

/// Watches folders until it is dropped: what is in them, and that one of them comes, goes, or is put in the place of
/// another. What cannot be watched is said.
pub(super) fn watch(
    watched: &Watched,
    changed: &mpsc::Sender<()>,
    underway: &Underway,
) -> Option<RecommendedWatcher> {
    let (ours, changed, underway) = (watched.clone(), changed.clone(), underway.clone());
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
        Ok(event) => {
            if underway.note(&event, &ours) {
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

/// Waits until what was written is whole, and where nobody can say so until it is quiet; but not for ever.
pub(super) async fn settle(changed: &mut mpsc::Receiver<()>, underway: &Underway) {
    let settled = async {
        loop {
            let more = match underway.until() {
                Until::Together => tokio::time::timeout(TOGETHER, changed.recv()).await,
                Until::Quiet => tokio::time::timeout(QUIET, changed.recv()).await,
                Until::Whole => Ok(changed.recv().await),
            };
            if !matches!(more, Ok(Some(()))) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(SETTLED_AT_LATEST, settled).await;
    *underway.steps() = Steps::default();
}

#[cfg(test)]
mod tests;
