//! apt and dpkg: what is installed, what there is, and changes to it.
//!
//! What is read comes from apt-cache(8), apt-mark(8), apt-config(8) and dpkg-query(1), whose output is kept stable for programs
//! (apt(8) says of itself that its own is not), in the language of none. Nothing that is read takes a lock.
//! What is changed is changed by apt-get(8) and dpkg(1).

pub mod change;
pub mod installed;
pub mod locks;
pub mod policy;
pub mod simulated;
pub mod wanted;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use fleetward_protocol::text::{Line, Text};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::config;

/// The most that one of these programs may say, in bytes: some thousand packages with all their versions.
const MAX_SAID: u64 = 32 << 20;
/// The most that is kept of what it says is wrong.
const MAX_WRONG: u64 = 64 << 10;
/// How long one that only reads may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where these programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// apt on this host, and where it has its things.
#[derive(Debug)]
pub struct Apt {
    /// dpkg's directory (`--admindir` of dpkg(1)).
    admin: PathBuf,
    /// The lists of what there is.
    lists: PathBuf,
    /// What was downloaded.
    archives: PathBuf,
    /// What apt's configuration has dpkg started with.
    dpkg: Vec<String>,
}

/// apt could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// There is none.
    #[error("this host has no {0}: it is no Debian or Ubuntu")]
    Absent(&'static str),
    /// A program could not be started, or heard.
    #[error("{program}: {source}")]
    Start {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("{program}: {said}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        said: Line,
    },
    /// It does not come to an end.
    #[error("{0} did not end within {seconds} seconds", seconds = PATIENCE.as_secs())]
    Silent(&'static str),
    /// It says more than anybody would read.
    #[error("{0} says more than {MAX_SAID} bytes")]
    Much(&'static str),
    /// It says what is not understood.
    #[error("{0} says what is not understood")]
    Strange(&'static str),
}

impl Apt {
    /// Finds apt, and where it has its things.
    ///
    /// # Errors
    /// If this host has none, or it does not tell.
    pub async fn find() -> Result<Self, AptError> {
        let asked = ["shell", "STATUS", "Dir::State::status/f", "LISTS", "Dir::State::lists/d"];
        let said = read("apt-config", asked.iter().chain(&["ARCHIVES", "Dir::Cache::archives/d"])).await?;
        let mut places = shell(&said);
        let mut place = |name| places.remove(name).map(PathBuf::from).ok_or(AptError::Strange("apt-config"));
        let (status, lists, archives) = (place("STATUS")?, place("LISTS")?, place("ARCHIVES")?);
        let admin = status.parent().ok_or(AptError::Strange("apt-config"))?.to_owned();
        let said = read("apt-config", ["dump", "--format", "%f\t%v%n", "DPkg::Options"]).await?;
        let dpkg = said.lines().filter_map(|line| line.split_once('\t')).map(|(_, value)| value.to_owned());
        let dpkg = dpkg.filter(|option| !option.is_empty()).collect();
        Ok(Self { admin, lists, archives, dpkg })
    }

    /// Whether dpkg was interrupted: it has written down what it has not taken into its database yet.
    #[must_use]
    pub fn read_is_interrupted(&self) -> bool {
        let entries = std::fs::read_dir(self.admin.join("updates")).into_iter().flatten().flatten();
        let is_number = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        entries.into_iter().any(|entry| is_number(&entry.file_name()))
    }

    /// What there is of apt's lists: each file with its size and its time. A list that was fetched again and is as it was has
    /// the time of before.
    #[must_use]
    pub fn read_lists(&self) -> BTreeMap<String, (u64, i64)> {
        use std::os::unix::fs::MetadataExt as _;
        let entries = std::fs::read_dir(&self.lists).into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let file = std::fs::metadata(entry.path()).ok()?;
            (file.is_file() && name != "lock").then_some((name, (file.size(), file.mtime())))
        });
        files.collect()
    }

    /// The directory of dpkg's database.
    #[must_use]
    pub fn admin(&self) -> &Path {
        &self.admin
    }
}

/// When dpkg last changed what is installed, and apt what there is, at their usual places; none where there is no dpkg. Costs
/// two looks.
#[must_use]
pub fn read_changed() -> Option<[Option<SystemTime>; 2]> {
    let changed = |path: &str| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let installed = changed("/var/lib/dpkg/status")?;
    Some([Some(installed), changed("/var/lib/apt/lists")])
}

/// What apt-config(8) says for a shell: `NAME='value'`, a line each.
fn shell(said: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
        (!value.contains('\'')).then(|| (name.to_owned(), value.to_owned()))
    };
    said.lines().filter_map(line).collect()
}

/// The variables that each of these programs gets.
fn environment() -> Vec<(&'static str, String)> {
    let apt = config::apt_config().map(|path| (config::APT, path));
    [("PATH", PATH.to_owned()), ("LANG", "C.UTF-8".to_owned()), ("LC_ALL", "C.UTF-8".to_owned())]
        .into_iter()
        .chain(apt)
        .collect()
}

/// What a program says that only looks.
async fn read(
    program: &'static str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<String, AptError> {
    let (status, said, wrong) = hear(program, arguments).await?;
    if status.success() {
        Ok(said)
    } else {
        Err(AptError::Failed { program, said: complaint(&wrong, status) })
    }
}

/// How a program that only looks ended, what it said, and what it said is wrong.
async fn hear(
    program: &'static str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<(ExitStatus, String, String), AptError> {
    let start = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => AptError::Absent(program),
        _ => AptError::Start { program, source },
    };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (Some(out), Some(wrong)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(AptError::Strange(program));
    };
    let heard = async {
        let (said, wrong) = tokio::try_join!(take(out, MAX_SAID), take(wrong, MAX_WRONG))?;
        Ok::<_, io::Error>((child.wait().await?, said, wrong))
    };
    match tokio::time::timeout(PATIENCE, heard).await {
        Err(_) => Err(AptError::Silent(program)),
        Ok(Err(source)) => Err(AptError::Start { program, source }),
        Ok(Ok((_, said, _))) if said.len() as u64 == MAX_SAID => Err(AptError::Much(program)),
        Ok(Ok((status, said, wrong))) => {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok((status, text(said), text(wrong)))
        }
    }
}

/// Reads so much; the rest is read and dropped, so that nobody waits for a reader.
async fn take(mut pipe: impl AsyncRead + Unpin, most: u64) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    (&mut pipe).take(most).read_to_end(&mut said).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(said)
}

/// What one of these programs says is wrong: its lines with `E:`, or its last ones, or else how it ended.
fn complaint(wrong: &str, status: ExitStatus) -> Line {
    let lines: Vec<&str> = wrong.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("E: ")).take(5).collect();
    match (errors.is_empty(), lines.last()) {
        (false, _) => Text::of(errors.join("; ")),
        (true, Some(last)) => Text::of(last),
        (true, None) => Text::of(status),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn what_is_said_for_a_shell_is_read_and_nothing_else() {
        let said = "STATUS='/var/lib/dpkg/status'\nLISTS='/var/lib/apt/lists/'\nX=plain\nY='a'b'\nnothing\n";
        let read = shell(said);
        assert_eq!(read.len(), 2);
        assert_eq!(read["STATUS"], "/var/lib/dpkg/status");
    }

    #[test]
    fn a_complaint_is_what_apt_says_is_an_error() {
        let status = ExitStatus::from_raw(100 << 8);
        assert_eq!(
            complaint("W: old\nE: Unable to locate package x\nE: two\n", status),
            "Unable to locate package x; two"
        );
        assert_eq!(complaint("dpkg: error: no\n\n", status), "dpkg: error: no");
        assert_eq!(complaint("", status), "exit status: 100");
    }
}
