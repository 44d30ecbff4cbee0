//! Output comes back byte by byte, by run and by seq, however it was written and however it is read.

use proptest::prelude::*;

use super::properties::properties;
use super::sample::*;
use crate::store::Scope;
use crate::store::output::{Piece, list_since, read};

/// One batch: for each piece, the run it belongs to and how long it is.
fn batches() -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    let length = prop_oneof![3 => 1..40_usize, 2 => 1_000..20_000_usize, 1 => 16_000..70_000_usize];
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
            assert_eq!(read(&mut conn, &scope, run, 0, usize::MAX).await.unwrap(), *log);
            let middle = log.len() / 2;
            let mut rest = Vec::new();
            loop {
                let more = read(&mut conn, &scope, run, (middle + rest.len()) as u64, budget).await.unwrap();
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
            let page = list_since(&mut conn, &scope, op, since, budget).await.unwrap();
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
}
