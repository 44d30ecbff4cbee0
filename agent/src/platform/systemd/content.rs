//! The files of units: where they are, and what the host's own systemd says of one that is to be written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::text::{Line, Text};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::units::Row;
use super::{MANAGER, PATH, Systemd, SystemdError, UNIT, ask, property};
use crate::platform::files;

/// The most that is read of what `systemd-analyze` says, in bytes.
const MAX_SAID: u64 = 64 << 10;
/// The most lines of it that are told.
const MAX_LINES: usize = 20;
/// How long it may take: it loads all units that the one hangs together with.
const PATIENCE: Duration = Duration::from_secs(60);
/// The directory of a draft, in that of its run: what a process leaves there that is killed goes with the run.
const DRAFT: &str = "draft";
/// How the directory of the host's own units ends, among those in which systemd looks (systemd.unit(5)).
const OWN_UNITS: &str = "etc/systemd/system";

/// A file that is to be checked, under its name.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The unit's whole name.
    pub unit: &'a str,
    /// The unit's own file, if it has one.
    pub file: Option<&'a [u8]>,
    /// A drop-in of it: its name with `.conf`, and its content.
    pub drop_in: Option<(&'a str, &'a [u8])>,
}

/// What systemd says of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can be used, with these warnings.
    Usable(Vec<Line>),
    /// It cannot.
    Unusable(Vec<Line>),
    /// That cannot be told, for this reason.
    Unknown(String),
}

impl Systemd {
    /// The directory in which the host's own units stand: `/etc/systemd/system`, as systemd has it.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_own_directory(&self) -> Result<PathBuf, SystemdError> {
        let paths = property::<Vec<String>>(&self.connection, PATH, MANAGER, "UnitPath");
        let paths = self.runtime.block_on(paths)?.unwrap_or_default();
        let own = paths.iter().map(PathBuf::from).find(|path| path.ends_with(OWN_UNITS));
        Ok(own.unwrap_or_else(|| Path::new("/").join(OWN_UNITS)))
    }

    /// The directories in which systemd looks for units, in their order.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_directories(&self) -> Result<Vec<PathBuf>, SystemdError> {
        let paths = property::<Vec<String>>(&self.connection, PATH, MANAGER, "UnitPath");
        Ok(self.runtime.block_on(paths)?.unwrap_or_default().into_iter().map(PathBuf::from).collect())
    }

    /// The instances of a template (`app@.service`) that are not inactive, by their names.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_active_instances(&self, template: &str) -> Result<Vec<String>, SystemdError> {
        let pattern = template.replacen("@.", "@*.", 1);
        let states = ["active", "reloading", "activating", "deactivating", "maintenance", "refreshing"];
        let asked = (&states[..], &[pattern.as_str()][..]);
        let rows = ask::<Vec<Row>>(&self.connection, PATH, MANAGER, "ListUnitsByPatterns", &asked);
        let mut names: Vec<String> = self.runtime.block_on(rows)?.into_iter().map(|row| row.0).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The file that systemd has read the unit from; `None` if there is none.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_fragment(&self, unit: &UnitName) -> Result<Option<PathBuf>, SystemdError> {
        self.runtime.block_on(async {
            let path = self.load(unit).await?;
            let file = property::<String>(&self.connection, path.as_str(), UNIT, "FragmentPath").await?;
            Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
        })
    }

    /// What the host's `systemd-analyze verify` says of a draft, which stands in the directory of this run meanwhile.
    #[must_use]
    pub fn verify(&self, draft: &Draft<'_>, run: &Path) -> Verdict {
        let place = run.join(DRAFT);
        let verdict = match lay_out(&place, draft) {
            Ok(file) => self.runtime.block_on(analyze(&file, &place)),
            Err(error) => Verdict::Unknown(format!("it cannot be laid out in {}: {error}", place.display())),
        };
        // Should that fail, it goes with the run.
        drop(fs::remove_dir_all(&place));
        verdict
    }
}

/// Makes the place anew: a process of this run that was killed may have left another draft there.
fn lay_out(place: &Path, draft: &Draft<'_>) -> io::Result<PathBuf> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => files::create_directory(place, 0o700)?,
    }
    let Draft { unit, file, drop_in } = draft;
    let path = place.join(unit);
    let write =
        |path: &Path, content: &[u8]| files::ensure_file(path, 0o600, content).map_err(io::Error::other);
    if let Some(content) = file {
        write(&path, content)?;
    }
    if let Some((name, content)) = drop_in {
        let directory = place.join(format!("{unit}.d"));
        files::create_directory(&directory, 0o700)?;
        write(&directory.join(name), content)?;
    }
    Ok(path)
}

async fn analyze(file: &Path, place: &Path) -> Verdict {
    // Errors of other units are not those of the draft. Before systemd 250 there is no such option.
    match run(file, place, &["--recursive-errors=no"]).await {
        Ok((false, said)) if said.contains("unrecognized option") => verdict(run(file, place, &[]).await),
        told => verdict(told),
    }
}

fn verdict(told: io::Result<(bool, String)>) -> Verdict {
    match told {
        Ok((is_well, said)) => {
            let lines = said.lines().filter(|line| !line.trim().is_empty());
            let lines = lines.take(MAX_LINES).map(Text::of).collect();
            if is_well { Verdict::Usable(lines) } else { Verdict::Unusable(lines) }
        }
        Err(error) => Verdict::Unknown(format!("`systemd-analyze verify` cannot be run: {error}")),
    }
}

/// Whether it says yes, and all that it says, without the directory in which the draft stands.
async fn run(file: &Path, place: &Path, options: &[&str]) -> io::Result<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no", "--generators=no"])
        .args(options)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut said = Vec::new();
    let mut errors = child.stderr.take().ok_or_else(|| io::Error::other("it has no output"))?.take(MAX_SAID);
    let ended = tokio::time::timeout(PATIENCE, async {
        errors.read_to_end(&mut said).await?;
        // What says more waits for a reader until it is killed.
        if errors.limit() == 0 { Ok(None) } else { child.wait().await.map(Some) }
    });
    let status = ended.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let said = String::from_utf8_lossy(&said).replace(&format!("{}/", place.display()), "");
    Ok((status.is_some_and(|status| status.success()), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(draft: &Draft<'_>) -> Verdict {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join(DRAFT);
        let file = lay_out(&place, draft).unwrap();
        analyze(&file, &place).await
    }

    #[test]
    fn what_a_killed_one_left_is_not_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join(DRAFT);
        lay_out(&place, &Draft { drop_in: Some(("more.conf", b"nonsense")), ..file("app.service", "") })
            .unwrap();
        let path = lay_out(&place, &file("app.service", "[Service]\n")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[Service]\n");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    }

    fn file<'a>(unit: &'a str, text: &'a str) -> Draft<'a> {
        Draft { unit, file: Some(text.as_bytes()), drop_in: None }
    }

    #[tokio::test]
    async fn systemd_itself_says_what_can_be_used() {
        if run(Path::new("/nonexistent"), Path::new("/"), &["--version"]).await.is_err() {
            return crate::testing::skipped("files of units", "systemd-analyze is not installed");
        }
        let good = "[Service]\nExecStart=/bin/true\n";
        assert_eq!(said(&file("app.service", good)).await, Verdict::Usable(vec![]));
        assert_eq!(said(&file("app@.service", good)).await, Verdict::Usable(vec![]));
        for (text, told) in [
            ("[Service]\nExecStart=/nonexistent/app\n", "/nonexistent/app"),
            ("[Service]\nType=simple\n", "app.service"),
            ("nonsense", "app.service"),
            // systemd itself would pass over it, with a word in its log that nobody reads.
            ("[Service]\nExecStart=/bin/true\nExecStopPre=/bin/true\n", "app.service:3: Unknown key"),
        ] {
            match said(&file("app.service", text)).await {
                Verdict::Unusable(lines) => {
                    assert!(lines.iter().any(|line| line.contains(told)), "{lines:?}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let drop_in = Draft {
            drop_in: Some(("more.conf", b"[Service]\nExecStart=\nExecStart=/nonexistent/app\n")),
            ..file("app.service", good)
        };
        assert!(matches!(said(&drop_in).await, Verdict::Unusable(_)));
    }
}
