//! ssh to the lab's hosts, as what it is compared with is set up: a key of its own, fresh or shared connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::Fleet;
use crate::lab::Host;
use crate::process;
use anyhow::Result;

use super::STEP;

/// A way into hosts by ssh. Its shared connections end with it.
pub(super) struct Ssh<'a> {
    fleet: &'a Fleet,
    hosts: &'a [Host],
    directory: tempfile::TempDir,
    cold: PathBuf,
    warm: PathBuf,
}

impl<'a> Ssh<'a> {
    /// Lets the operator log in to these hosts as root.
    pub(super) fn new(fleet: &'a Fleet, hosts: &'a [Host]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let key = directory.path().join("key");
        let mut generate = Command::new("ssh-keygen");
        process::succeed(generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), STEP)?;
        for host in hosts {
            host.accept_ssh(&key.with_extension("pub"))?;
        }
        let cold = write_config(directory.path(), "cold", &key, "ControlMaster no")?;
        let sockets =
            format!("ControlMaster auto\nControlPersist 300\nControlPath {}/%h", directory.path().display());
        let warm = write_config(directory.path(), "warm", &key, &sockets)?;
        Ok(Self { fleet, hosts, directory, cold, warm })
    }

    /// A directory that ends with it.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration for a fresh connection each time.
    pub(super) fn cold(&self) -> &Path {
        &self.cold
    }

    /// The configuration for connections that stay (ControlMaster).
    pub(super) fn warm(&self) -> &Path {
        &self.warm
    }
}

impl Drop for Ssh<'_> {
    fn drop(&mut self) {
        // The masters would outlive us.
        for host in self.hosts {
            let mut quit = self.fleet.lab.operator_command("ssh");
            process::run(quit.arg("-F").arg(&self.warm).args(["-O", "exit", host.name()]), STEP).ok();
        }
    }
}

fn write_config(directory: &Path, name: &str, key: &Path, sharing: &str) -> Result<PathBuf> {
    let file = directory.join(name);
    let text = format!(
        "Host *\nUser root\nIdentityFile {}\nIdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n\
         LogLevel ERROR\n{sharing}\n",
        key.display()
    );
    fs::write(&file, text)?;
    Ok(file)
}
