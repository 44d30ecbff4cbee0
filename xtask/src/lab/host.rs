//! One host of a lab: its files, its life, its link.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::{self, Cgroups, Motion};
use super::network::{self, Network};
use super::pid::Process;
use crate::process::{self, Finished};

/// What a command in a host may take when its caller does not say.
const COMMAND: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const BOOT: Duration = Duration::from_secs(60);
const INSTALL: Duration = Duration::from_secs(180);

/// Joins the host's cgroups and becomes nspawn, again after every reboot: nspawn ends with 133 when its host reboots.
/// The loop itself stays outside the host's cgroups, so that a cgroup of the host never holds it back.
const LAUNCHER: &str = r#"
count=$1; shift
groups=
while [ "$count" -gt 0 ]; do groups="$groups $1"; shift; count=$((count - 1)); done
while :; do
    sh -c '
        for group in $1; do
            [ -d "$group" ] && find "$group" -mindepth 1 -depth -type d -exec rmdir {} \; 2>/dev/null
            mkdir -p "$group" && echo $$ > "$group/cgroup.procs" || exit 125
        done
        shift; exec "$@"' host "$groups" "$@"
    code=$?
    [ "$code" -eq 133 ] || exit "$code"
done
"#;

/// One host of a lab.
#[derive(Debug)]
pub struct Host {
    index: usize,
    name: String,
    address: String,
    dir: PathBuf,
    network: Network,
    cgroups: Cgroups,
}

impl Host {
    pub(super) fn of(index: usize, name: String, lab: &Path, network: Network, cgroups: Cgroups) -> Self {
        let dir = lab.join(&name);
        Self { index, address: Network::address(index), name, dir, network, cgroups }
    }

    /// Its name, which is also its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address in the lab's network.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its file tree, seen from this machine. Writing into it is writing into the running host.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Whether it is switched on.
    pub fn is_up(&self) -> bool {
        self.launcher().is_some()
    }

    /// A command inside the host, as root, with a clean environment. Its input, output and deadline are the caller's.
    ///
    /// # Errors
    /// When the host is down.
    pub fn command(&self, program: &str) -> Result<Command> {
        let leader = self.leader().with_context(|| format!("{} is down", self.name))?;
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &leader.to_string(),
            "-m",
            "-u",
            "-i",
            "-p",
            "-n",
            "-C",
            "--",
            "/usr/bin/env",
            "-i",
        ]);
        command.args([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
            "DEBIAN_FRONTEND=noninteractive",
            program,
        ]);
        Ok(command)
    }

    /// Runs a command inside the host, at most for a minute, whatever its exit status.
    ///
    /// # Errors
    /// When the host is down, the command cannot start, or the minute passes.
    pub fn exec(&self, argv: &[&str]) -> Result<Finished> {
        self.exec_within(argv, COMMAND)
    }

    /// As [`Host::exec`], with a limit of its own.
    ///
    /// # Errors
    /// As [`Host::exec`].
    pub fn exec_within(&self, argv: &[&str], limit: Duration) -> Result<Finished> {
        let (program, arguments) = argv.split_first().context("an empty command")?;
        process::run(self.command(program)?.args(arguments), limit)
            .with_context(|| format!("on {}: {}", self.name, argv.join(" ")))
    }

    /// Runs a command that has to succeed and gives its standard output.
    ///
    /// # Errors
    /// As [`Host::exec`], and when the command fails.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let finished = self.exec(argv)?;
        if !finished.status.success() {
            bail!(
                "on {}: {} failed ({}): {} {}",
                self.name,
                argv.join(" "),
                finished.status,
                finished.text(),
                finished.error_text()
            );
        }
        Ok(finished.text())
    }

    /// Copies a file of this machine into the host.
    ///
    /// # Errors
    /// When either side cannot be read or written.
    pub fn push(&self, from: &Path, to: &str) -> Result<()> {
        let target = self.root().join(to.trim_start_matches('/'));
        fs::copy(from, &target)
            .map(drop)
            .with_context(|| format!("copy {} to {}:{to}", from.display(), self.name))
    }

    /// Installs a package as a person does, with apt, from a file of this machine.
    ///
    /// # Errors
    /// When apt fails; the error carries what it said.
    pub fn install_deb(&self, package: &Path) -> Result<()> {
        let file = package.file_name().context("a package needs a file name")?.to_string_lossy().into_owned();
        let inside = format!("/root/{file}");
        self.push(package, &inside)?;
        // Nothing outside the lab is reachable, so a missing dependency fails at once instead of timing out.
        let argv =
            ["apt-get", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=0", "install", "--yes", &inside];
        let finished = self.exec_within(&argv, INSTALL)?;
        fs::remove_file(self.root().join(inside.trim_start_matches('/'))).ok();
        if !finished.status.success() {
            bail!(
                "apt on {} could not install {file}: {}\n{}",
                self.name,
                finished.text(),
                finished.error_text()
            );
        }
        Ok(())
    }

    /// Starts sshd, and lets whoever has the key log in as root.
    ///
    /// # Errors
    /// When a command in the host fails.
    pub fn accept_ssh(&self, public_key: &Path) -> Result<()> {
        self.run(&["mkdir", "-p", "-m", "700", "/root/.ssh"])?;
        self.push(public_key, "/root/.ssh/authorized_keys")?;
        self.run(&["ssh-keygen", "-A"])?;
        self.run(&["systemctl", "start", "ssh"]).map(drop)
    }

    /// Reboots in an orderly way and waits until the host is up again.
    ///
    /// # Errors
    /// When it does not come back in time.
    pub fn reboot(&self) -> Result<()> {
        let before = self.leader().with_context(|| format!("{} is down", self.name))?;
        // The command may be killed by the reboot that it asks for.
        let said = self.exec(&["systemctl", "reboot"]);
        process::until(&format!("{} to go down for its reboot", self.name), BOOT, || {
            Ok(self.leader().is_some_and(|leader| leader != before).then_some(()))
        })
        .with_context(|| format!("systemctl said {said:?}; the console:\n{}", self.console()))?;
        self.wait_running(BOOT)
    }

    /// Pulls the plug: every process of the host ends at once, and it stays off.
    ///
    /// # Errors
    /// When its processes cannot be stopped or killed.
    pub fn cut_power(&self) -> Result<()> {
        if let Some(launcher) = self.launcher() {
            // First, or it would start a host again that is about to reboot.
            kill(Pid::from_raw(launcher.pid()), Signal::SIGKILL).ok();
        }
        // Killed one after the other, some would see others die: a shell would say so, an agent would write it down.
        // What stands still is killed, and ends when it may move again.
        self.until_moves(Motion::Frozen)?;
        let killed = self.kill_all();
        self.until_moves(Motion::Thawed)?;
        killed?;
        process::until(&format!("the processes of {} to end", self.name), STOP, || {
            self.kill_all().map(|left| (left == 0).then_some(()))
        })
    }

    fn until_moves(&self, motion: Motion) -> Result<()> {
        process::until(&format!("the processes of {} to be {motion:?}", self.name), STOP, || {
            let none = cgroup::processes(&self.network, &self.name).is_empty();
            Ok((none || cgroup::set_motion(&self.network, &self.name, motion)).then_some(()))
        })
    }

    /// Kills what runs on the host; returns how many processes that were.
    fn kill_all(&self) -> Result<usize> {
        let left = cgroup::processes(&self.network, &self.name);
        for pid in &left {
            match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                // It has ended by itself.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("kill {pid} of {}", self.name)),
            }
        }
        Ok(left.len())
    }

    /// Gives a host that is down a disk of its own, of that size, mounted at that directory at every boot.
    ///
    /// # Errors
    /// When the host is up, or the disk cannot be made or mounted.
    pub fn attach_disk(&self, directory: &str, mib: u64) -> Result<()> {
        ensure!(!self.is_up(), "{} is up: a disk is attached while it is down", self.name);
        let image = self.dir.join(format!("disk{}.img", directory.replace('/', "-")));
        // Sparse: it takes the room of what is written to it.
        File::create_new(&image)?
            .set_len(mib << 20)
            .with_context(|| format!("create {}", image.display()))?;
        // No blocks that only root may use: what is full has to be full.
        process::succeed(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image), COMMAND)?;
        let target = self.root().join(directory.trim_start_matches('/'));
        fs::create_dir_all(&target)?;
        process::succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&target), STOP)?;
        fs::remove_dir(target.join("lost+found")).with_context(|| format!("empty {}", target.display()))
    }

    /// Switches the host on; does not wait for its boot.
    ///
    /// # Errors
    /// When nspawn cannot be started.
    pub fn start(&self) -> Result<()> {
        cgroup::open_controllers(&self.network);
        let groups = cgroup::of_host(&self.network, &self.name);
        let console = File::options().create(true).append(true).open(self.dir.join("console.log"))?;
        let mut command = Command::new("sh");
        command.args(["-c", LAUNCHER, "launcher", &groups.len().to_string()]).args(&groups);
        command.args(["nsenter", &format!("--net={}", self.network.path().display()), "systemd-nspawn"]);
        command.arg("--quiet").arg("-D").arg(self.root().canonicalize()?).args(["-M", &self.name]);
        command.args(["--register=no", "--keep-unit", "--network-bridge=br0", "--link-journal=no"]);
        command.args(["--resolv-conf=off", "--timezone=off", "--console=pipe", "--boot"]);
        command.arg("systemd.default_standard_output=journal");
        if self.cgroups == Cgroups::Unified {
            command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        }
        // A group of its own: the Ctrl-C that ends a command of ours is not meant for the lab.
        command.process_group(0).stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        let launcher = Process::of(child.id().cast_signed()).context("the launcher ended at once")?;
        fs::write(self.dir.join("launcher.json"), serde_json::to_vec(&launcher)?)?;
        Ok(())
    }

    /// Waits until systemd has brought the host up.
    ///
    /// # Errors
    /// When it does not in time, or a unit failed on the way.
    pub fn wait_running(&self, limit: Duration) -> Result<()> {
        let state = process::until(&format!("{} to boot", self.name), limit, || {
            if !self.is_up() {
                bail!("{} ended: {}", self.name, self.console());
            }
            if self.leader().is_none() {
                return Ok(None);
            }
            let state = self.exec(&["systemctl", "is-system-running", "--wait"])?.text();
            Ok(matches!(state.as_str(), "running" | "degraded").then_some(state))
        })?;
        if state == "degraded" {
            bail!(
                "{} is up, but units failed: {}",
                self.name,
                self.run(&["systemctl", "--failed", "--plain"])?
            );
        }
        self.open_limits()
    }

    /// Takes the host off the network.
    ///
    /// # Errors
    /// When the link cannot be changed.
    pub fn cut(&self) -> Result<()> {
        self.network.set_link(&self.name, "down")
    }

    /// Removes every fault from the host's link.
    ///
    /// # Errors
    /// When the link cannot be changed.
    pub fn heal(&self) -> Result<()> {
        self.network.set_link(&self.name, "up")?;
        self.network.lift_rate(&self.name);
        self.exec(&["tc", "qdisc", "del", "dev", "host0", "root"])?;
        self.run(&["iptables", "-F"]).map(drop)
    }

    /// Drops that share of packets, in percent, each way.
    ///
    /// # Errors
    /// When the host is down or lacks the filter.
    pub fn lose(&self, percent: f64) -> Result<()> {
        let probability = format!("{:.4}", percent.clamp(0.0, 100.0) / 100.0);
        for chain in ["INPUT", "OUTPUT"] {
            self.run(&[
                "iptables",
                "-A",
                chain,
                "-m",
                "statistic",
                "--mode",
                "random",
                "--probability",
                &probability,
                "-j",
                "DROP",
            ])?;
        }
        Ok(())
    }

    /// Limits the link to that many kbit/s each way.
    ///
    /// # Errors
    /// When the host is down or the limit is not accepted.
    pub fn limit_rate(&self, kbit: u32) -> Result<()> {
        self.network.limit_rate(&self.name, kbit)?;
        let rate = format!("{kbit}kbit");
        self.run(&[
            "tc", "qdisc", "replace", "dev", "host0", "root", "tbf", "rate", &rate, "burst", "32k",
            "latency", "200ms",
        ])
        .map(drop)
    }

    /// The memory its cgroup is charged for, in bytes, or `None` where this machine does not count it.
    pub fn memory(&self) -> Option<u64> {
        let dir = cgroup::memory_of_host(&self.network, &self.name)?;
        ["memory.usage_in_bytes", "memory.current"]
            .iter()
            .find_map(|file| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok())
    }

    /// The process id, on this machine, of the host's first process.
    pub fn leader(&self) -> Option<i32> {
        let launcher = self.launcher()?;
        let nspawn = children(launcher.pid());
        nspawn.into_iter().flat_map(children).find(|pid| is_first_process(*pid))
    }

    pub(super) fn prepare(&self, base: &Path, hosts: &[(String, String)]) -> Result<()> {
        let upper = self.dir.join("upper");
        let network_dir = upper.join("etc/systemd/network");
        for dir in [&network_dir, &self.dir.join("work"), &self.root()] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        if is_mounted(&self.root())? {
            return Ok(());
        }
        let etc = upper.join("etc");
        fs::write(etc.join("hostname"), format!("{}\n", self.name))?;
        fs::write(etc.join("machine-id"), format!("{:032x}\n", 0xf1ee_7000_0000_u64 + self.index as u64))?;
        fs::write(etc.join("hosts"), network::hosts_file(&self.name, hosts))?;
        fs::write(etc.join("resolv.conf"), "")?;
        let link = format!(
            "[Match]\nName=host0\n[Network]\nAddress={}/16\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n",
            self.address
        );
        fs::write(network_dir.join("10-host0.network"), link)?;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.canonicalize()?.display(),
            upper.canonicalize()?.display(),
            self.dir.join("work").canonicalize()?.display()
        );
        process::succeed(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(self.root()), STOP)
            .context("lay the host over the base root (an overlay cannot lie on an overlay: set FLEETWARD_LAB_DIR to a directory on a real file system)")
            .map(drop)
    }

    pub(super) fn destroy(&self) -> Result<()> {
        self.cut_power()?;
        cgroup::remove_host(&self.network, &self.name);
        if self.dir.exists() {
            if is_mounted(&self.root())? {
                let unmount = |options: &[&str]| {
                    process::succeed(Command::new("umount").args(options).arg(self.root()), STOP)
                };
                unmount(&["--recursive"]).or_else(|_| unmount(&["--lazy", "--recursive"]))?;
            }
            fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))?;
        }
        Ok(())
    }

    /// Makes the v1 controllers writable inside and tells systemd: until then it accepts `MemoryMax=` and the like, and
    /// applies nothing.
    fn open_limits(&self) -> Result<()> {
        if self.cgroups == Cgroups::Unified || cgroup::machine_is_v2() {
            return Ok(());
        }
        let mounts = self.run(&["cat", "/proc/self/mounts"])?;
        let mut changed = false;
        for controller in cgroup::WRITABLE {
            let path = format!("/sys/fs/cgroup/{controller}");
            let is_read_only = |line: &str| {
                let mut fields = line.split(' ').skip(1);
                fields.next() == Some(path.as_str())
                    && fields.nth(1).is_some_and(|options| options.starts_with("ro"))
            };
            if mounts.lines().any(is_read_only) {
                self.run(&["mount", "-o", "remount,bind,rw,nosuid,nodev,noexec", &path])?;
                changed = true;
            }
        }
        if changed {
            self.run(&["systemctl", "daemon-reexec"])?;
        }
        Ok(())
    }

    fn launcher(&self) -> Option<Process> {
        let launcher: Process =
            serde_json::from_slice(&fs::read(self.dir.join("launcher.json")).ok()?).ok()?;
        launcher.is_alive().then_some(launcher)
    }

    fn console(&self) -> String {
        let text = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whether a process is the first of a process namespace of its own. nspawn's helper processes during boot are not.
fn is_first_process(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().count() > 1 && ids.split_whitespace().last() == Some("1")
}

fn is_mounted(path: &Path) -> Result<bool> {
    let Ok(path) = path.canonicalize() else {
        return Ok(false);
    };
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let path = path.to_string_lossy();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(path.as_ref())))
}
