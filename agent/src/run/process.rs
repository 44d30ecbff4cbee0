//! Starts a run's process: directly in its control group, in a session of its own, as the right user.
//!
//! In two halves: a child goes all the way up to execve(2) and stops there, until it is told to go on. So what can be
//! made ready is ready while the journal is written, and the script itself begins with the word.
//!
//! Called by the supervisor only, which has one thread: between fork and exec the child may call what is
//! async-signal-safe, and nothing else.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use super::given::Environment;
use super::spec::{Spec, User};
use super::told::TOLD;
use crate::platform::cgroup::Group;
use crate::platform::files;

/// What the child inherits.
#[derive(Debug)]
pub struct Streams {
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
    /// Where it tells what it does, as [`TOLD`], if it is one of ours.
    pub told: Option<OwnedFd>,
}

/// The process was not started. Nothing of it ran.
#[derive(Debug, thiserror::Error)]
#[error("{}", step.words())]
pub struct LaunchError {
    step: Step,
    source: io::Error,
}

/// What it failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Before there was a child.
    Before(&'static str),
    /// One of [`STEPS`].
    Child(usize),
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Self::Before(words) => words,
            Self::Child(step) => STEPS.get(step).copied().unwrap_or("start the process"),
        }
    }
}

/// The steps of a child on its way to exec; the number travels back through a pipe.
const STEPS: [&str; 9] = [
    "enter the control group",
    "start a session",
    "connect the standard streams",
    "set the groups",
    "become the group",
    "become the user",
    "enter the working directory",
    "read the script",
    "execute",
];
const ENTER: usize = 6;
const READ: usize = 7;
const EXECUTE: usize = 8;

impl LaunchError {
    /// What failed of this run and why, in one line: with the path that was in the way, for whom, and what to do.
    #[must_use]
    pub fn in_full(&self, spec: &Spec) -> String {
        let words = self.step.words();
        let path = match self.step {
            Step::Child(ENTER) => Some(spec.directory.as_str()),
            Step::Child(READ) => spec.script.as_deref(),
            Step::Child(EXECUTE) => Some(spec.program.as_str()),
            _ => None,
        };
        let Some(path) = path else { return format!("{words}: {}", self.source) };
        let Some(user) = &spec.user else { return format!("{words} {path}: {}", self.source) };
        let denied = self.source.kind() == io::ErrorKind::PermissionDenied;
        let barrier = denied.then(|| files::read_barrier(Path::new(path), user.uid, &user.groups)).flatten();
        let remedy = barrier.map(|barrier| {
            let barrier = barrier.display();
            format!("; {} may not pass through {barrier}: run `chmod o+x {barrier}` if it may", user.name)
        });
        format!("{words} {path} as user {}: {}{}", user.name, self.source, remedy.unwrap_or_default())
    }
}

/// clone3(2); the constant in libc does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Membership {
    /// The group has limits.
    Needed,
    /// The group only helps to find the tree.
    Preferred,
}

/// Everything the child needs, made before the fork because afterwards nothing may be allocated.
struct Prepared {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
    /// Each group's list of members, and whether the run must be in it.
    groups: Vec<(CString, Membership)>,
    user: Option<User>,
    /// What the child must be able to read as that user.
    script: Option<CString>,
    streams: [RawFd; 3],
    told: Option<RawFd>,
    report: RawFd,
    /// Where the child waits for the word, and the end it must not keep open itself.
    gate: [RawFd; 2],
}

/// A child that stands before its execve(2). Dropped without [`Self::go`], it ends without having executed anything.
#[derive(Debug)]
pub struct Waiting {
    /// `None` when it was told to go.
    pid: Option<i32>,
    gate: Option<io::PipeWriter>,
    report: io::PipeReader,
}

/// Makes the process ready. The caller must not have more than one thread, and may close `streams` afterwards.
///
/// # Errors
/// If it could not be made.
pub fn stand_by(spec: &Spec, environment: &Environment, streams: &Streams) -> Result<Waiting, LaunchError> {
    let failed = |words| move |source| LaunchError { step: Step::Before(words), source };
    let (report, write) = io::pipe().map_err(failed("open a pipe"))?;
    let (word, gate) = io::pipe().map_err(failed("open a pipe"))?;
    let ends = [word.as_raw_fd(), gate.as_raw_fd()];
    let prepared = prepare(spec, environment, streams, write.as_raw_fd(), ends)
        .map_err(failed("prepare the arguments"))?;
    let argv = pointers(&prepared.arguments);
    let envp = pointers(&prepared.environment);
    let born_in = spec.groups.first().and_then(|group| std::fs::File::open(&group.directory).ok());
    let (pid, first) = match born_in.as_ref().map(|group| clone_into(group.as_raw_fd())) {
        Some(Ok(pid)) => (pid, 1),
        // An older kernel or hierarchy: the child moves into every group by itself.
        // SAFETY: the caller has one thread.
        Some(Err(_)) | None => (unsafe { libc::fork() }, 0),
    };
    if pid < 0 {
        return Err(LaunchError { step: Step::Before("fork"), source: io::Error::last_os_error() });
    }
    if pid == 0 {
        // SAFETY: this is the only thread of a fresh child; `run_child` allocates nothing and never returns.
        unsafe { run_child(&prepared, first, &argv, &envp) }
    }
    Ok(Waiting { pid: Some(pid), gate: Some(gate), report })
}

impl Waiting {
    /// Executes the program; returns the process's id.
    ///
    /// # Errors
    /// If it could not be started, up to and including execve(2).
    pub fn go(mut self) -> Result<i32, LaunchError> {
        // A child that has failed before does not read it any more; what failed is in its report.
        drop(self.gate.take().map(|mut gate| io::Write::write(&mut gate, b"g")));
        let mut report = [0; 5];
        match io::Read::read_exact(&mut self.report, &mut report) {
            // The pipe closed itself at exec: the process runs.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(self.pid.take().unwrap_or(-1)),
            Err(source) => Err(LaunchError { step: Step::Before("start the process"), source }),
            Ok(()) => {
                let [step, errno @ ..] = report;
                let source = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
                Err(LaunchError { step: Step::Child(usize::from(step)), source })
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Closed without a word: the child ends.
        drop(self.gate.take());
        if let Some(pid) = self.pid.take() {
            // SAFETY: waits for our own child, which is about to exit; a null status pointer is allowed.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        }
    }
}

fn prepare(
    spec: &Spec,
    environment: &Environment,
    streams: &Streams,
    report: RawFd,
    gate: [RawFd; 2],
) -> io::Result<Prepared> {
    // The supervisor keeps its agent's socket there, or whoever started it something else.
    if streams.told.is_some() && (gate.contains(&TOLD) || report == TOLD) {
        return Err(io::Error::other("descriptor 3 is not free"));
    }
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    let all = |texts: &[String]| texts.iter().map(|each| text(each)).collect::<io::Result<Vec<_>>>();
    let environment: Vec<_> = environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok(Prepared {
        program: text(&spec.program)?,
        arguments: all(&spec.arguments)?,
        environment: all(&environment)?,
        directory: text(&spec.directory)?,
        groups: spec.groups.iter().map(membership).collect::<io::Result<_>>()?,
        user: spec.user.clone(),
        script: spec.script.as_deref().map(text).transpose()?,
        streams: [streams.stdin.as_raw_fd(), streams.stdout.as_raw_fd(), streams.stderr.as_raw_fd()],
        told: streams.told.as_ref().map(OwnedFd::as_raw_fd),
        report,
        gate,
    })
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

fn membership(group: &Group) -> io::Result<(CString, Membership)> {
    let path = CString::new(format!("{}/cgroup.procs", group.directory)).map_err(io::Error::other)?;
    Ok((path, if group.limits.is_empty() { Membership::Preferred } else { Membership::Needed }))
}

/// Forks into a control group of the unified hierarchy. Being born in it costs nothing; moving there later takes
/// a lock that the kernel may hold for milliseconds.
fn clone_into(group: RawFd) -> io::Result<i32> {
    // SAFETY: all fields of clone_args may be zero; the structure outlives the call.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = u64::try_from(group).unwrap_or(0);
    // SAFETY: without CLONE_VM this is a fork: the child gets a copy of this thread's stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match i32::try_from(pid) {
        Ok(pid @ 0..) => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The child's way to exec. Reports the first step that fails and exits.
///
/// # Safety
/// Only in the only thread of a freshly forked child; the pointers are null-terminated arrays of C strings.
unsafe fn run_child(
    prepared: &Prepared,
    first: usize,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> ! {
    // SAFETY: every call is async-signal-safe, and every pointer comes from values that the parent prepared.
    unsafe {
        let step = child_steps(prepared, first, argv, envp);
        let mut report = [0; 5];
        report[0] = step;
        report[1..].copy_from_slice(&(*libc::__errno_location()).to_le_bytes());
        libc::write(prepared.report, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

/// Returns the number of the step that failed.
///
/// # Safety
/// As [`run_child`].
unsafe fn child_steps(
    prepared: &Prepared,
    first: usize,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> u8 {
    // SAFETY: as promised by the caller; no call here allocates.
    unsafe {
        for (members, membership) in prepared.groups.iter().skip(first) {
            let fd = libc::open(members.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if libc::write(fd, c"0".as_ptr().cast(), 1) != 1 && *membership == Membership::Needed {
                return 0;
            }
        }
        if libc::setsid() < 0 {
            return 1;
        }
        for (target, &fd) in (0..).zip(&prepared.streams) {
            if libc::dup2(fd, target) < 0 {
                return 2;
            }
        }
        // What the supervisor, the agent or whoever started it blocks or ignores, the script must not inherit.
        reset_signals();
        if prepared.told.is_some() {
            // One of ours takes a stop as a request, also one that comes before it listens.
            block(libc::SIGTERM);
        }
        libc::umask(0o022);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
        }
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // After that, and without its flag: this one is the process's own. (To itself dup2 would leave the flag.)
        if let Some(told) = prepared.told {
            let kept =
                if told == TOLD { libc::fcntl(TOLD, libc::F_SETFD, 0) } else { libc::dup2(told, TOLD) };
            if kept < 0 {
                return 2;
            }
        }
        if let Some(user) = &prepared.user {
            if libc::setgroups(user.groups.len(), user.groups.as_ptr()) < 0 {
                return 3;
            }
            if libc::setgid(user.gid) < 0 {
                return 4;
            }
            if libc::setuid(user.uid) < 0 {
                return 5;
            }
        }
        if libc::chdir(prepared.directory.as_ptr()) < 0 {
            return 6;
        }
        // Bash would say so too, but as the script's exit code.
        if let Some(script) = &prepared.script {
            let fd = libc::open(script.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if fd < 0 {
                return 7;
            }
            libc::close(fd);
        }
        // With its own copy of the other end open it would never see that the supervisor is gone.
        libc::close(prepared.gate[1]);
        let mut word = 0_u8;
        loop {
            match libc::read(prepared.gate[0], (&raw mut word).cast(), 1) {
                1 => break,
                -1 if *libc::__errno_location() == libc::EINTR => {}
                _ => libc::_exit(127),
            }
        }
        libc::execve(prepared.program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        8
    }
}

/// Handles every signal as the kernel does by itself, and blocks none. What is ignored or blocked stays so across
/// execve(2): a daemon that ignores SIGHUP, started by hand, would hand that down to every script. Async-signal-safe.
pub fn reset_signals() {
    /// Larger than the kernel's own `struct sigaction`, whose zeros mean the default: libc's does not take the signals
    /// that it keeps for itself.
    const DEFAULT: [u64; 8] = [0; 8];
    /// The kernel's `_NSIG`.
    const SIGNALS: libc::c_int = 64;
    for signal in 1..=SIGNALS {
        // SAFETY: the kernel reads less than what is there. It refuses SIGKILL and SIGSTOP, which need no reset.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
        }
    }
    set_blocked(0);
}

/// Blocks this signal, and no other. Async-signal-safe.
fn block(signal: libc::c_int) {
    set_blocked(1 << (signal - 1));
}

fn set_blocked(signals: u64) {
    // SAFETY: a set of as many bits as there are signals, which the kernel only reads.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const signals,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
    }
}

/// `/dev/null` for reading.
///
/// # Errors
/// If it cannot be opened.
pub fn null_input() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(Path::new("/dev/null"))?.into())
}

/// The descriptor that the agent gave as standard input, out of the child's way.
///
/// # Errors
/// If there is none.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    // SAFETY: duplicates an integer; the new descriptor is ours alone.
    let fd = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl just made it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let null = null_input()?;
    // SAFETY: both are open; 0 becomes /dev/null.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}
