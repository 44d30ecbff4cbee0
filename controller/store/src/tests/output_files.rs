//! Bulky output on SQLite: where it is, who may read it, and what becomes of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use fleetward_protocol::id::{OperationId, RunId};

use super::sample::*;
use crate::people::tenant;
use crate::testing::{self, NOW, TestStore};
use crate::work::batch;
use crate::work::output::{delete_orphaned_files, read};
use crate::{Scope, Store, StoreError};

const BULKY: usize = 100_000;

fn directory(test: &TestStore) -> PathBuf {
    test.file().unwrap().with_extension("output")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn read_all(store: &Store, run: RunId) -> Result<Vec<u8>, StoreError> {
    let mut conn = store.read().await.unwrap();
    read(&mut conn, store.files(), &Scope::Everything, run, 0, usize::MAX).await
}

async fn bulky(store: &Store) -> (OperationId, RunId) {
    let (op, runs) = operation(store, tenant::DEFAULT, 1).await;
    write(store, vec![append(op, runs[0], 0, &vec![b'x'; BULKY])]).await;
    (op, runs[0])
}

#[tokio::test]
async fn what_is_bulky_goes_to_a_file_that_only_the_controller_can_read() {
    let test = testing::sqlite().await;
    let (op, run) = bulky(&test.store).await;
    write(&test.store, vec![append(op, run, BULKY as u64, b"small")]).await;
    let of_operation = directory(&test).join(op.to_string());
    let file = of_operation.join(run.to_string());
    assert_eq!(fs::read(&file).unwrap(), vec![b'x'; BULKY]);
    assert_eq!((mode(&directory(&test)), mode(&of_operation), mode(&file)), (0o700, 0o700, 0o600));
    let log = read_all(&test.store, run).await.unwrap();
    assert_eq!((log.len(), &log[BULKY..]), (BULKY + 5, &b"small"[..]));
}

#[tokio::test]
async fn files_of_operations_that_are_gone_are_removed_and_no_others() {
    let test = testing::sqlite().await;
    let (op, run) = bulky(&test.store).await;
    let gone = directory(&test).join(OperationId::from_uuid(uuid()).to_string());
    fs::create_dir_all(&gone).unwrap();
    fs::write(gone.join("run"), "x").unwrap();
    fs::write(directory(&test).join("notes.txt"), "somebody's").unwrap();
    assert_eq!(delete_orphaned_files(&test.store).await.unwrap(), 1);
    assert!(!gone.exists());
    assert!(directory(&test).join("notes.txt").exists());
    assert_eq!(read_all(&test.store, run).await.unwrap().len(), BULKY);
    assert!(directory(&test).join(op.to_string()).exists());
}

#[tokio::test]
async fn a_file_that_is_gone_or_cut_is_told_of_and_never_taken_for_output() {
    let test = testing::sqlite().await;
    let (op, run) = bulky(&test.store).await;
    let file = directory(&test).join(op.to_string()).join(run.to_string());
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(10).unwrap();
    assert!(matches!(read_all(&test.store, run).await, Err(StoreError::Corrupt { .. })));
    fs::remove_file(&file).unwrap();
    let told = read_all(&test.store, run).await.unwrap_err().to_string();
    assert!(told.contains(&run.to_string()), "{told}");
}

#[tokio::test]
async fn a_piece_of_any_size_can_be_read_again() {
    let test = testing::sqlite().await;
    let (op, runs) = operation(&test.store, tenant::DEFAULT, 1).await;
    let piece: Vec<u8> = (0..5_usize << 19).map(|at| (at % 251) as u8).collect();
    write(&test.store, vec![append(op, runs[0], 0, &piece), append(op, runs[0], piece.len() as u64, b"end")])
        .await;
    let log = read_all(&test.store, runs[0]).await.unwrap();
    assert!(log.starts_with(&piece) && log.ends_with(b"end") && log.len() == piece.len() + 3);
}

#[tokio::test]
async fn a_disk_without_room_for_a_file_changes_nothing() {
    let test = testing::sqlite().await;
    let (op, runs) = operation(&test.store, tenant::DEFAULT, 1).await;
    let file = directory(&test).join(op.to_string()).join(runs[0].to_string());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    symlink("/dev/full", &file).unwrap();
    let writes = vec![append(op, runs[0], 0, &vec![b'y'; BULKY])];
    let mut tx = test.store.write().await.unwrap();
    let refused = batch::write(&mut tx, test.store.files(), writes.clone()).await;
    assert!(matches!(refused, Err(StoreError::DiskFull(_))), "{refused:?}");
    drop(tx);
    assert_eq!(read_all(&test.store, runs[0]).await.unwrap(), b"");
    fs::remove_file(&file).unwrap();
    write(&test.store, writes).await;
    assert_eq!(read_all(&test.store, runs[0]).await.unwrap(), vec![b'y'; BULKY]);
    let reopened = Store::open(&test.url, NOW).await.unwrap();
    assert_eq!(read_all(&reopened, runs[0]).await.unwrap(), vec![b'y'; BULKY]);
}
