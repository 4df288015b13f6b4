use std::os::unix::fs::symlink;
use std::time::SystemTime;

use tempfile::tempdir;

use super::*;
use crate::document::{FollowerCopy, Kind};
use crate::table::Table;

const KIND: Kind =
    Kind { name: "note", version: 1, rows_max: 10_000, copy: FollowerCopy::Replaces };

fn table(rows: usize) -> Table {
    let mut table = Table::default();
    for number in 0..rows {
        table.put(
            KIND,
            &number.to_string().into(),
            "x".repeat(1_000).into(),
            Default::default(),
            7,
        );
    }
    table
}

#[test]
fn full_disk_takes_none_of_a_batch() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    let (mut disk, rows) = Disk::open(&path).unwrap();
    assert!(rows.is_empty());
    disk.connection.pragma_update_and_check(None, "max_page_count", 15, |_| Ok(())).unwrap();
    let table = table(100);
    let error = disk.write(&table.batch(usize::MAX)).unwrap_err();
    assert_eq!(error.to_string(), "database or disk is full");
    assert_eq!(super::rows(&disk.connection, None).unwrap().len(), 0);
    disk.connection.pragma_update_and_check(None, "max_page_count", 3_000, |_| Ok(())).unwrap();
    disk.write(&table.batch(usize::MAX)).unwrap();
    drop(disk);
    assert_eq!(Disk::open(&path).unwrap().1.len(), 100);
}

#[test]
fn rows_are_in_the_order_of_their_changes() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    let mut table = table(3);
    table.put(KIND, &"0".into(), "again".into(), Default::default(), 8);
    Disk::open(&path).unwrap().0.write(&table.batch(usize::MAX)).unwrap();
    let rows = Disk::open(&path).unwrap().1;
    let rows: Vec<_> = rows.iter().map(|row| (&*row.key, row.change, row.at_us)).collect();
    assert_eq!(rows, [("1", 2, 7), ("2", 3, 7), ("0", 4, 8)]);
}

#[test]
fn only_this_user_may_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("kept").join("a.sqlite");
    let (mut disk, _) = Disk::open(&path).unwrap();
    disk.write(&table(1).batch(usize::MAX)).unwrap();
    for ending in ["", "-wal", "-shm"] {
        let file = folder.path().join("kept").join(format!("a.sqlite{ending}"));
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{ending}");
    }
    assert_eq!(fs::metadata(folder.path().join("kept")).unwrap().mode() & 0o777, 0o700);
    drop(disk);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(Disk::open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn newer_database_is_refused_with_both_versions() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    Disk::open(&path).unwrap().0.connection.pragma_update(None, "user_version", 2).unwrap();
    let error = Disk::open(&path).unwrap_err();
    assert_eq!(error.to_string(), "it has version 2, this gateway reads version 1");
    assert!(path.exists());
}

#[test]
fn file_that_is_no_database_is_moved_aside() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    fs::write(&path, "no database".repeat(100)).unwrap();
    assert!(Disk::open(&path).unwrap().1.is_empty());
    let aside = folder.path().join("a.sqlite.damaged");
    assert!(fs::read_to_string(aside).unwrap().starts_with("no database"));
    // A folder is no damaged database.
    let folder = folder.path().join("folder.sqlite");
    fs::create_dir(&folder).unwrap();
    assert_eq!(Disk::open(&folder).unwrap_err().to_string(), "it is not a regular file");
}

#[test]
fn unused_database_is_removed_with_its_files() {
    let folder = tempdir().unwrap();
    let file = |name: &str, seconds| {
        let path = folder.path().join(name);
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::create(&path).unwrap().set_modified(written).unwrap();
        path
    };
    // The gateway of the first one writes its log alone.
    let live = [file("0.sqlite", 1), file("0.sqlite-wal", 900)];
    let unused = [
        file("1.sqlite", 2),
        file("1.sqlite-wal", 2),
        file("1.sqlite-shm", 2),
        file("1.sqlite.lock", 2),
    ];
    let files = folder.path().join("1.sqlite-files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("plugin"), "of a row").unwrap();
    for number in 2..DATABASES_MAX as u64 {
        file(&format!("{number}.sqlite"), 3 + number);
    }
    // An operator removed their databases.
    let gone = ["gone.sqlite-files", "just-gone.sqlite-files"].map(|name| folder.path().join(name));
    gone.iter().for_each(|gone| fs::create_dir(gone).unwrap());
    File::open(&gone[0]).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    drop(Disk::open(&folder.path().join("own.sqlite")).unwrap());
    assert_eq!(live.map(|path| path.exists()), [true; 2]);
    assert_eq!(unused.map(|path| path.exists()), [false; 4]);
    assert_eq!([&files, &gone[0], &gone[1]].map(|path| path.exists()), [false, false, true]);
    assert!(folder.path().join("2.sqlite").exists());
}

#[test]
fn files_of_a_database_that_was_set_aside_stay() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    fs::write(&path, "no database".repeat(100)).unwrap();
    let files = folder.path().join("a.sqlite-files");
    fs::create_dir(&files).unwrap();
    File::open(&files).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let error = Disk::read(&path).unwrap_err();
    assert!(error.is_damage(), "{error}");
    Disk::set_aside(&path, &error);
    // Another gateway starts before there is a new database.
    drop(Disk::open(&folder.path().join("b.sqlite")).unwrap());
    assert!(!path.exists() && files.exists());
}

#[test]
fn operators_read_names_times_and_json() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    let mut table = Table::default();
    let value = r#"{"by":"ops"}"#.into();
    table.put(KIND, &"b".into(), value, Default::default(), 1_700_000_000_250_000);
    let (mut disk, _) = Disk::open(&path).unwrap();
    disk.write(&table.batch(usize::MAX)).unwrap();
    let reader = Connection::open(&path).unwrap();
    let columns = "SELECT kind || ' ' || key || ' ' || at || ' ' || (value ->> 'by') FROM kept";
    let rows: Vec<String> = reader
        .prepare(columns)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(rows, ["note b 2023-11-14T22:13:20.250Z ops"]);
}

#[test]
fn rows_are_read_where_nothing_can_be_written() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a b?%.sqlite");
    let full = DiskError::Io(io::ErrorKind::StorageFull.into());
    let read = |reason: &DiskError| Disk::read_only(&path, reason).map(|rows| rows.len());
    assert_eq!(read(&full).unwrap(), 0, "a first start");
    read(&DiskError::Io(io::ErrorKind::NotFound.into())).unwrap_err();
    let (mut disk, _) = Disk::open(&path).unwrap();
    disk.write(&table(3).batch(usize::MAX)).unwrap();
    // The process is killed, and its log stays.
    let log = fs::read(with(&path, "-wal")).unwrap();
    let database = fs::read(&path).unwrap();
    drop(disk);
    assert_eq!((read(&full).unwrap(), with(&path, "-wal").exists()), (3, false));
    fs::write(&path, &database).unwrap();
    fs::write(with(&path, "-wal"), &log).unwrap();
    // The index of the log cannot be created: SQLite follows no link.
    symlink("nowhere", with(&path, "-shm")).unwrap();
    let error = Disk::open(&path).unwrap_err();
    assert_eq!(read(&error).unwrap(), 3);
    let unchanged = [&path, &with(&path, "-wal")].map(|path| fs::read(path).unwrap());
    assert_eq!(unchanged, [database, log]);
    fs::write(&path, "").unwrap();
    fs::remove_file(with(&path, "-wal")).unwrap();
    assert_eq!(read(&full).unwrap(), 0, "no table could be written");
}
