use std::fs;

use super::*;
use crate::idempotency::{KeyError, KeyTable};

fn open(tokens: &UsedTokens, folder: &Path, socket: &Path) -> Vec<Box<str>> {
    tokens.open(folder, socket, UnwrittenDocuments::default())
}

async fn keep(tokens: &UsedTokens, ids: &[&str]) {
    tokens.keep(ids.iter().copied()).unwrap().await.unwrap();
}

#[tokio::test]
async fn next_process_reads_used_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let socket = Path::new("/run/evenkeel/admin.sock");
    let (before, after) = (UsedTokens::default(), UsedTokens::default());
    assert!(open(&before, folder.path(), socket).is_empty());
    keep(&before, &["t1", "t2"]).await;
    keep(&before, &["t3"]).await;
    let path = &before.file.get().unwrap().path;
    let mut file = file::append(path).unwrap();
    file.write_all(b"cut").unwrap();
    let read = open(&after, folder.path(), socket);
    assert_eq!(read, ["t1", "t2", "t3"].map(Box::from));
    let table = KeyTable::default();
    table.restore_used(read);
    let begun = table.begin("token:t2", b"offer").map(drop);
    assert_eq!(begun, Err(KeyError::OtherBody("token:t2".into())));
    assert!(table.begin("token:t4", b"offer").is_ok());
    let another = open(&UsedTokens::default(), folder.path(), Path::new("/run/another.sock"));
    assert!(another.is_empty(), "that of another gateway");
}

#[tokio::test]
async fn file_of_used_tokens_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = UsedTokens::default();
    open(&tokens, folder.path(), Path::new("/run/evenkeel/admin.sock"));
    let id = |number: usize| format!("{number:0>120}");
    for part in 0..4 {
        let ids: Vec<String> = (0..KEYS_MAX).map(|number| id(part * KEYS_MAX + number)).collect();
        keep(&tokens, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let path = &tokens.file.get().unwrap().path;
    assert!(fs::metadata(path).unwrap().len() <= BYTES_MAX + BYTES_MAX / 2);
    let read = read(path).unwrap();
    assert_eq!((read.len(), &*read[KEYS_MAX - 1]), (KEYS_MAX, &*id(4 * KEYS_MAX - 1)));
}

#[test]
fn without_a_folder_nothing_is_written() {
    assert!(UsedTokens::default().keep(["t1"]).is_none());
}

#[tokio::test]
async fn tokens_that_the_disk_did_not_take_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let socket = Path::new("/run/evenkeel/admin.sock");
    let (tokens, unwritten) = (UsedTokens::default(), UnwrittenDocuments::default());
    tokens.open(folder.path(), socket, unwritten.clone());
    let obstacle = folder.path().join("used-tokens");
    fs::write(&obstacle, "").unwrap();
    keep(&tokens, &["t1"]).await;
    assert_eq!(unwritten.list()[0].document, "used-tokens");
    fs::remove_file(&obstacle).unwrap();
    keep(&tokens, &["t2"]).await;
    assert!(unwritten.list().is_empty());
    assert_eq!(open(&UsedTokens::default(), folder.path(), socket), ["t1", "t2"].map(Box::from));
}
