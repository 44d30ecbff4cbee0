//! SIGTERM as a wish that is looked at when it suits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Whether this process was asked to stop. Its descriptor is readable when it is.
#[derive(Debug)]
pub struct Stop {
    signals: SignalFd,
    requested: bool,
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
        Ok(Self { signals, requested: false })
    }

    /// Whether it was asked to stop.
    pub fn is_requested(&mut self) -> bool {
        self.requested |= matches!(self.signals.read_signal(), Ok(Some(_)));
        self.requested
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
