//! A writer that is killed in mid-batch: what it had committed is there, what it had not is not, and nothing
//! in between.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use fleetward_protocol::id::{OperationId, RunId};

use super::sample::*;
use crate::store::testing::{self, NOW};
use crate::store::{Scope, Store, operation, output, run, tenant};

const URL: &str = "FLEETWARD_CRASH_URL";
const ROUNDS: usize = 6;

/// Byte `at` of every run's log.
fn pattern(at: u64) -> u8 {
    (at % 251) as u8
}

/// The writer: endless batches of different sizes on two runs; tells on standard output what it committed.
#[tokio::test]
#[ignore = "a child process of the test below"]
async fn writer() {
    let Ok(told) = std::env::var(URL) else { return };
    let mut words = told.split('|');
    let (url, op) = (words.next().unwrap(), words.next().unwrap());
    let op: OperationId = op.parse().unwrap();
    let runs: Vec<RunId> = words.map(|id| id.parse().unwrap()).collect();
    let store = Store::open(url, NOW).await.unwrap();
    let mut ends = Vec::new();
    for &run in &runs {
        let mut conn = store.read().await.unwrap();
        ends.push(run::get(&mut conn, &Scope::Everything, run).await.unwrap().output_end);
    }
    for round in 0_u64.. {
        let mut writes = Vec::new();
        for (run, end) in runs.iter().zip(&mut ends) {
            let length = [17, 300_000, 4_096, 20_000][usize::try_from(round % 4).unwrap()];
            let bytes: Vec<u8> = (*end..*end + length).map(pattern).collect();
            writes.push(append(op, *run, *end, &bytes));
            *end += length;
        }
        write(&store, writes).await;
        println!("committed {} {}", ends[0], ends[1]);
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_batches() {
    let test = testing::sqlite().await;
    let (op, runs) = operation(&test.store, tenant::DEFAULT, 2).await;
    test.store.clone().close().await.unwrap();
    for round in 0..ROUNDS {
        let told = format!("{}|{op}|{}|{}", test.url, runs[0], runs[1]);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash::writer", "--ignored", "--nocapture"])
            .env(URL, told)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut committed = (0, 0);
        // Killed right after it told of a commit: it is somewhere in the next batch.
        for line in told.by_ref().filter(|line| line.contains("committed")).take(3 + round * 2) {
            let mut numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
            committed = (numbers.next().unwrap(), numbers.next().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(committed.0 > 0, "the writer wrote");

        let store = Store::open(&test.url, NOW).await.unwrap();
        let mut conn = store.read().await.unwrap();
        let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut *conn).await.unwrap();
        assert_eq!(sound, "ok");
        let mut ends = Vec::new();
        for &run in &runs {
            let end = run::get(&mut conn, &Scope::Everything, run).await.unwrap().output_end;
            let bytes = output::read(&mut conn, &Scope::Everything, run, 0, usize::MAX).await.unwrap();
            assert_eq!(bytes.len() as u64, end);
            assert!(bytes.iter().zip(0..).all(|(&byte, at)| byte == pattern(at)));
            ends.push(end);
        }
        // Nothing acknowledged is lost, and both runs of a batch are there or neither.
        assert!(ends[0] >= committed.0 && ends[1] >= committed.1, "{ends:?} {committed:?}");
        assert_eq!(ends[0], ends[1]);
        // Every byte has its seq, and no seq is beyond the operation's.
        let seq = operation::get(&mut conn, &Scope::Everything, op).await.unwrap().seq;
        let all = output::list_since(&mut conn, &Scope::Everything, op, 0, usize::MAX).await.unwrap();
        assert_eq!(all.pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>(), ends[0] + ends[1]);
        assert!(all.pieces.iter().all(|piece| piece.seq <= seq));
        drop(conn);
        store.close().await.unwrap();
    }
}
