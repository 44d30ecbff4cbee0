//! What is said is on the disk first, and what cannot be written is not done.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use fleetward_agent::run::Stage;
use fleetward_protocol::run::Outcome;

use crate::host::{Machine, boot, finished, last, script, skipped, written};

/// Whether everything in a file has reached the disk; `None` where that cannot be seen, as on a tmpfs.
///
/// A page of a file that is still to be written counts as dirty in whatever mapping it is looked at through
/// (proc_pid_smaps(5)).
fn is_on_disk(path: &Path) -> Option<bool> {
    let probe = path.with_extension("probe");
    std::fs::write(&probe, "x").unwrap();
    let unwritten = dirty_kib(&probe);
    File::open(&probe).unwrap().sync_all().unwrap();
    let written = dirty_kib(&probe);
    std::fs::remove_file(&probe).unwrap();
    (unwritten > 0 && written == 0).then(|| dirty_kib(path) == 0)
}

fn dirty_kib(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    if length == 0 {
        return 0;
    }
    // SAFETY: a fresh mapping of `length` bytes for reading, which nobody else knows and which is unmapped below.
    let mapping = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(mapping, libc::MAP_FAILED);
    for page in (0..length).step_by(4096) {
        // SAFETY: within the mapping; the file is not shortened meanwhile.
        unsafe { mapping.cast::<u8>().add(page).read_volatile() };
    }
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    // SAFETY: the mapping made above.
    unsafe { libc::munmap(mapping, length) };
    let start = format!("{:x}-", mapping as usize);
    let of_file = smaps.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let dirty = of_file
        .take_while(|line| !line.starts_with("VmFlags"))
        .filter(|line| line.starts_with("Shared_Dirty") || line.starts_with("Private_Dirty"));
    dirty.map(|line| line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn acceptance_start_output_and_result_are_on_the_disk_before_they_are_told() {
    let machine = Machine::new();
    if is_on_disk(&machine.paths().client_id).is_none() {
        return skipped("seeing what has reached the disk", "this file system does not tell");
    }
    std::fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let journal = machine.paths().journal();
    let life = machine.start(boot(1));
    let gate = machine.path("gate");
    let first = script(&format!("mkfifo {0}; echo first; read < {0}; echo second", gate.display()));
    let mut progress = life.begin(&first).await;
    drop(progress.wait_for(|progress| matches!(progress.stage, Stage::Running { .. })).await.unwrap());
    assert_eq!(is_on_disk(&journal), Some(true), "started");
    let waiting = script("echo third");
    let accepted = life.begin(&waiting).await;
    assert_eq!(accepted.borrow().stage, Stage::Waiting);
    assert_eq!(is_on_disk(&journal), Some(true), "accepted");
    written(&mut progress, 13 + 6).await;
    tokio::fs::write(gate, "go\n").await.unwrap();
    finished(progress).await;
    for file in ["spool", "result"] {
        assert_eq!(is_on_disk(&life.directory(first.run).join(file)), Some(true), "{file}");
    }
    finished(accepted).await;
    assert_eq!(is_on_disk(&journal), Some(true), "accepted and started at different times");
}

/// A limit on the size of files, as good as a full disk for the longest of them. It holds for the whole process:
/// each test is one of its own.
fn limit_files(bytes: u64) {
    // SAFETY: integers, and a structure that outlives the call.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

#[tokio::test]
async fn what_the_journal_cannot_take_is_not_started() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let starts = machine.path("starts");
    // The journal becomes the longest file there is.
    let long = script(&format!("true # {}", "x".repeat(200_000)));
    assert_eq!(life.finish(&long).await.outcome, Outcome::Exited(0));
    // More than the room that it has.
    let request = script(&format!("echo x >> {} # {}", starts.display(), "x".repeat(100_000)));

    limit_files(std::fs::metadata(machine.paths().journal()).unwrap().len());
    let refused = last(life.begin(&request).await).await;
    assert!(matches!(refused, Stage::Refused { accepted: false, .. }), "{refused:?}");
    limit_files(u64::MAX);

    // Another run is over when this one, had it been started, would be.
    assert_eq!(life.finish(&script("true")).await.outcome, Outcome::Exited(0));
    assert!(!starts.exists(), "it was started, and the journal does not know");
}
