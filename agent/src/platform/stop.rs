//! SIGTERM as a request that is looked at when it suits, and why it was sent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// Why a process is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A person or program wants so.
    Requested,
    /// The time limit of its run has passed.
    TimeLimit,
}

/// What comes with SIGTERM when the time limit has passed (sigqueue(3)). What is no program of ours does not look at it.
const TIME_LIMIT: usize = 1;

/// Asks a process to stop. One that is gone is what is wanted.
pub fn ask(pid: Pid, why: Why) {
    let value = match why {
        Why::Requested => 0,
        Why::TimeLimit => TIME_LIMIT,
    };
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: takes integers. Without memory for the value the kernel sends the signal without it.
    unsafe { libc::sigqueue(pid.as_raw(), libc::SIGTERM, value) };
}

/// Whether this process was asked to stop. Its descriptor is readable when it is.
#[derive(Debug)]
pub struct Stop {
    signals: SignalFd,
    requested: Option<Why>,
}

impl Stop {
    /// From now on SIGTERM does not end the process. Must be called before there is a second thread.
    ///
    /// # Errors
    /// If the kernel has no descriptor to give.
    pub fn listen() -> io::Result<Self> {
        let mut terminate = SigSet::empty();
        terminate.add(Signal::SIGTERM);
        terminate.thread_block()?;
        let signals = SignalFd::with_flags(&terminate, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, requested: None })
    }

    /// One that nobody asks for: for what brings back how the host was, and is not to be cut short by the request that made it
    /// necessary, nor by another one.
    ///
    /// # Errors
    /// If the kernel has no descriptor to give.
    pub fn never() -> io::Result<Self> {
        let none = SigSet::empty();
        let signals = SignalFd::with_flags(&none, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, requested: None })
    }

    /// Whether it was asked to stop, and why. The first reason counts.
    pub fn requested(&mut self) -> Option<Why> {
        if self.requested.is_none()
            && let Ok(Some(signal)) = self.signals.read_signal()
        {
            let is_limit = signal.ssi_code == libc::SI_QUEUE && signal.ssi_ptr == TIME_LIMIT as u64;
            self.requested = Some(if is_limit { Why::TimeLimit } else { Why::Requested });
        }
        self.requested
    }
}

impl Why {
    /// In words, before those that say where it stopped.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Requested => "stopped on request",
            Self::TimeLimit => "stopped because the run's time limit passed",
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
