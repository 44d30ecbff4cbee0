//! What `agent.toml` says, and whether it may be believed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleetward_protocol::action::{KINDS, script};
use fleetward_protocol::name::LinuxUser;
use fleetward_protocol::query::QUERY_KINDS;
use fleetward_protocol::suggest::nearest;
use serde::Deserialize;

use super::rule::{self, Names, Rule};
use super::{Address, Allowed};
use crate::platform::files::{self, FileError};
use crate::platform::trust::Secrecy;

/// The longest `agent.toml`, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;
/// Where the package keeps a second copy of its `agent.toml`, to restore the first from.
const PACKAGED: &str = "/usr/share/fleetward-agent/agent.toml";

/// What `agent.toml` says. An empty file allows every kind of action, as every user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where controllers listen; tried by lot, names resolved anew each time.
    pub controllers: Vec<Address>,
    /// What may run here.
    pub policy: Policy,
    /// How much may run here.
    pub runs: RunSettings,
}

/// What the host's owner allows. A value that this agent cannot know is an error, not a rule without effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The kinds of action that may run and of query that may be answered; every kind when absent.
    pub kinds: Option<Names>,
    /// The Linux users that a run may be; every user when absent.
    pub users: Option<Names>,
    /// The environment variables that a run may be given; every one that is not reserved when absent.
    pub environment: Option<Names>,
    /// What each kind may touch; everything where it has no rule.
    pub rules: BTreeMap<String, Rule>,
}

/// How much may run at once, and what each run may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSettings {
    /// Runs at once; more wait in a queue.
    pub concurrent: usize,
    /// Free space, in MiB, below which no run starts and running ones lose the middle of their output.
    pub min_free_mib: u64,
    /// The most output kept of one run, in MiB, whatever the order says.
    pub max_output_mib: u64,
    /// The longest that one run may take, in seconds, whatever the order says; zero for no limit of the host's own.
    pub max_timeout_s: u64,
    /// How long a run that the controller has committed is kept, in seconds; as the controller asks when absent.
    pub keep_s: Option<u64>,
    /// How many runs at once may have left processes running whose output is read to nowhere; about 1 MiB of memory
    /// each. When there are more, the oldest is let go: what it left ends when it writes. Zero for none.
    pub drains: usize,
    /// For how long, in seconds, such output is read; zero for as long as somebody may write it.
    pub drain_s: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            concurrent: 8,
            min_free_mib: 64,
            max_output_mib: 16 << 10,
            max_timeout_s: 0,
            keep_s: None,
            drains: 32,
            drain_s: 0,
        }
    }
}

impl RunSettings {
    /// [`Self::min_free_mib`] in bytes. A number beyond all disks stays one: it must not turn into none.
    #[must_use]
    pub const fn min_free(&self) -> u64 {
        self.min_free_mib.saturating_mul(1 << 20)
    }

    /// [`Self::max_output_mib`] in bytes, as above.
    #[must_use]
    pub const fn max_output(&self) -> u64 {
        self.max_output_mib.saturating_mul(1 << 20)
    }
}

/// `agent.toml`, or what stands in for a part of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It exists and cannot be read, or others could have written it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It, or what it is a link to, is not there. The package brings it: somebody took it away, or it was lost.
    #[error(
        "{} is missing, and without its owner's policy nothing runs on this host; {}",
        path.display(),
        Self::restore(path)
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for last.
        source: FileError,
    },
    /// It is not what it should be.
    #[error("{} is not valid: {detail}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        detail: String,
    },
    /// What the enrolment left of the controllers' addresses is not what it should be.
    #[error(
        "use the controllers' addresses in {}; name them in {} instead, or enrol again with --force",
        path.display(),
        config.display()
    )]
    Controllers {
        /// The file.
        path: PathBuf,
        /// The configuration, which comes first.
        config: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SettingsError {
    /// What to do when the file at `path` is missing.
    #[must_use]
    pub fn restore(path: &Path) -> String {
        let path = path.display();
        format!(
            "restore it from a backup, or take the package's, which allows everything: `install -m 0644 {PACKAGED} {path}`"
        )
    }
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// [`SettingsError::Missing`] if there is none. If it cannot be read, if others than root and the agent's own
    /// user can write it or put another in its place, or if it has an unknown key, an unknown value or a wrong
    /// type.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::parse(path, &read(path)?)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SettingsError> {
        let invalid = |detail: String| SettingsError::Invalid { path: path.to_owned(), detail };
        let text = str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
        let mut settings: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if settings.runs.concurrent == 0 {
            return Err(invalid("runs.concurrent is 0, but must be at least 1".into()));
        }
        settings.policy.number(text);
        settings.policy.check().map_err(invalid)?;
        Ok(settings)
    }
}

impl Policy {
    /// What a kind may touch.
    #[must_use]
    pub fn allowed(&self, kind: &str) -> Allowed {
        Allowed::of(self.rules.get(kind))
    }

    /// Makes lines of places in the text that this was read from.
    fn number(&mut self, text: &str) {
        let Self { kinds, users, environment, rules } = self;
        let lists = [kinds, users, environment].into_iter().flatten();
        let lists = lists.chain(rules.values_mut().flat_map(BTreeMap::values_mut));
        lists.for_each(|names| names.number(text));
    }

    /// Looks for values that can have been meant otherwise only.
    fn check(&self) -> Result<(), String> {
        let known = || KINDS.iter().chain(QUERY_KINDS).copied();
        let kinds = self.kinds.iter().flat_map(|names| names.iter()).map(|kind| ("policy.kinds", kind));
        let kinds = kinds.chain(self.rules.keys().map(|kind| ("policy.rules", kind)));
        if let Some((list, kind)) = { kinds }.find(|(_, kind)| !known().any(|known| known == *kind)) {
            let hint = nearest(kind, known()).map_or_else(
                || format!("; it knows {}", known().collect::<Vec<_>>().join(", ")),
                |known| format!("; did you mean `{known}`?"),
            );
            return Err(format!(
                "{list} names `{}`, a kind that this agent does not know{hint}",
                kind.escape_debug()
            ));
        }
        for user in self.users.iter().flat_map(|names| names.iter()) {
            user.parse::<LinuxUser>()
                .map_err(|error| format!("policy.users names `{}`: {error}", user.escape_debug()))?;
        }
        for (kind, rule) in &self.rules {
            rule::check(kind, rule)?;
        }
        for variable in self.environment.iter().flat_map(|names| names.iter()) {
            script::check_variable(variable).map_err(|error| format!("policy.environment: {error}"))?;
        }
        Ok(())
    }
}

/// The file's bytes. Whoever could take it away could take the owner's "no" away: so that there is none is never taken for
/// a "yes".
fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    match files::read_trusted(path, MAX_SETTINGS, Secrecy::Public) {
        Err(error) if error.is_absent() => {
            Err(SettingsError::Missing { path: path.to_owned(), source: error })
        }
        other => Ok(other?),
    }
}

/// The settings as they stand in the file now. The file is read each time: whatever is less than its bytes (size, times)
/// may be the same after a change. It is parsed when they differ.
#[derive(Debug)]
pub struct LiveSettings {
    path: PathBuf,
    parsed: Option<(Vec<u8>, Settings)>,
}

impl LiveSettings {
    /// Nothing is read yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, parsed: None }
    }

    /// The settings in force.
    ///
    /// # Errors
    /// As [`Settings::load`]. A file that became invalid is an error, not the last good one: its owner meant
    /// to say something.
    pub fn current(&mut self) -> Result<&Settings, SettingsError> {
        let bytes = read(&self.path)?;
        let same = self.parsed.take().filter(|(parsed, _)| *parsed == bytes);
        let (_, settings) = match same {
            Some(parsed) => self.parsed.insert(parsed),
            None => {
                let settings = Settings::parse(&self.path, &bytes)?;
                self.parsed.insert((bytes, settings))
            }
        };
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::time::{Duration, SystemTime};

    #[test]
    fn an_unknown_key_is_an_error_and_a_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let mut live = LiveSettings::new(path.clone());
        assert!(matches!(live.current(), Err(SettingsError::Missing { .. })));
        fs::write(&path, "").unwrap();
        assert_eq!(live.current().unwrap(), &Settings::default());
        fs::write(&path, "controllers = ['192.0.2.1']\n[policy]\nkinds = ['script']\nusers = ['deploy']")
            .unwrap();
        let settings = live.current().unwrap();
        assert_eq!(settings.controllers, ["192.0.2.1".parse().unwrap()]);
        assert!(settings.policy.users.as_ref().unwrap().contains("deploy"));
        fs::write(&path, "[policy]\nuser = ['deploy']").unwrap();
        assert!(live.current().unwrap_err().to_string().contains("user"));
    }

    /// What stands there is taken, as it is and with every example.
    #[test]
    fn the_packaged_file_is_taken() {
        let packaged = include_str!("../../../packaging/agent/agent.toml");
        let path = Path::new("agent.toml");
        assert_eq!(Settings::parse(path, packaged.as_bytes()).unwrap(), Settings::default());
        let examples: Vec<&str> = packaged
            .lines()
            .map(|line| if line.starts_with("# ") { "" } else { line.trim_start_matches('#') })
            .collect();
        let settings = Settings::parse(path, examples.join("\n").as_bytes()).unwrap();
        assert_eq!(settings.policy.kinds.unwrap().len(), KINDS.len() + QUERY_KINDS.len());
    }

    /// Whoever takes the file, its directory or what it is a link to away does not take the owner's "no" away.
    #[test]
    fn a_policy_that_is_gone_allows_nothing_and_says_how_to_restore_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("etc");
        fs::create_dir(&place).unwrap();
        let path = place.join("agent.toml");
        let target = place.join("agent.toml.d");
        let mut live = LiveSettings::new(path.clone());
        let mut told = || match live.current() {
            Err(error @ SettingsError::Missing { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        let remedy = format!("`install -m 0644 {PACKAGED} {}`", path.display());
        assert!(told().contains(&remedy), "{}", told());
        fs::write(&target, "[policy]\nkinds = []").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(Settings::load(&path).unwrap().policy.kinds.unwrap().is_empty());
        fs::remove_file(&target).unwrap();
        assert!(told().contains(&remedy));
        fs::remove_dir_all(&place).unwrap();
        assert!(told().contains(&remedy));
        // The link in the middle is another's: there is no telling what the owner said.
        if nix::unistd::geteuid().is_root() {
            let theirs = directory.path().join("theirs");
            fs::create_dir_all(&theirs).unwrap();
            fs::create_dir(&place).unwrap();
            fs::write(&target, "").unwrap();
            std::os::unix::fs::symlink(&place, theirs.join("current")).unwrap();
            std::os::unix::fs::symlink(theirs.join("current/agent.toml.d"), &path).unwrap();
            assert_eq!(Settings::load(&path).unwrap(), Settings::default());
            std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
            assert!(Settings::load(&path).unwrap_err().to_string().contains("belongs to user 65534"));
        }
    }

    /// An owner who means "everything" or "nothing" writes a number like these; 2^44 MiB are 2^64 bytes.
    #[test]
    fn an_absurdly_large_size_is_not_taken_for_none() {
        for mib in [1 << 44, (1 << 44) + 1, i64::MAX] {
            let text = format!("[runs]\nmin_free_mib = {mib}\nmax_output_mib = {mib}");
            let runs = Settings::parse(Path::new("agent.toml"), text.as_bytes()).unwrap().runs;
            assert_eq!((runs.min_free(), runs.max_output()), (u64::MAX, u64::MAX), "{mib}");
        }
        assert_eq!(RunSettings::default().min_free(), 64 << 20);
    }

    /// The same file, the same length, the same times: only its bytes say "no".
    #[test]
    fn a_no_that_changes_nothing_but_the_bytes_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let mut live = LiveSettings::new(path.clone());
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
            let found = fs::metadata(&path).unwrap();
            (found.len(), found.ino(), found.mtime_nsec())
        };
        let before = write("[policy]\nkinds = ['script']");
        assert!(live.current().unwrap().policy.kinds.as_ref().unwrap().contains("script"));
        let after = write("[policy]\nkinds = []        ");
        assert_eq!(before, after, "the test shows nothing otherwise");
        assert!(live.current().unwrap().policy.kinds.as_ref().unwrap().is_empty());
    }

    #[test]
    fn what_others_could_have_written_is_no_policy() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("etc");
        fs::create_dir(&place).unwrap();
        let path = place.join("agent.toml");
        fs::write(&path, "").unwrap();
        let mut live = LiveSettings::new(path.clone());
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let mut told = || live.current().err().map(|error| error.to_string()).unwrap_or_default();
        for (file, near, named) in [
            (0o644, 0o755, None),
            (0o666, 0o755, Some(&path)),
            (0o664, 0o755, Some(&path)),
            (0o644, 0o777, Some(&place)),
            (0o644, 0o775, Some(&place)),
            (0o644, 0o1777, None),
            (0o600, 0o700, None),
        ] {
            set(&path, file);
            set(&place, near);
            let told = told();
            match named {
                None => assert_eq!(told, "", "{file:o} {near:o}"),
                Some(named) => {
                    assert!(told.contains(&format!("`chmod go-w {}`", named.display())), "{told}");
                }
            }
        }
        fs::remove_file(&path).unwrap();

        // What a link leads to is looked at like the file itself.
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("agent.toml"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.join("agent.toml"), &path).unwrap();
        assert_eq!(told(), "");
        set(&elsewhere, 0o777);
        assert!(told().contains(&format!("`chmod go-w {}`", elsewhere.display())));
    }

    #[test]
    fn a_value_that_cannot_be_known_is_an_error_with_a_suggestion() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        for (policy, parts) in [
            ("kinds = ['Script']", &["policy.kinds names `Script`", "did you mean `script`?"][..]),
            ("kinds = ['script', 'scrpit']", &["`scrpit`", "did you mean `script`?"]),
            ("kinds = ['levitation']", &["`levitation`", "it knows script"]),
            ("users = ['dep loy']", &["policy.users names `dep loy`"]),
            ("users = ['']", &["policy.users names ``"]),
            ("environment = ['A-B']", &["policy.environment", "`A-B`"]),
            ("environment = ['LD_PRELOAD']", &["policy.environment", "`LD_PRELOAD`", "never taken"]),
            ("environments = ['TZ']", &["environments", "expected"]),
            ("[policy.rules.unti]", &["policy.rules names `unti`", "did you mean `unit`?"]),
            ("[policy.rules.unit]\nunit = ['a']", &["unit", "units"]),
            ("[policy.rules.unit]\npaths = ['/srv']", &["touches no paths", "its lists are units"]),
            ("[policy.rules.script]\nusers = ['a']", &["policy.rules.script.users", "it has no lists"]),
            ("[policy.rules.unit]\nunits = ['']", &["policy.rules.unit.units names ``", "empty"]),
        ] {
            fs::write(&path, format!("[policy]\n{policy}")).unwrap();
            let told = Settings::load(&path).unwrap_err().to_string();
            assert!(parts.iter().all(|part| told.contains(part)), "{policy}: {told}");
        }
        fs::write(&path, "[policy]\nkinds = ['script']\nusers = ['deploy']\nenvironment = ['TZ', 'LC_ALL']")
            .unwrap();
        assert_eq!(Settings::load(&path).unwrap().policy.environment.unwrap().len(), 2);
    }
}
