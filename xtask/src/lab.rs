//! A lab: real Debian hosts under systemd, side by side on one Linux machine.
//!
//! Each host is a debootstrapped Debian root under an overlay, booted by systemd-nspawn with an address of its own in a
//! network namespace that only this lab uses. Host `ctl` is meant for the controller, `h1`…`hN` for agents, and the
//! operator sits at the bridge. Promises: [`Lab::up`] is idempotent; [`Lab::down`] leaves no process, mount, cgroup,
//! namespace or file of the lab behind, also of a lab whose owner was killed; every wait has a deadline; nothing but
//! the namespace's own addresses is ever contacted once the base root stands. Deliberately absent: containers shared
//! between labs, machined, and any state outside the lab's directory but the namespace and the cgroups.

mod base;
mod cgroup;
mod host;
mod network;
mod pid;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use cgroup::Cgroups;
pub use host::Host;
use network::Network;

use crate::process;

/// The name of the host that is meant for the controller.
pub const CONTROLLER: &str = "ctl";
/// Hosts of one lab at most: what fits the addresses and a development machine's memory.
pub const MOST_HOSTS: usize = 200;

const BOOT: Duration = Duration::from_secs(120);

/// What a lab should be.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Its name: part of its namespace's, cgroups' and directory's names.
    pub name: String,
    /// How many hosts beside `ctl`.
    pub hosts: usize,
    /// What the hosts see of cgroups.
    pub cgroups: Cgroups,
    /// Who takes it down.
    pub lifetime: Lifetime,
}

/// Who takes a lab down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It stays until somebody calls [`Lab::down`].
    UntilDown,
    /// It goes down with its value; when its process was killed, with the next lab that comes up.
    WithValue,
}

/// What a lab's directory remembers of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    hosts: usize,
    cgroups: Cgroups,
    /// The process that takes the lab down with itself: id and start time, because ids are used again.
    owner: Option<pid::Process>,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    network: Network,
    hosts: Vec<Host>,
    lifetime: Lifetime,
}

impl Lab {
    /// Brings a lab up: the base root (built once, in about a minute), the network, and every host that is not up yet.
    ///
    /// # Errors
    /// When this machine lacks something (the error names the packages), or a host does not come up in time: what was
    /// started then stays for a look if the lab's lifetime is [`Lifetime::UntilDown`], and is removed otherwise.
    pub fn up(options: &LabOptions) -> Result<Self> {
        check_name(&options.name)?;
        ensure!(options.hosts <= MOST_HOSTS, "a lab has at most {MOST_HOSTS} hosts");
        check_machine()?;
        let base = base::ensure_base(&directory())?;
        let _turn = take_turn()?;
        remove_abandoned()?;
        raise_inotify_limit()?;

        let dir = lab_dir(&options.name);
        let owner = match options.lifetime {
            Lifetime::UntilDown => None,
            Lifetime::WithValue => Some(pid::Process::own()?),
        };
        let existing = read_record(&dir);
        let hosts = existing.as_ref().map_or(options.hosts, |existing| existing.hosts.max(options.hosts));
        let cgroups = existing.as_ref().map_or(options.cgroups, |existing| existing.cgroups);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let record = Record { hosts, cgroups, owner };
        fs::write(dir.join("lab.json"), serde_json::to_vec_pretty(&record)?)?;

        let lab = Self::of(&options.name, &record, options.lifetime);
        let addresses: Vec<(String, String)> =
            lab.hosts.iter().map(|host| (host.name().to_owned(), host.address().to_owned())).collect();
        lab.network.ensure_up(&addresses)?;
        let mut started = Vec::new();
        for host in &lab.hosts {
            if !host.is_up() {
                host.prepare(&base, &addresses)?;
                host.start()?;
                started.push(host);
            }
        }
        for host in started {
            host.wait_running(BOOT)?;
        }
        Ok(lab)
    }

    /// The lab of that name that is already up.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(name: &str) -> Result<Self> {
        check_name(name)?;
        let record = read_record(&lab_dir(name)).with_context(|| {
            format!("there is no lab {name}: start one with `cargo xtask lab up --name {name}`")
        })?;
        Ok(Self::of(name, &record, Lifetime::UntilDown))
    }

    /// Stops every host and removes everything that the lab put on this machine.
    ///
    /// # Errors
    /// When something cannot be removed; the rest is removed all the same.
    pub fn down(mut self) -> Result<()> {
        self.lifetime = Lifetime::UntilDown;
        self.remove()
    }

    /// The names of all labs of this checkout, up or half removed.
    pub fn names() -> Vec<String> {
        let entries = fs::read_dir(directory().join("labs")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host of that name: `ctl`, `h1`, `h2` …
    ///
    /// # Errors
    /// When the lab has no such host.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.iter().find(|host| host.name() == name).with_context(|| {
            format!("lab {} has no host {name}; it has ctl and h1…h{}", self.name, self.hosts.len() - 1)
        })
    }

    /// The host that is meant for the controller.
    pub fn controller(&self) -> &Host {
        &self.hosts[0]
    }

    /// The hosts that are meant for agents, `h1` first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts[1..]
    }

    /// A command at the operator's place: in the lab's network, where host names resolve, but with this machine's files
    /// and processes.
    pub fn operator_command(&self, program: &str) -> Command {
        self.network.operator_command(program)
    }

    fn of(name: &str, record: &Record, lifetime: Lifetime) -> Self {
        let dir = lab_dir(name);
        let network = Network::of(name);
        let names =
            std::iter::once(CONTROLLER.to_owned()).chain((1..=record.hosts).map(|index| format!("h{index}")));
        let hosts = names
            .enumerate()
            .map(|(index, host)| Host::of(index, host, &dir, network.clone(), record.cgroups))
            .collect();
        Self { name: name.to_owned(), dir, network, hosts, lifetime }
    }

    fn remove(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        for host in &self.hosts {
            if let Err(problem) = host.destroy() {
                problems.push(format!("{}: {problem:#}", host.name()));
            }
        }
        if let Err(problem) = self.network.down() {
            problems.push(format!("{problem:#}"));
        }
        cgroup::remove_lab(&self.network);
        if problems.is_empty() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))?;
            return Ok(());
        }
        bail!("lab {} is not wholly removed: {}", self.name, problems.join("; "))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::WithValue
            && let Err(problem) = self.remove()
        {
            // A destructor cannot report otherwise, and a leftover lab must not stay unnoticed.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{problem:#}\n").as_bytes());
        }
    }
}

/// What this machine lacks for a lab, in words; `None` when a lab can come up.
pub fn missing() -> Option<String> {
    check_machine().err().map(|problem| format!("{problem:#}"))
}

/// Where base roots and labs live: `FLEETWARD_LAB_DIR`, else `target/lab`.
fn directory() -> PathBuf {
    std::env::var_os("FLEETWARD_LAB_DIR")
        .map_or_else(|| crate::workspace::target().join("lab"), PathBuf::from)
}

fn lab_dir(name: &str) -> PathBuf {
    directory().join("labs").join(name)
}

fn read_record(dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(dir.join("lab.json")).ok()?).ok()
}

/// One lab at a time comes up in one directory: two would remove the same abandoned lab.
fn take_turn() -> Result<File> {
    let labs = directory().join("labs");
    fs::create_dir_all(&labs).with_context(|| format!("create {}", labs.display()))?;
    let lock = File::create(directory().join("turn.lock"))?;
    lock.lock().context("wait for another lab that is coming up")?;
    Ok(lock)
}

/// Removes labs whose owner was killed before it could.
fn remove_abandoned() -> Result<()> {
    for name in Lab::names() {
        let dir = lab_dir(&name);
        let Some(record) = read_record(&dir) else {
            continue;
        };
        if record.owner.as_ref().is_some_and(|owner| !owner.is_alive()) {
            Lab::of(&name, &record, Lifetime::UntilDown).remove()?;
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        (1..=24).contains(&name.len()) && name.bytes().all(fits),
        "a lab's name has 1 to 24 lower-case letters, digits and hyphens, not {name:?}"
    );
    Ok(())
}

/// What a lab needs of the machine it runs on: the program and Debian's package of it.
const TOOLS: [(&str, &str); 8] = [
    ("systemd-nspawn", "systemd-container"),
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("pgrep", "procps"),
];

fn check_machine() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "a lab needs Linux");
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a lab needs root: it mounts, makes network namespaces and boots hosts"
    );
    let mut packages: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| !process::is_installed(tool)).map(|(_, package)| *package).collect();
    packages.dedup();
    ensure!(
        packages.is_empty(),
        "a lab needs programs that are not installed: apt-get install {}",
        packages.join(" ")
    );
    Ok(())
}

/// The stock 128 inotify instances per user leave half of thirty hosts waiting in their boot.
fn raise_inotify_limit() -> Result<()> {
    const NEEDED: u64 = 8192;
    let knob = "/proc/sys/fs/inotify/max_user_instances";
    let current: u64 = fs::read_to_string(knob)?.trim().parse()?;
    if current < NEEDED {
        fs::write(knob, NEEDED.to_string()).with_context(|| format!("raise {knob} to {NEEDED}"))?;
    }
    Ok(())
}
