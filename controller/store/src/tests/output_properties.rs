//! Output comes back byte by byte, by run and by seq, however it was written and however it is read.

use fleetward_protocol::output::{Record, Stream};
use proptest::prelude::*;

use super::properties::properties;
use super::sample::*;
use crate::Scope;
use crate::on_both_engines;
use crate::work::output::{Piece, list_since, read};
use crate::work::run;

/// One batch: for each piece, the run it belongs to and how long it is.
fn batches() -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    let length = prop_oneof![3 => 1..40_usize, 2 => 1_000..20_000_usize, 1 => 16_000..70_000_usize, 1 => 65_530..200_000_usize];
    prop::collection::vec(prop::collection::vec((0..3_usize, length), 1..5), 1..8)
}

properties! {
    async fn output_is_read_back_exactly_and_resumes_anywhere(
        store: Store,
        (batches, budget, from) in (batches(), prop_oneof![Just(1_usize), 1..100_000_usize], 0..9_u64)
    ) {
        let of = tenant(&store).await;
        let (op, runs) = operation(&store, of, 3).await;
        let mut logs = vec![Vec::new(); runs.len()];
        // What must come back by seq: the operation begins at 1, so batch n has seq n + 2.
        let mut expected: Vec<(u64, usize, u64, Vec<u8>)> = Vec::new();
        for (batch, seq) in batches.iter().zip(2_u64..) {
            let mut writes = Vec::new();
            for &(run, length) in batch {
                let log = &mut logs[run];
                let bytes: Vec<u8> = (log.len()..log.len() + length).map(|at| (at % 251) as u8 ^ (run as u8)).collect();
                writes.push(append(op, runs[run], log.len() as u64, &bytes));
                expected.push((seq, run, log.len() as u64, bytes.clone()));
                log.extend(bytes);
            }
            assert_eq!(write(&store, writes).await.seqs[&op], seq);
        }
        let (mut conn, scope) = (store.read().await.unwrap(), Scope::of(of));
        for (&run, log) in runs.iter().zip(&logs) {
            assert_eq!(read(&mut conn, store.files(), &scope, run, 0, usize::MAX).await.unwrap(), *log);
            let middle = log.len() / 2;
            let mut rest = Vec::new();
            loop {
                let more = read(&mut conn, store.files(), &scope, run, (middle + rest.len()) as u64, budget).await.unwrap();
                if more.is_empty() {
                    break;
                }
                rest.extend(more);
            }
            assert_eq!(rest, log[middle..]);
        }
        // By seq, from anywhere, in pages of any size: each byte once, in the order of its commits.
        let mut pieces: Vec<Piece> = Vec::new();
        let mut since = from;
        loop {
            let page = list_since(&mut conn, store.files(), &scope, op, since, budget).await.unwrap();
            assert!(page.pieces.iter().all(|piece| piece.seq > since && piece.seq <= page.upto));
            assert!(page.upto > since || !page.more);
            pieces.extend(page.pieces);
            since = page.upto;
            if !page.more {
                break;
            }
        }
        assert!(pieces.is_sorted_by_key(|piece| (piece.seq, piece.run, piece.offset)));
        for (at, &run) in runs.iter().enumerate() {
            let of_run = |seq: u64, of: usize| of == at && seq > from;
            let wanted: Vec<u8> =
                expected.iter().filter(|(seq, of, ..)| of_run(*seq, *of)).flat_map(|(.., bytes)| bytes.clone()).collect();
            let found: Vec<&Piece> = pieces.iter().filter(|piece| piece.run == run).collect();
            assert!(found.windows(2).all(|pair| pair[0].offset + pair[0].bytes.len() as u64 == pair[1].offset));
            assert_eq!(found.iter().flat_map(|piece| piece.bytes.clone()).collect::<Vec<u8>>(), wanted);
            // Each byte under the seq that committed it.
            for piece in found {
                for (seq, .., bytes) in expected.iter().filter(|(_, of, offset, _)| {
                    *of == at && *offset >= piece.offset && *offset < piece.offset + piece.bytes.len() as u64
                }) {
                    assert_eq!(*seq, piece.seq, "{} bytes", bytes.len());
                }
            }
        }
        let now = write(&store, Vec::new()).await;
        assert!(now.seqs.is_empty());
    }

    /// P16: what the run wrote is counted, not the log's headers and marks, and what comes again is not counted again.
    async fn p16_bytes_written_and_bytes_missing_are_counted_once(
        store: Store,
        (payloads, sent) in (
            prop::collection::vec((0..7_u8, 1..3_000_usize), 1..12),
            prop::collection::vec((0..12_usize, 0..5_usize), 1..10),
        )
    ) {
        let of = tenant(&store).await;
        let (op, runs) = operation(&store, of, 1).await;
        let mut log = Vec::new();
        // Where each record ends, and what was written and is missing up to there.
        let mut ends = vec![(0, 0, 0)];
        for (kind, length) in payloads {
            let (_, mut kept, mut lost) = ends[ends.len() - 1];
            let (stream, payload) = match kind {
                0 => (Stream::Dropped, (length as u64).to_le_bytes().to_vec()),
                1 => (Stream::Stderr, vec![7; length]),
                2 => (Stream::Event, vec![8; length]),
                3 => (Stream::Report, vec![8; length]),
                _ => (Stream::Stdout, vec![9; length]),
            };
            match stream {
                Stream::Dropped => lost += length as u64,
                Stream::Stdout | Stream::Stderr => kept += length as u64,
                Stream::Event | Stream::Report => {}
            }
            Record { stream, at: at(1), payload: &payload }.append_to(&mut log);
            ends.push((log.len(), kept, lost));
        }
        // Pieces of whole records, from where the log ends or before it, as a stream that was cut off repeats them.
        let mut reached = 0;
        for (back, records) in sent {
            let from = reached - back.min(reached);
            let to = (from + records).min(ends.len() - 1);
            let (begin, end) = (ends[from].0, ends[to].0);
            write(&store, vec![append(op, runs[0], begin as u64, &log[begin..end])]).await;
            reached = reached.max(to);
            let run = run::get(&mut store.read().await.unwrap(), &Scope::of(of), runs[0]).await.unwrap();
            let (end, kept, lost) = ends[reached];
            assert_eq!((run.output_end, run.output_bytes, run.output_lost), (end as u64, kept, lost));
        }
    }
}

on_both_engines! {
    /// What a host says it lost is its word alone: no number of it may stop a commit or spoil the row.
    async fn the_largest_losses_that_a_host_can_claim_leave_a_readable_run(store: Store) {
        let of = tenant(&store).await;
        let (op, runs) = operation(&store, of, 1).await;
        let mut claim = Vec::new();
        let payload = u64::MAX.to_le_bytes();
        Record { stream: Stream::Dropped, at: at(1), payload: &payload }.append_to(&mut claim);
        let claims = claim.repeat(2);
        for offset in [0, claims.len() as u64] {
            write(&store, vec![append(op, runs[0], offset, &claims)]).await;
        }
        let run = run::get(&mut store.read().await.unwrap(), &Scope::of(of), runs[0]).await.unwrap();
        assert_eq!((run.output_lost, run.output_bytes), (i64::MAX.unsigned_abs(), 0));
    }
}
