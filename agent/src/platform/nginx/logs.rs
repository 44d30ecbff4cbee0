//! The ends of nginx's logs.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// The most that is read of a log.
const MAX_TAIL: u64 = 512 << 10;

/// The last lines of a log, in their order; none where it is no regular file.
///
/// A link is followed if root made it: somebody else's could lead to what they may not read themselves.
///
/// # Errors
/// If it cannot be read.
pub fn read_tail(path: &Path, lines: usize) -> io::Result<Vec<Vec<u8>>> {
    let link = fs::symlink_metadata(path)?;
    let own = nix::unistd::geteuid().as_raw();
    if link.file_type().is_symlink() && link.uid() != 0 && link.uid() != own {
        return Err(io::Error::other("it is a link that another user has made"));
    }
    // Opening a FIFO would wait for somebody who writes to it.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Vec::new());
    }
    let length = metadata.len().min(MAX_TAIL);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, metadata.len() - length + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    let is_cut = length < metadata.len();
    let mut all: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if all.last().is_some_and(|last| last.is_empty()) {
        all.pop();
    }
    // The first one may have begun before.
    let from = all.len().saturating_sub(lines).max(usize::from(is_cut && all.len() > 1));
    Ok(all.get(from..).unwrap_or_default().iter().map(|line| line.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_read_in_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        let tail = |lines| {
            let lines = read_tail(&path, lines).unwrap();
            lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>()
        };
        fs::write(&path, "").unwrap();
        assert_eq!(tail(5), [""; 0]);
        fs::write(&path, "a\nb\nc").unwrap();
        assert_eq!(
            (tail(2), tail(9)),
            (vec!["b".into(), "c".into()], vec!["a".into(), "b".into(), "c".into()])
        );
        let long = format!("{}\n", "x".repeat(999)).repeat(600);
        fs::write(&path, &long).unwrap();
        let lines = tail(10_000);
        assert!(lines.len() > 500 && lines.iter().all(|line| line.len() == 999));
        nix::unistd::mkfifo(&directory.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read_tail(&directory.path().join("fifo"), 5).unwrap().len(), 0);
        assert!(read_tail(&directory.path().join("none"), 5).is_err());
    }
}
