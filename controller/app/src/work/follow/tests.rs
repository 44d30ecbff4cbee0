//! Batches are bounded, and together they are everything.

use std::collections::BTreeMap;

use fleetward_domain::work::run::{Custody, RunState};
use fleetward_protocol::id::JournalId;
use fleetward_protocol::output::{HEADER, Record, Stream};
use fleetward_store::work::batch::{self, Append, RunChange, Write};
use uuid::Uuid;

use super::*;
use crate::testing::TestApp;

const HOSTS: usize = 40;
const LINE: &[u8] = b"line\n";
const REPORT: usize = 60 << 10;
/// How long each run's log is.
const LOG: usize = 2 * HEADER + LINE.len() + REPORT;

/// An operation on forty hosts, all of whose runs end in one commit: each with a line of output and a report of 60 KiB.
async fn ended_at_once(controller: &TestApp) -> OperationId {
    controller.add_script("work", "#!/bin/bash\n").await;
    for number in 0..HOSTS {
        controller.add_absent_host(&format!("web-{number}")).await;
    }
    let operation = controller.run(&["work"], "all").await.unwrap();
    let (_, runs) = controller.wait_until(operation.id, |_, runs| runs.len() == HOSTS).await;
    let at = controller.clock.now();
    let custody = Custody { journal: JournalId::from_uuid(Uuid::nil()), cancel: None };
    let report = format!(r#"{{"a":"{}"}}"#, "x".repeat(REPORT - 8));
    let mut writes = Vec::new();
    for run in &runs {
        let states = [
            RunState::Queued,
            RunState::Dispatched(custody),
            RunState::Running(custody),
            RunState::Succeeded,
        ];
        let moves = states.windows(2).map(|pair| {
            let (from, to) = (pair[0].clone(), pair[1].clone());
            let (duration_ms, left, attached) = (None, None, 0);
            let (operation, run) = (operation.id, run.id);
            Write::Run(RunChange { operation, run, from, to, at, duration_ms, left, attached })
        });
        let mut moves: Vec<Write> = moves.collect();
        let mut bytes = Vec::new();
        for (stream, payload) in [(Stream::Stdout, LINE), (Stream::Report, report.as_bytes())] {
            Record { stream, at, payload }.append_to(&mut bytes);
        }
        let append = Append { operation: operation.id, run: run.id, offset: 0, bytes: bytes.into() };
        moves.insert(2, Write::Output(append));
        writes.extend(moves);
    }
    let store = controller.app().store();
    let mut tx = store.write().await.unwrap();
    batch::write(&mut tx, store.files(), writes).await.unwrap();
    tx.commit().await.unwrap();
    operation.id
}

/// What a reader has been told.
#[derive(Debug, Default)]
struct Told {
    written: BTreeMap<RunId, usize>,
    ended: BTreeMap<RunId, usize>,
}

impl Told {
    fn take(&mut self, change: &OperationChange) {
        match change {
            OperationChange::Output { piece, .. } => {
                *self.written.entry(piece.run).or_default() += piece.bytes.len();
            }
            OperationChange::Run(run) => {
                assert_eq!(run.run.state, RunState::Succeeded);
                assert_eq!(self.written.get(&run.run.id), Some(&LOG), "the end came before the output");
                assert!(run.report.is_some());
                *self.ended.entry(run.run.id).or_default() += 1;
            }
            OperationChange::Operation(found) | OperationChange::End(found) => {
                assert_eq!(self.ended.len(), HOSTS, "the operation is told as it is after its runs");
                assert_eq!(found.counts.total(), HOSTS as u64);
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.ended.len() == HOSTS && self.written.len() == HOSTS
    }
}

#[tokio::test]
async fn a_batch_holds_few_reports_and_all_are_told_once() {
    let controller = TestApp::start().await;
    let operation = ended_at_once(&controller).await;
    let permit = controller.permit::<ReadOutput>();
    let follow =
        async |position| Follower::new(controller.app(), &permit, operation, position).await.unwrap();
    let mut follower = follow(Position::START).await;
    let mut told = Told::default();
    let mut positions = Vec::new();
    while !told.is_whole() {
        let changes = follower.next().await.unwrap().unwrap();
        let reports = changes.iter().filter_map(|(change, _)| match change {
            OperationChange::Run(run) => run.report.as_ref(),
            _ => None,
        });
        let size: usize = reports.map(String::len).sum();
        assert!(size as u64 <= REPORT_BUDGET, "{} KiB of reports at once", size >> 10);
        for (change, position) in changes {
            told.take(&change);
            positions.push(position);
        }
    }
    assert!(told.ended.values().all(|times| *times == 1), "{:?}", told.ended);
    // Whoever comes back in the middle of the commit is told its output once, and its runs as they are.
    positions.dedup();
    let middle = positions[positions.len() / 2];
    let mut told = Told::default();
    let mut follower = follow(Position::START).await;
    let mut is_back = false;
    while !told.is_whole() {
        for (change, position) in follower.next().await.unwrap().unwrap() {
            told.take(&change);
            if position == middle && !is_back {
                is_back = true;
                follower = follow(position).await;
                break;
            }
        }
    }
    assert!(is_back && told.written.values().all(|bytes| *bytes == LOG), "{:?}", told.written);
}
