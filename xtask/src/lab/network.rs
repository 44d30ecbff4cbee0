//! The lab's network: a namespace of its own, a bridge in it, and faults on the links of hosts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process;

/// The operator's address: the bridge's own.
pub(super) const OPERATOR: &str = "10.77.0.1";
const LIMIT: Duration = Duration::from_secs(20);

/// The network of one lab. Also the lab's unique name on this machine.
#[derive(Debug, Clone)]
pub(super) struct Network {
    namespace: String,
}

impl Network {
    pub(super) fn of(lab: &str) -> Self {
        Self { namespace: format!("fleetward-{lab}") }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The address of the host at that place in the lab.
    pub(super) fn address(index: usize) -> String {
        format!("10.77.{}.{}", 1 + index / 200, 1 + index % 200)
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    pub(super) fn ensure_up(&self, hosts: &[(String, String)]) -> Result<()> {
        // `ip netns exec` lays these files over /etc, so names resolve at the operator's place.
        let overlay = self.etc();
        fs::create_dir_all(&overlay)?;
        fs::write(overlay.join("hosts"), hosts_file("localhost", hosts))?;
        fs::write(overlay.join("resolv.conf"), "")?;
        if !self.path().exists() {
            process::succeed(Command::new("ip").args(["netns", "add", &self.namespace]), LIMIT)?;
        }
        self.ip(&["link", "set", "lo", "up"])?;
        if self.ip(&["link", "show", "br0"]).is_err() {
            self.ip(&["link", "add", "br0", "type", "bridge"])?;
            self.ip(&["addr", "add", &format!("{OPERATOR}/16"), "dev", "br0"])?;
        }
        self.ip(&["link", "set", "br0", "up"])
    }

    pub(super) fn down(&self) -> Result<()> {
        if self.path().exists() {
            process::succeed(Command::new("ip").args(["netns", "del", &self.namespace]), LIMIT)?;
        }
        if self.etc().exists() {
            fs::remove_dir_all(self.etc())?;
        }
        Ok(())
    }

    pub(super) fn operator_command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Sets the bridge's end of a host's link.
    pub(super) fn set_link(&self, host: &str, state: &str) -> Result<()> {
        self.ip(&["link", "set", &format!("vb-{host}"), state])
    }

    /// Limits what flows to the host; the other direction is limited inside the host.
    pub(super) fn limit_rate(&self, host: &str, kbit: u32) -> Result<()> {
        let link = format!("vb-{host}");
        let mut arguments = vec!["-n", &self.namespace, "qdisc", "replace", "dev", &link];
        let rate = format!("{kbit}kbit");
        arguments.extend(["root", "tbf", "rate", &rate, "burst", "32k", "latency", "200ms"]);
        process::succeed(Command::new("tc").args(arguments), LIMIT).map(drop)
    }

    pub(super) fn lift_rate(&self, host: &str) {
        let link = format!("vb-{host}");
        // There is nothing to delete when no limit was set.
        process::run(
            Command::new("tc").args(["-n", &self.namespace, "qdisc", "del", "dev", &link, "root"]),
            LIMIT,
        )
        .ok();
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.namespace)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        process::succeed(Command::new("ip").args(["-n", &self.namespace]).args(arguments), LIMIT)
            .map(drop)
            .context("change the lab's network")
    }
}

/// The hosts file of a host, or of the operator.
pub(super) fn hosts_file(own: &str, hosts: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1 localhost {own}\n{OPERATOR} operator\n");
    for (name, address) in hosts {
        let alias = if name == super::CONTROLLER { " ctl.example.com" } else { "" };
        text.push_str(&format!("{address} {name}{alias}\n"));
    }
    text
}
