//! Changes by operators, saved files and rollouts, as the process that continues them reads them. Control does not read them.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use evenkeel_kept::{Document, Documents, EarlierDocument, Encoded, FollowerCopy, KeptPart, Kind};
use evenkeel_process::sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Changes that are kept: weeks of a gateway that is operated by hand.
const CHANGES_MAX: usize = 1_024;

/// A change, as `GET /v1/changes` shows it.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct KeptChange(Value);

impl KeptChange {
    /// A change with its time, Unix time in microseconds, as `at_us`.
    pub fn new(change: Value) -> KeptChange {
        KeptChange(change)
    }

    /// Keeps the change, unless it is there.
    pub fn put(&self, kept: &Documents<KeptChange>) {
        kept.put(&self.key(), self);
    }

    /// The changes since a Unix time in microseconds, newest first.
    pub fn since(kept: &Documents<KeptChange>, since_us: u64) -> Vec<Value> {
        let changes = kept.rows().into_iter().filter_map(|row| row.decode().ok());
        let mut changes: Vec<KeptChange> = changes.filter(|it| it.at_us() >= since_us).collect();
        // A change of the group's owner may come after later ones.
        changes.sort_by_key(KeptChange::at_us);
        changes.into_iter().rev().map(|change| change.0).collect()
    }

    fn at_us(&self) -> u64 {
        self.0["at_us"].as_u64().unwrap_or(0)
    }

    /// The same change has the same key at each member of a group.
    fn key(&self) -> String {
        let digest = sha256(self.0.to_string().as_bytes());
        format!("{}-{}", self.at_us(), HEXLOWER.encode(&digest[..4]))
    }
}

impl Document for KeptChange {
    const KIND: Kind =
        Kind { name: "changes", version: 1, rows_max: CHANGES_MAX, copy: FollowerCopy::Adds };

    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![Path::new("changes").join(format!("{name}.json"))]
    }

    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<EarlierDocument>> {
        let changes: Vec<KeptChange> = serde_json::from_slice(bytes)?;
        let document =
            |change: KeptChange| EarlierDocument { key: change.key().into(), value: change.0 };
        Ok(changes.into_iter().map(document).collect())
    }
}

/// A change of an owner of an earlier version, which travels with a batch of records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ChangeRecord {
    at_us: u64,
    /// The change as JSON.
    text: Box<str>,
}

impl ChangeRecord {
    /// The documents of these changes; `None` without one.
    pub(crate) fn kept(changes: &[ChangeRecord]) -> Option<KeptPart> {
        let changes = changes.iter().filter_map(|it| serde_json::from_str(&it.text).ok());
        let row = |change: KeptChange| Encoded::new(&change.key(), &change);
        let rows: Vec<Encoded<KeptChange>> = changes.map(row).collect();
        (!rows.is_empty()).then(|| KeptPart::of_rows(rows))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_kept::{Follower, Store};
    use evenkeel_process::file;
    use serde_json::json;
    use tempfile::tempdir;

    use super::*;

    fn change(at_us: u64) -> Value {
        json!({"at_us": at_us, "by": "file", "event": "reload"})
    }

    fn times(kept: &Documents<KeptChange>, since_us: u64) -> Vec<u64> {
        let changes = KeptChange::since(kept, since_us);
        changes.iter().map(|change| change["at_us"].as_u64().unwrap()).collect()
    }

    #[test]
    fn changes_of_a_file_of_an_earlier_version_stay() {
        // Written by 0b0f1044, and cut.
        let text = include_str!("../tests/fixtures/changes.json");
        let folder = tempdir().unwrap();
        let socket = Path::new("/admin.sock");
        let path = folder.path().join("changes").join(format!("{}.json", file::name_of(socket)));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        for _ in 0..2 {
            let store = Store::default();
            let kept = store.documents();
            let _thread = store.open(Some(folder.path()), socket, &Default::default()).unwrap();
            store.begin(Duration::from_secs(20));
            KeptChange::new(change(9)).put(&kept);
            assert_eq!(times(&kept, 0), [9, 8, 7, 6]);
            assert_eq!(KeptChange::since(&kept, 8), [change(9), change(8)]);
        }
        assert!(!path.exists());
    }

    #[test]
    fn standby_adds_changes_of_the_owner_in_their_order() {
        let [owner, standby] = [Store::default(), Store::default()];
        let (of_owner, of_standby) = (owner.documents(), standby.documents());
        [1, 3, 5].iter().for_each(|at| KeptChange::new(change(*at)).put(&of_owner));
        [2, 3, 9].iter().for_each(|at| KeptChange::new(change(*at)).put(&of_standby));
        for _ in 0..2 {
            let part = owner.next_part(&mut Follower::default(), usize::MAX).unwrap();
            standby.add_part(part);
        }
        assert_eq!(times(&of_standby, 0), [9, 5, 3, 2, 1]);
        let of_earlier_version = ChangeRecord { at_us: 4, text: change(4).to_string().into() };
        standby.add_part(ChangeRecord::kept(&[of_earlier_version]).unwrap());
        assert_eq!(times(&of_standby, 3), [9, 5, 4, 3]);
    }

    #[test]
    fn changes_of_one_moment_are_two() {
        let kept = Store::default().documents();
        for by in ["file", "file", "api"] {
            KeptChange::new(json!({"at_us": 1, "by": by})).put(&kept);
        }
        assert_eq!(times(&kept, 0), [1, 1]);
    }
}
