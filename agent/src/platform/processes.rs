//! The processes of the host, as `/proc` has them (proc(5)).
//!
//! The crate `procfs` reads these files too, with all that is in them; here is what is told, and a process that ends
//! meanwhile is passed over.

use std::fs::{self, File};
use std::io::Read as _;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::health;

/// The most of a file of one process.
const MAX_FILE: u64 = 16 << 10;

/// A process as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The one that started it, or took it over; 0 is the kernel.
    pub parent: u32,
    /// What it calls itself.
    pub name: String,
    /// `R`, `S`, `D`, `Z`, `T`, … (proc_pid_stat(5)).
    pub state: char,
    /// The number of the Linux user it is.
    pub uid: u32,
    /// How many threads it has.
    pub threads: u32,
    /// Memory of it that is in RAM, shared pages too, in bytes; 0 of the kernel's own.
    pub memory: u64,
    /// For how long processors have worked for it.
    pub cpu: Duration,
    /// For how long it has been there.
    pub age: Duration,
}

/// The numbers of all processes that the agent can see. Those that come meanwhile may be missing.
pub fn read_all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// How a process is; `None` if there is none of this number any more, or the agent may not look.
#[must_use]
pub fn read_process(pid: u32) -> Option<Process> {
    let (stat, status) = (read(pid, "stat")?, read(pid, "status")?);
    let stat = parse_stat(&stat)?;
    Some(Process {
        pid,
        parent: stat.parent,
        name: stat.name.to_owned(),
        state: stat.state,
        uid: field(&status, "Uid")?,
        threads: stat.threads,
        memory: field(&status, "VmRSS").unwrap_or(0_u64).saturating_mul(1024),
        cpu: ticks(stat.cpu)?,
        age: health::read_age(pid)?,
    })
}

/// For how long processors have worked for a process.
#[must_use]
pub fn read_cpu(pid: u32) -> Option<Duration> {
    ticks(parse_stat(&read(pid, "stat")?)?.cpu)
}

/// The name of a process: what it calls itself.
#[must_use]
pub fn read_name(pid: u32) -> Option<String> {
    read(pid, "comm").map(|name| name.trim_end_matches('\n').to_owned())
}

/// The unit of systemd that a process belongs to.
#[must_use]
pub fn read_unit(pid: u32) -> Option<String> {
    parse_unit(&read(pid, "cgroup")?)
}

fn read(pid: u32, file: &str) -> Option<String> {
    let mut content = Vec::new();
    File::open(format!("/proc/{pid}/{file}")).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    name: &'a str,
    state: char,
    parent: u32,
    threads: u32,
    /// In ticks of the clock, for itself and for the kernel.
    cpu: u64,
}

/// proc_pid_stat(5). The name is whatever the process likes, with spaces and brackets: the last bracket ends it.
fn parse_stat(stat: &str) -> Option<Stat<'_>> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let (user, system): (u64, u64) = (fields.nth(9)?.parse().ok()?, fields.next()?.parse().ok()?);
    let threads = fields.nth(4)?.parse().ok()?;
    Some(Stat { name, state, parent, threads, cpu: user.checked_add(system)? })
}

/// `Name:   123 …`
fn field<N: std::str::FromStr>(status: &str, name: &str) -> Option<N> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn ticks(ticks: u64) -> Option<Duration> {
    let in_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some(Duration::from_millis(ticks.checked_mul(1000)?.checked_div(in_second)?))
}

/// cgroups(7): `ID:CONTROLLERS:PATH`. systemd's own hierarchy, or the only one there is; in it the first service or scope, for
/// what is below belongs to that.
fn parse_unit(groups: &str) -> Option<String> {
    let path = |of: &str| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (controllers == of).then_some(path)
        })
    };
    let unit = |path: &str| {
        let names = path.split('/').find(|name| name.ends_with(".service") || name.ends_with(".scope"));
        // systemd puts `_` before a name that the kernel would take for a file of its own.
        names.map(|name| name.strip_prefix('_').unwrap_or(name).to_owned())
    };
    path("name=systemd").and_then(unit).or_else(|| path("").and_then(unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_belongs_to_the_outermost_service() {
        for (groups, expected) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            ("0::/system.slice/fleetward-agent.service/run-1\n", Some("fleetward-agent.service")),
            ("12:pids:/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", Some("b.service")),
            ("1:name=systemd:/\n0::/system.slice/c.service\n", Some("c.service")),
            ("0::/user.slice/user-1000.slice/session-4.scope\n", Some("session-4.scope")),
            ("0::/system.slice/_cgroup.service\n", Some("cgroup.service")),
            ("0::/init.scope\n", Some("init.scope")),
            ("0::/\n", None),
            ("nonsense", None),
        ] {
            assert_eq!(parse_unit(groups).as_deref(), expected, "{groups}");
        }
    }

    #[test]
    fn a_name_is_whatever_the_process_likes() {
        let stat = "7 (a) R 9 (b) S 3 7 7 0 -1 4194560 1 2 3 4 50 20 0 0 20 0 11 0 900 1 2 3";
        let seen = parse_stat(stat).unwrap();
        assert_eq!(seen, Stat { name: "a) R 9 (b", state: 'S', parent: 3, threads: 11, cpu: 70 });
        assert_eq!(parse_stat("7 (a) S 3 7"), None);
    }

    #[test]
    fn we_are_found_among_all() {
        let own = std::process::id();
        assert!(read_all().any(|pid| pid == own));
        let process = read_process(own).unwrap();
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!((process.name.as_str(), Some(&process.name)), (name.trim_end(), read_name(own).as_ref()));
        assert_eq!(
            (process.parent, process.uid),
            (std::os::unix::process::parent_id(), nix::unistd::getuid().as_raw())
        );
        assert!(
            process.threads > 0 && process.memory > 1 << 20 && process.age < Duration::from_secs(3600),
            "{process:?}"
        );
        assert!(read_cpu(own).unwrap() >= process.cpu);
        assert_eq!(read_process(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_passed_over(junk in "(?s).{0,300}") {
            parse_stat(&junk);
            parse_unit(&junk);
            field::<u64>(&junk, "Uid");
        }
    }
}
