//! Changes packages: runs apt-get(8), apt-mark(8) or dpkg(1) to its end, and tells line by line what it says.
//!
//! It runs as a service of its own where there is systemd. A run that is stopped has all its processes killed after a while;
//! dpkg, killed in the middle of a package, leaves it broken. So it is out of that reach: asked to stop, apt is interrupted as by
//! a person at a terminal, and ends behind what dpkg is at. Where there is no systemd it is a process of the run like others.
//!
//! What it says goes to a file in memory and not through a pipe: a pipe that nobody reads any more would end dpkg.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;
use std::time::Duration;

use fleetward_protocol::text::{Line, Text, Word};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::{Apt, AptError, environment};
use crate::platform::clock;
use crate::platform::stop::Why;
use crate::platform::systemd::SystemdError;
use crate::platform::systemd::transient::{self, Service, Work};

/// The longest line that is told, in bytes; what is longer is told in pieces.
const MAX_LINE: usize = 4096;
/// Between two looks at what it has said.
const LOOK: Duration = Duration::from_millis(100);
/// Asked to stop, so long is waited for apt: a run that is stopped is killed soon.
const GRACE: Duration = Duration::from_secs(2);

/// A program that changes packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// apt-get(8).
    AptGet,
    /// apt-mark(8).
    AptMark,
    /// dpkg(1), with what apt's configuration starts it with.
    Dpkg,
}

/// What is heard while it works.
#[derive(Debug)]
pub enum Heard<'a> {
    /// It said this.
    Line(&'a str),
    /// Something about how it is done.
    Note(&'a str),
    /// Perhaps this process was asked to stop: whoever hears it says so.
    Signal,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Well,
    /// With an error; so it was told.
    Badly(Line),
    /// This process was asked to stop, and so was it; it had not ended by then.
    Left(Why, Option<Word>),
    /// This process was asked to stop, and so was it, which ended.
    Stopped(Why),
}

enum Running {
    Service(Service),
    Child(Child),
}

impl Apt {
    /// Runs a program to its end. `heard` is told what it says, and answers [`Heard::Signal`] with why to stop, if so; `stop` is
    /// readable when that is to be asked.
    ///
    /// # Errors
    /// If it cannot be started, or heard.
    pub async fn change(
        &self,
        program: Program,
        arguments: &[String],
        variables: &[(&'static str, &'static str)],
        stop: OwnedFd,
        heard: &mut dyn FnMut(Heard<'_>) -> Option<Why>,
    ) -> Result<Ended, AptError> {
        let name = match program {
            Program::AptGet => "apt-get",
            Program::AptMark => "apt-mark",
            Program::Dpkg => "dpkg",
        };
        let mut argv = vec![format!("/usr/bin/{name}")];
        if program == Program::Dpkg {
            argv.push(format!("--admindir={}", self.admin.display()));
            argv.extend(self.dpkg.iter().cloned());
        }
        argv.extend(arguments.iter().cloned());
        let mut environment = environment();
        environment.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => AptError::Absent(name),
            _ => AptError::Start { program: name, source },
        };
        let said = File::from(
            memfd_create(c"fleetward-apt", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(error.into()))?,
        );
        let output = said.try_clone().map_err(failed)?;
        let running = start(&argv, &environment, output.into(), heard).await.map_err(failed)?;
        // SAFETY: an `OwnedFd` is open and the same one for as long as it is there.
        let stop = unsafe { AsyncFd::register_with_interest(stop, Interest::READABLE) };
        let stop = stop.map_err(|error| failed(error.into()))?;
        follow(running, said, stop, heard).await.map_err(failed)
    }
}

/// Starts it: as a service if that can be, else as a process of our own.
async fn start(
    argv: &[String],
    environment: &[(&'static str, String)],
    output: OwnedFd,
    heard: &mut dyn FnMut(Heard<'_>) -> Option<Why>,
) -> io::Result<Running> {
    let unit = format!("fleetward-apt-{}.service", clock::fresh_uuid());
    let work = Work { unit: &unit, description: "Change of packages by Fleetward", argv, environment };
    match Service::start(&work, output.try_clone()?).await {
        Ok(service) => return Ok(Running::Service(service)),
        // It may have started it.
        Err(error @ (SystemdError::Silent | SystemdError::Ended | SystemdError::Strange(_))) => {
            return Err(io::Error::other(error));
        }
        Err(error) => {
            let words = format!(
                "no service of its own, for systemd is not there or refuses ({error}): a stop of this run ends apt at once"
            );
            heard(Heard::Note(&words));
        }
    }
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output))
        .spawn()?;
    Ok(Running::Child(child))
}

async fn follow(
    mut running: Running,
    said: File,
    stop: AsyncFd<OwnedFd>,
    heard: &mut dyn FnMut(Heard<'_>) -> Option<Why>,
) -> io::Result<Ended> {
    let mut lines = Lines::default();
    let mut stopped: Option<(Why, tokio::time::Instant)> = None;
    let how = loop {
        let given_up = stopped.map(|(_, at)| at);
        tokio::select! {
            ended = running.ended() => break Some(ended?),
            ready = stop.readable(), if stopped.is_none() => {
                drop(ready.map(|mut ready| ready.clear_ready()));
                if let Some(why) = heard(Heard::Signal) {
                    running.interrupt(heard).await;
                    stopped = Some((why, tokio::time::Instant::now() + GRACE));
                }
            }
            () = until(given_up) => break None,
            () = tokio::time::sleep(LOOK) => lines.take(&said, heard)?,
        }
    };
    lines.take(&said, heard)?;
    lines.flush(&mut |line: &str| {
        heard(Heard::Line(line));
    });
    Ok(match (how, stopped) {
        (None, Some((why, _))) => Ended::Left(why, running.unit()),
        (None | Some(None), None) => Ended::Well,
        (Some(None), Some(_)) => Ended::Well,
        (Some(Some(_)), Some((why, _))) => Ended::Stopped(why),
        (Some(Some(how)), None) => Ended::Badly(how),
    })
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Running {
    /// Waits for its end: `None` if that was as it should be, or may have been. Cancel-safe.
    async fn ended(&mut self) -> io::Result<Option<Line>> {
        match self {
            Self::Service(service) => match service.ended().await.map_err(io::Error::other)? {
                // What the packages are now tells the rest.
                transient::Ended::Well | transient::Ended::Somehow => Ok(None),
                transient::Ended::Badly => Ok(Some(Text::of("it ended with an error"))),
            },
            Self::Child(child) => {
                let status = child.wait().await?;
                Ok((!status.success()).then(|| Text::of(status)))
            }
        }
    }

    async fn interrupt(&self, heard: &mut dyn FnMut(Heard<'_>) -> Option<Why>) {
        // A process of this run was asked already, with all others.
        if let Self::Service(service) = self
            && let Err(error) = service.interrupt().await
        {
            heard(Heard::Note(&format!("apt could not be asked to stop, and goes on: {error}")));
        }
    }

    fn unit(&self) -> Option<Word> {
        match self {
            Self::Service(service) => Some(Text::of(service.unit())),
            Self::Child(_) => None,
        }
    }
}

/// Bytes made lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    /// So much was taken.
    taken: u64,
}

impl Lines {
    /// Takes what was said since.
    fn take(&mut self, said: &File, heard: &mut dyn FnMut(Heard<'_>) -> Option<Why>) -> io::Result<()> {
        let mut bytes = [0; 8192];
        let before = self.taken;
        loop {
            let length = said.read_at(&mut bytes, self.taken)?;
            self.push(bytes.get(..length).unwrap_or_default(), |line| {
                heard(Heard::Line(line));
            });
            self.taken += length as u64;
            if length == 0 {
                break;
            }
        }
        if let (Ok(from), Ok(length)) = (before.try_into(), (self.taken - before).try_into())
            && self.taken > before
        {
            // What was taken need not be kept in memory. Where that cannot be, it goes when the file does.
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(said, flags, from, length);
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for byte in bytes {
            // What is overwritten on a terminal is a line here.
            let is_end = matches!(byte, b'\n' | b'\r');
            if !is_end {
                self.rest.push(*byte);
            }
            if is_end || self.rest.len() == MAX_LINE {
                self.flush(&mut tell);
            }
        }
    }

    fn flush(&mut self, tell: &mut impl FnMut(&str)) {
        let line = std::mem::take(&mut self.rest);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if !line.is_empty() {
            tell(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However it comes in pieces, it is the same lines, none of them too long.
        #[test]
        fn lines_are_the_same_however_they_come(
            text in "([a-c ]{0,6}[\n\r]){0,8}[a-c]{0,3}",
            long in prop::option::of(MAX_LINE - 1..3 * MAX_LINE),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = format!("{}{text}", "x".repeat(long.unwrap_or(0)));
            let told = |pieces: &[&[u8]]| {
                let (mut lines, mut told) = (Lines::default(), Vec::new());
                for piece in pieces {
                    lines.push(piece, |line| told.push(line.to_owned()));
                }
                lines.flush(&mut |line: &str| told.push(line.to_owned()));
                told
            };
            let whole = told(&[text.as_bytes()]);
            let (front, back) = text.as_bytes().split_at(cut.index(text.len() + 1));
            prop_assert_eq!(&told(&[front, back]), &whole);
            prop_assert!(whole.iter().all(|line| !line.is_empty() && line.len() <= MAX_LINE));
            if long.is_none() {
                let plain: Vec<&str> = text.split(['\n', '\r']).map(str::trim_end).filter(|line| !line.is_empty()).collect();
                prop_assert_eq!(whole, plain);
            }
        }
    }
}
