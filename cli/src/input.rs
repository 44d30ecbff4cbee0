//! What a person hands over: a file, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::failure::Failure;

/// What a person calls it.
pub(crate) fn name(path: &Path) -> String {
    if is_standard_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// What a file holds, or what comes to standard input where `path` is `-`.
///
/// # Errors
/// [`Failure::Usage`] if it cannot be read or has more than `most` bytes: the command line names a file that will not do.
pub(crate) fn read(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let too_large = || Failure::Usage(format!("{} has more than {most} bytes", name(path)));
    read_within(path, most)?.ok_or_else(too_large)
}

/// As [`read`]; nothing if it has more than `most` bytes.
///
/// # Errors
/// [`Failure::Usage`] if it cannot be read.
pub(crate) fn read_within(path: &Path, most: usize) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let most_read = most as u64 + 1;
    let read = match is_standard_input(path) {
        true => io::stdin().lock().take(most_read).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(most_read).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", name(path))))?;
    Ok(Some(bytes).filter(|bytes| bytes.len() <= most))
}

/// As [`read`], where it is text.
///
/// # Errors
/// Likewise, and if it is no UTF-8.
pub(crate) fn read_text(path: &Path, most: usize) -> Result<String, Failure> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| Failure::Usage(format!("{} is no text in UTF-8", name(path))))
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_will_not_do_is_a_mistake_of_the_command_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, [0xff; 4]).unwrap();
        assert_eq!(read(&path, 4).unwrap(), [0xff; 4]);
        for (failure, told) in [
            (read(&path, 3).unwrap_err(), "has more than 3 bytes"),
            (read_text(&path, 4).unwrap_err(), "is no text in UTF-8"),
            (read(directory.path(), 4).unwrap_err(), "cannot read"),
            (read(Path::new("/nowhere"), 4).unwrap_err(), "cannot read /nowhere: No such file"),
        ] {
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(told), "{failure}");
        }
    }
}
