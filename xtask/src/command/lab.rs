//! `cargo xtask lab`: real hosts for a person to try things on.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::lab::{Cgroups, Lab, LabOptions, Lifetime};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which lab: several can be up side by side.
    #[arg(long, default_value = "dev", env = "FLEETWARD_LAB")]
    name: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Layout {
    /// As this machine has it.
    Machine,
    /// Pure v2 (without limits on a machine whose controllers are v1).
    Unified,
}

/// Subcommands of `cargo xtask lab`.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Boot a controller's host `ctl` and agents' hosts h1…hN; hosts that are up already stay as they are.
    Up {
        #[command(flatten)]
        lab: Name,
        /// Hosts for agents.
        #[arg(long, default_value_t = 5)]
        hosts: usize,
        /// What the hosts see of cgroups.
        #[arg(long, value_enum, default_value = "machine")]
        cgroups: Layout,
        /// Packages to install: fleetward-controller and fleetward on ctl, fleetward-agent on the others.
        #[arg(long)]
        deb: Vec<PathBuf>,
    },
    /// Remove a lab with everything that belongs to it.
    Down {
        #[command(flatten)]
        lab: Name,
        /// All labs of this checkout.
        #[arg(long)]
        all: bool,
    },
    /// Run a command in a host, as root.
    Exec {
        #[command(flatten)]
        lab: Name,
        /// Which host: ctl, h1, h2 …
        host: String,
        /// The command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Run a command of this machine in the lab's network, where host names resolve.
    Operator {
        #[command(flatten)]
        lab: Name,
        /// The command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Take a host off the network.
    Cut {
        #[command(flatten)]
        lab: Name,
        /// Which host.
        host: String,
    },
    /// Remove every fault from a host's link.
    Heal {
        #[command(flatten)]
        lab: Name,
        /// Which host.
        host: String,
    },
    /// Drop a share of a host's packets, each way.
    Loss {
        #[command(flatten)]
        lab: Name,
        /// Which host.
        host: String,
        /// Per cent.
        percent: f64,
    },
    /// Limit a host's link, each way.
    Rate {
        #[command(flatten)]
        lab: Name,
        /// Which host.
        host: String,
        /// In kbit/s.
        kbit: u32,
    },
    /// Reboot a host and wait until it is back.
    Reboot {
        #[command(flatten)]
        lab: Name,
        /// Which host.
        host: String,
    },
    /// Show labs and their hosts.
    Status,
    /// Break a fleet of its own in every way while it works, and account for every run; exits with 1 if any is wrong.
    Chaos(super::chaos::ChaosCommand),
}

pub(crate) fn execute(command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up { lab, hosts, cgroups, deb } => {
            let cgroups = match cgroups {
                Layout::Machine => Cgroups::Machine,
                Layout::Unified => Cgroups::Unified,
            };
            let lab = Lab::up(&LabOptions { name: lab.name, hosts, cgroups, lifetime: Lifetime::UntilDown })?;
            for package in deb {
                let is_agent =
                    package.file_name().is_some_and(|file| file.to_string_lossy().contains("-agent_"));
                let targets = if is_agent { lab.hosts() } else { std::slice::from_ref(lab.controller()) };
                for host in targets {
                    host.install_deb(&package)?;
                }
            }
            show(&lab);
        }
        LabCommand::Down { lab, all } => {
            for name in if all { Lab::names() } else { vec![lab.name] } {
                Lab::attach(&name)?.down()?;
            }
        }
        LabCommand::Exec { lab, host, argv } => {
            let lab = Lab::attach(&lab.name)?;
            let command = lab.host(&host)?.command(&argv[0])?;
            return become_command(command, &argv[1..]);
        }
        LabCommand::Operator { lab, argv } => {
            let lab = Lab::attach(&lab.name)?;
            return become_command(lab.operator_command(&argv[0]), &argv[1..]);
        }
        LabCommand::Cut { lab, host } => Lab::attach(&lab.name)?.host(&host)?.cut()?,
        LabCommand::Heal { lab, host } => Lab::attach(&lab.name)?.host(&host)?.heal()?,
        LabCommand::Loss { lab, host, percent } => Lab::attach(&lab.name)?.host(&host)?.lose(percent)?,
        LabCommand::Rate { lab, host, kbit } => Lab::attach(&lab.name)?.host(&host)?.limit_rate(kbit)?,
        LabCommand::Reboot { lab, host } => Lab::attach(&lab.name)?.host(&host)?.reboot()?,
        LabCommand::Chaos(command) => return super::chaos::execute(&command),
        LabCommand::Status => {
            for name in Lab::names() {
                match Lab::attach(&name) {
                    Ok(lab) => show(&lab),
                    Err(_) => println!("{name}: half removed; `cargo xtask lab up --name {name}` repairs it"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(lab: &Lab) {
    println!("lab {}", lab.name());
    for host in std::iter::once(lab.controller()).chain(lab.hosts()) {
        let state = if host.is_up() { "up" } else { "down" };
        let memory = host.memory().map_or_else(String::new, |bytes| format!("{} MiB", bytes / (1024 * 1024)));
        println!("  {:<5} {:<14} {state:<5} {memory}", host.name(), host.address());
    }
}

fn become_command(mut command: Command, arguments: &[String]) -> Result<ExitCode> {
    let problem = command.args(arguments).exec();
    bail!("start {}: {problem}", crate::process::describe(&command))
}
