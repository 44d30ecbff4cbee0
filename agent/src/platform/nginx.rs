//! nginx: what it is told, whether it would take it, and whether it works with it.
//!
//! What is read comes from nginx itself (`nginx -V`, `-t`, `-T`): it alone knows which files it includes.

pub mod dump;
pub mod logs;
pub mod mark;
pub mod master;
pub mod piece;
pub mod place;
pub mod probe;
pub mod server;
pub mod shadow;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleetward_protocol::text::{Line, Text};
use nix::sys::stat::{Mode, umask};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::config;
use dump::Dump;

/// The most that `nginx -T` may say, in bytes: five thousand sites, and room.
const MAX_DUMP: u64 = 48 << 20;
/// The most that is kept of what it says is wrong.
const MAX_WRONG: u64 = 64 << 10;
/// The most lines of that which are told.
const MAX_LINES: usize = 16;
/// How long it may take: it looks up the names of all servers that requests are passed on to.
const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// nginx on this host, and what it was built with.
#[derive(Debug, Clone)]
pub struct Nginx {
    /// Its version, such as `1.22.1`.
    pub version: String,
    /// The file that its configuration begins with.
    pub config: PathBuf,
    /// What paths of logs and files are relative to.
    pub prefix: PathBuf,
    /// Where its errors are logged when its configuration does not say.
    pub error_log: PathBuf,
    /// Where its process id stands when its configuration does not say.
    pub pid: PathBuf,
    /// The group of its workers when its configuration does not say.
    pub group: String,
    /// Whether the configuration is not where it was built to be.
    is_elsewhere: bool,
}

/// nginx could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum NginxError {
    /// There is none.
    #[error("there is no nginx on this host")]
    Absent,
    /// It could not be started, or heard.
    #[error("nginx cannot be asked: {0}")]
    Start(io::Error),
    /// It does not come to an end.
    #[error("nginx did not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// It says more than anybody would read.
    #[error("the configuration of nginx has more than {MAX_DUMP} bytes")]
    Much,
    /// It says what is not understood.
    #[error("nginx says what is not understood of `nginx -V`")]
    Strange,
    /// It does not take its configuration.
    #[error("nginx does not take its configuration")]
    Broken(Vec<Line>),
}

/// What nginx says of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it would work with it.
    pub is_usable: bool,
    /// Its words.
    pub lines: Vec<Line>,
}

impl Nginx {
    /// Finds nginx, and how it was built.
    ///
    /// # Errors
    /// If this host has none, or it does not tell.
    pub async fn find() -> Result<Self, NginxError> {
        let (is_well, _, said) = hear(["-V"].map(OsStr::new), MAX_WRONG).await?;
        let version = said.lines().find_map(|line| line.split_once("nginx version: ")?.1.split_once('/'));
        let Some((_, version)) = version.filter(|_| is_well) else { return Err(NginxError::Strange) };
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        let told = |name: &str| {
            said.split_whitespace()
                .find_map(|word| word.trim_matches('\'').strip_prefix(name)?.strip_prefix('='))
        };
        let built = |name: &str, usual: &str| PathBuf::from(told(name).unwrap_or(usual));
        // That of the user's name, where it was not said (auto/unix of its sources).
        let group = told("--group").or(told("--user")).filter(|name| *name != "nobody");
        let prefix = built("--prefix", "/usr/local/nginx");
        let own = Self {
            version,
            config: prefix.join(built("--conf-path", "conf/nginx.conf")),
            error_log: prefix.join(built("--error-log-path", "logs/error.log")),
            pid: prefix.join(built("--pid-path", "logs/nginx.pid")),
            group: group.unwrap_or("nogroup").to_owned(),
            prefix,
            is_elsewhere: false,
        };
        let Some(config) = config::nginx_config().map(PathBuf::from) else { return Ok(own) };
        let prefix = config.parent().unwrap_or(Path::new("/")).to_owned();
        let (error_log, pid) = (prefix.join("error.log"), prefix.join("nginx.pid"));
        Ok(Self { config, prefix, error_log, pid, is_elsewhere: true, ..own })
    }

    /// Whether this version is at least that one.
    #[must_use]
    pub fn is_at_least(&self, least: [u32; 3]) -> bool {
        let mut parts = self.version.split('.').map(|part| {
            part.split(|c: char| !c.is_ascii_digit())
                .next()
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0)
        });
        let own: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
        own >= least
    }

    /// What nginx says of the configuration that begins with this file.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn read_verdict(&self, config: &Path) -> Result<Verdict, NginxError> {
        let (is_usable, _, said) = hear(self.arguments("-t", config), 0).await?;
        Ok(Verdict { is_usable, lines: lines(&said) })
    }

    /// All files of the configuration that nginx would work with.
    ///
    /// # Errors
    /// If it cannot be asked, or does not take it.
    pub async fn read_dump(&self) -> Result<Dump, NginxError> {
        let (is_well, said, wrong) = hear(self.arguments("-T", &self.config), MAX_DUMP).await?;
        if said.len() as u64 >= MAX_DUMP {
            return Err(NginxError::Much);
        }
        if !is_well {
            return Err(NginxError::Broken(lines(&wrong)));
        }
        Ok(Dump::read(&said, self))
    }

    /// The same; where nginx does not take its configuration, what can be read of its files, and its words.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn read_dump_or_files(&self) -> Result<(Dump, Option<Vec<Line>>), NginxError> {
        match self.read_dump().await {
            Ok(dump) => Ok((dump, None)),
            // It tells files only when it takes all of them.
            Err(NginxError::Broken(lines)) => Ok((Dump::of_files(self), Some(lines))),
            Err(error) => Err(error),
        }
    }

    /// Whether a master that was started with this first file of a configuration, or with none, works with this one.
    fn is_begun_by(&self, given: Option<&Path>) -> bool {
        given.map_or(!self.is_elsewhere, |given| self.prefix.join(given) == self.config)
    }

    fn arguments(&self, what: &str, config: &Path) -> Vec<OsString> {
        let mut arguments = vec![OsString::from(what), "-c".into(), config.into()];
        if self.is_elsewhere {
            arguments.extend([
                "-p".into(),
                self.prefix.clone().into(),
                "-e".into(),
                self.error_log.clone().into(),
            ]);
        }
        arguments
    }
}

/// Its words, without those that say that all is well and without where it says them.
fn lines(said: &str) -> Vec<Line> {
    let is_news = |line: &&str| {
        !line.trim().is_empty() && !line.ends_with("syntax is ok") && !line.ends_with("test is successful")
    };
    said.lines()
        .filter(is_news)
        .take(MAX_LINES)
        .map(|line| Text::of(line.trim_start_matches("nginx: ")))
        .collect()
}

/// Whether it ended well, what it said, and what it said is wrong.
async fn hear(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    most: u64,
) -> Result<(bool, Vec<u8>, String), NginxError> {
    let mut nginx = Command::new("nginx");
    // SAFETY: between fork and exec one system call is made, and nothing is allocated.
    unsafe {
        // Its test makes the logs that are not there yet: with the rights that they get when it starts, for people read them.
        nginx.pre_exec(|| {
            umask(Mode::from_bits_truncate(0o022));
            Ok(())
        });
    }
    let mut child = nginx
        .args(arguments)
        .env_clear()
        .envs([("PATH", PATH), ("LANG", "C.UTF-8")])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NginxError::Absent,
            _ => NginxError::Start(error),
        })?;
    let (Some(out), Some(wrong)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(NginxError::Strange);
    };
    let heard = async {
        let (said, wrong) = tokio::try_join!(take(out, most), take(wrong, MAX_WRONG))?;
        Ok::<_, io::Error>((child.wait().await?.success(), said, wrong))
    };
    let (is_well, said, wrong) = tokio::time::timeout(PATIENCE, heard)
        .await
        .map_err(|_| NginxError::Silent)?
        .map_err(NginxError::Start)?;
    Ok((is_well, said, String::from_utf8_lossy(&wrong).into_owned()))
}

/// Reads so much; the rest is read and dropped, so that nobody waits for a reader.
async fn take(mut pipe: impl AsyncRead + Unpin, most: u64) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    (&mut pipe).take(most).read_to_end(&mut said).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let nginx = |version: &str| Nginx {
            version: version.into(),
            config: "/etc/nginx/nginx.conf".into(),
            prefix: "/usr/share/nginx".into(),
            error_log: "/var/log/nginx/error.log".into(),
            pid: "/run/nginx.pid".into(),
            group: "nogroup".into(),
            is_elsewhere: false,
        };
        for (version, is_so) in [
            ("1.22.1", false),
            ("1.25.1", true),
            ("1.25.0", false),
            ("1.26.3-beta", true),
            ("2", true),
            ("x", false),
        ] {
            assert_eq!(nginx(version).is_at_least([1, 25, 1]), is_so, "{version}");
        }
    }

    #[test]
    fn what_says_that_all_is_well_is_no_news() {
        let said = "nginx: [warn] conflicting server name \"a\" on 0.0.0.0:80, ignored\n\
            nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n\
            nginx: configuration file /etc/nginx/nginx.conf test is successful\n";
        assert_eq!(lines(said), ["[warn] conflicting server name \"a\" on 0.0.0.0:80, ignored"]);
    }
}
