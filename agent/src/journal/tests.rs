//! Crashes at every byte, and what is left of the journal afterwards.

use std::path::Path;

use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::entry::Entry;
use super::index::Index;
use super::log::{Log, Recovery};
use super::{Accepted, Journal};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn run(number: u8) -> RunId {
    RunId::from_uuid(Uuid::from_u128(number.into()))
}

fn boot(number: u128) -> BootId {
    BootId::from_uuid(Uuid::from_u128(number))
}

fn life(number: u128) -> JournalId {
    JournalId::from_uuid(Uuid::from_u128(number))
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0_u8..6, 0_u8..4, 0_usize..200).prop_map(|(number, kind, size)| {
        let run = run(number);
        match kind {
            0 => Entry::Accepted {
                run,
                order: vec![number; size],
                contents: vec![vec![1; size / 2].into()],
                deadline: LATER,
            },
            1 => Entry::Started { run, at: NOW, boot: boot(9), resumable: size % 2 == 0 },
            2 if size % 2 == 0 => Entry::TakenUp { run, boot: boot(10) },
            2 => Entry::Refused { run, refusal: Refusal::DiskFull },
            _ => Entry::Forgotten { run, until: if size % 2 == 0 { NOW } else { LATER } },
        }
    });
    proptest::collection::vec(entry, 0..12)
}

fn open(path: &Path, fresh: JournalId) -> (Log, Recovery) {
    Log::open(path, fresh, NOW).unwrap()
}

/// What the index means, without where things stand in the file.
fn meaning(index: &Index) -> Vec<String> {
    let runs =
        index.runs().iter().map(|(run, known)| format!("{run} {:?} {:?}", known.phase, known.deadline));
    let live = index.forgotten().iter().filter(|(_, until)| **until > NOW);
    runs.chain(live.map(|(run, until)| format!("{run} forgotten until {until:?}"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// After a crash at any byte of any append, what was durable before is there, and nothing else is wrong.
    #[test]
    fn a_crash_within_an_append_loses_that_append_and_nothing_else(
        entries in entries(),
        cut in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
        room in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut log, _) = open(&path, life(1));
        let mut states = vec![(log.end(), meaning(log.index()))];
        for entry in &entries {
            if room {
                log.ensure_room();
            }
            log.append(std::slice::from_ref(entry)).unwrap();
            states.push((log.end(), meaning(log.index())));
        }
        let end = usize::try_from(log.end()).unwrap();
        drop(log);
        let mut whole = std::fs::read(&path).unwrap();
        let zeros = whole.split_off(end);
        prop_assert!(zeros.iter().all(|byte| *byte == 0));
        // The first entry was renamed into place: it cannot be torn.
        let first = usize::try_from(states[0].0).unwrap();
        let cut = first + cut.index(whole.len() - first + 1);
        let mut torn = whole[..cut].to_vec();
        torn.extend(&garbage);
        // Where room had been made, what was not written is zeros.
        let length = torn.len().max(if room { end + zeros.len() } else { 0 });
        torn.resize(length, 0);
        std::fs::write(&path, &torn).unwrap();
        // What is there is there, even if it was not written: the garbage or the zeros may be what should stand there.
        let cut = cut + whole[cut..].iter().zip(&torn[cut..]).take_while(|(byte, torn)| byte == torn).count();
        let (mut log, recovery) = open(&path, life(2));
        prop_assert_eq!(log.id(), life(1));
        let (end, expected) = states.iter().rev().find(|(end, _)| *end <= cut as u64).unwrap();
        prop_assert_eq!(&meaning(log.index()), expected);
        prop_assert_eq!(log.end(), *end);
        let rest = &torn[usize::try_from(*end).unwrap()..];
        if rest.iter().all(|byte| *byte == 0) {
            prop_assert_eq!(recovery, Recovery::Clean);
        } else {
            prop_assert_eq!(recovery, Recovery::Truncated { bytes: rest.len() as u64 });
            prop_assert_eq!(std::fs::metadata(&path).unwrap().len(), *end);
        }
        // And it goes on from there.
        log.append(&[Entry::Forgotten { run: run(99), until: LATER }]).unwrap();
        let after = meaning(log.index());
        drop(log);
        prop_assert_eq!(meaning(open(&path, life(2)).0.index()), after);
    }

    /// One flipped bit anywhere: what is not the last write had been durable, and the journal does not go on as if it had
    /// never been. No run waits to be started that does not wait.
    #[test]
    fn damage_starts_nothing_that_was_started(
        writes in prop::collection::vec(entries(), 1..6),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut log, _) = open(&path, life(1));
        let mut last = 0;
        for entries in writes.iter().filter(|entries| !entries.is_empty()) {
            last = usize::try_from(log.end()).unwrap();
            log.append(entries).unwrap();
        }
        let before = meaning(log.index());
        let mut bytes = std::fs::read(&path).unwrap();
        drop(log);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let (log, recovery) = open(&path, life(2));
        if place < last {
            let replaced = matches!(recovery, Recovery::Replaced { .. });
            prop_assert!(replaced, "{:?}", recovery);
            prop_assert_eq!(log.id(), life(2));
            prop_assert!(waiting_of(&log).is_empty());
            let started = |told: &String| before.contains(told) || told.contains("forgotten") || !told.contains("Accepted");
            prop_assert!(meaning(log.index()).iter().all(started));
        }
        // And it goes on from there.
        let after = meaning(log.index());
        drop(log);
        let (log, recovery) = open(&path, life(3));
        prop_assert_eq!((recovery, meaning(log.index())), (Recovery::Clean, after));
    }

    /// A compacted journal means the same, and a crash anywhere in the compaction changes nothing.
    #[test]
    fn compaction_keeps_the_meaning_at_every_step(entries in entries(), cut in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let staged = directory.path().join("journal.new");
        let (mut log, _) = open(&path, life(1));
        log.append(&entries).unwrap();
        let before = std::fs::read(&path).unwrap();
        let expected = meaning(log.index());
        let waiting = waiting_of(&log);
        log.compact(NOW).unwrap();
        prop_assert_eq!(meaning(log.index()), expected.clone());
        prop_assert_eq!(waiting_of(&log), waiting.clone());
        drop(log);
        let after = std::fs::read(&path).unwrap();
        let (reopened, recovery) = open(&path, life(2));
        prop_assert_eq!(recovery, Recovery::Clean);
        prop_assert_eq!(reopened.id(), life(1));
        prop_assert_eq!(meaning(reopened.index()), expected.clone());
        prop_assert_eq!(waiting_of(&reopened), waiting);
        drop(reopened);
        // The crash came before the rename: the new file is there in part, the old one whole.
        std::fs::write(&path, before).unwrap();
        std::fs::write(&staged, &after[..cut.index(after.len() + 1)]).unwrap();
        prop_assert_eq!(meaning(open(&path, life(2)).0.index()), expected);
    }

    #[test]
    fn hostile_bytes_are_no_journal(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        std::fs::write(&path, &bytes).unwrap();
        let (log, recovery) = open(&path, life(2));
        let replaced = matches!(recovery, Recovery::Replaced { .. });
        prop_assert!(replaced);
        prop_assert_eq!(log.id(), life(2));
    }
}

fn waiting_of(log: &Log) -> Vec<(RunId, Accepted)> {
    log.index().runs().keys().filter_map(|run| Some((*run, log.read(*run).ok()?))).collect()
}

#[test]
fn a_failed_write_leaves_no_trace_and_the_next_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut log, _) = open(&path, life(1));
    let huge = Entry::Accepted { run: run(1), order: vec![0; 3 << 20], contents: vec![], deadline: LATER };
    assert!(log.append(&[Entry::Forgotten { run: run(2), until: LATER }, huge]).is_err());
    assert!(meaning(log.index()).is_empty());
    log.append(&[Entry::Forgotten { run: run(3), until: LATER }]).unwrap();
    let after = meaning(log.index());
    drop(log);
    let (log, recovery) = open(&path, life(2));
    assert_eq!((recovery, meaning(log.index())), (Recovery::Clean, after));
}

/// Two records in one write, of which the disk kept the second: it must not come back behind a later one.
#[test]
fn what_stood_behind_a_torn_record_is_gone_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut log, _) = open(&path, life(1));
    log.ensure_room();
    let start = usize::try_from(log.end()).unwrap();
    let forgotten = |number| Entry::Forgotten { run: run(number), until: LATER };
    log.append(&[forgotten(1), forgotten(2)]).unwrap();
    drop(log);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[start] = 0;
    std::fs::write(&path, &bytes).unwrap();
    let (mut log, recovery) = open(&path, life(2));
    assert_eq!(recovery, Recovery::Truncated { bytes: (bytes.len() - start) as u64 });
    log.ensure_room();
    log.append(&[forgotten(3)]).unwrap();
    drop(log);
    let (log, recovery) = open(&path, life(2));
    assert_eq!(recovery, Recovery::Clean);
    assert_eq!(log.index().forgotten().keys().copied().collect::<Vec<_>>(), [run(3)]);
}

#[test]
fn the_first_word_about_a_run_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(&directory.path().join("journal"), life(1));
    let accepted =
        Entry::Accepted { run: run(1), order: vec![1], contents: vec![vec![2].into()], deadline: LATER };
    let start = Entry::Started { run: run(1), at: NOW, boot: boot(9), resumable: false };
    log.append(&[accepted.clone(), start.clone()]).unwrap();
    let started = meaning(log.index());
    log.append(std::slice::from_ref(&accepted)).unwrap();
    assert_eq!(meaning(log.index()), started);
    assert!(log.read(run(1)).is_err(), "what was started is not read to be started again");
    let refused = Entry::Refused { run: run(1), refusal: Refusal::DiskFull };
    log.append(&[refused, start]).unwrap();
    assert!(matches!(log.index().runs()[&run(1)].phase, super::Phase::Refused(_)), "refused stays refused");
    log.append(&[Entry::Forgotten { run: run(1), until: LATER }, accepted]).unwrap();
    assert!(log.index().runs().is_empty(), "what was forgotten is not accepted again");
}

/// What can be taken up keeps its order, and how often it was taken up: in a compacted journal, too.
#[test]
fn a_run_that_can_be_taken_up_keeps_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut log, _) = open(&path, life(1));
    let accepted =
        |number| Entry::Accepted { run: run(number), order: vec![number], contents: vec![], deadline: LATER };
    let started = |number, resumable| Entry::Started { run: run(number), at: NOW, boot: boot(1), resumable };
    let again = |number, last| Entry::TakenUp { run: run(number), boot: boot(last) };
    log.append(&[accepted(1), started(1, true), again(1, 2), again(1, 3)]).unwrap();
    log.append(&[accepted(2), started(2, false), again(2, 2)]).unwrap();
    log.append(&[accepted(3), again(3, 2)]).unwrap();
    let phase = |at, taken_up| super::Phase::Started { at: NOW, boot: boot(at), taken_up };
    for _ in 0..2 {
        let runs = log.index().runs();
        assert_eq!(runs[&run(1)].phase, phase(3, Some(2)));
        assert_eq!(runs[&run(2)].phase, phase(1, None), "what cannot be taken up was not");
        assert_eq!(runs[&run(3)].phase, super::Phase::Accepted, "nor what was not started");
        assert_eq!(log.read(run(1)).unwrap().order, [1]);
        assert!(log.read(run(2)).is_err());
        log.compact(NOW).unwrap();
    }
    // Under another journal's id there is nobody to take it up for.
    let kept: Vec<Entry> = log.index().ended_or_started(NOW).collect();
    assert!(
        kept.contains(&Entry::Started { run: run(1), at: NOW, boot: boot(3), resumable: false }),
        "{kept:?}"
    );
}

#[tokio::test]
async fn appends_that_come_together_are_all_there_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (journal, contents) = Journal::open(&path, life(1), NOW).unwrap();
    assert!(contents.runs.is_empty());
    let append = |number| {
        let run = run(number);
        let entry = Entry::Accepted { run, order: vec![number; 100], contents: vec![], deadline: LATER };
        journal.append(vec![entry], NOW)
    };
    let (a, b, c) = tokio::join!(append(1), append(2), append(3));
    a.and(b).and(c).unwrap();
    assert_eq!(journal.read(run(2)).await.unwrap().order, vec![2; 100]);
    let (_, contents) = Journal::open(&path, life(2), NOW).unwrap();
    assert_eq!((contents.id, contents.runs.len()), (life(1), 3));
}
