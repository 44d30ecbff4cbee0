//! `package`.

use clap::{Args, Subcommand};
use fleetward_protocol::action::package::{Conffiles, Package, PackageName, PackageSpec, PackageVerb};
use fleetward_protocol::query::packages::{NamePattern, Packages};

use crate::action::{self, How};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::query;
use crate::start::{TARGETS, Targets};

/// Packages of Debian and Ubuntu: list, refresh, install, upgrade, hold, unhold, remove, purge
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what is installed, and what there is to upgrade
    List(List),
    /// Have hosts fetch their lists of packages again
    Refresh(Refresh),
    /// Install packages, and follow it live
    Install(Install),
    /// Upgrade packages, and follow it live
    Upgrade(Upgrade),
    /// Keep packages as they are: nothing upgrades or removes them
    Hold(Named),
    /// Let packages be upgraded again
    Unhold(Named),
    /// Remove packages, and leave their configuration
    Remove(Remove),
    /// Remove packages with their configuration, and often with their data
    Purge(Remove),
}

/// List what is installed, and what there is to upgrade
#[derive(Debug, Args)]
#[command(after_help = format!("\
What there is to upgrade is as the host's lists have it; `fleetward package refresh` has them fetched again.

{TARGETS}

Examples:
  fleetward package list --on all --security --skip-not-enrolled
  fleetward package list 'linux-image-*' --on 'web-*'
  fleetward package list --on tag:db --pending --output json"))]
pub(crate) struct List {
    /// With such a name only: `*` stands for any characters, `?` for one
    #[arg(value_name = "PATTERN")]
    pattern: Option<NamePattern>,
    /// Only what has a newer version
    #[arg(long)]
    pending: bool,
    /// Only what a newer version fixes security of
    #[arg(long)]
    security: bool,
    /// Only what is held
    #[arg(long)]
    held: bool,
    #[command(flatten)]
    targets: Targets,
}

/// Have hosts fetch their lists of packages again
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward package refresh --on os:debian --concurrency 20"))]
pub(crate) struct Refresh {
    #[command(flatten)]
    how: How,
}

/// Install packages, and follow it live
#[derive(Debug, Args)]
#[command(after_help = format!("\
What is installed already is brought to its newest version, or to the one that is named. Nothing is removed for it.

{TARGETS}

Examples:
  fleetward package install nginx --on 'web-*'
  fleetward package install nginx=1.24.0-2 curl --on web-1 --yes"))]
pub(crate) struct Install {
    /// The packages, each with the version that is meant where it is not the newest
    #[arg(value_name = "NAME[=VERSION]", required = true)]
    names: Vec<PackageSpec>,
    /// Replace configuration files that were changed on the host by the packages' own; they stay when absent
    #[arg(long)]
    replace_conffiles: bool,
    #[command(flatten)]
    how: How,
}

/// Upgrade packages, and follow it live
#[derive(Debug, Args)]
#[command(after_help = format!("\
Without names it upgrades everything that is installed. Packages that are held stay, and so does what could only be upgraded if \
something else were removed.

{TARGETS}

Examples:
  fleetward package upgrade --on all --security --batch 10% --max-failures 0
  fleetward package upgrade nginx --on 'web-*' --canary 1
  fleetward package upgrade --on all --dry-run
  fleetward package upgrade --on web-1 --autoremove --yes"))]
pub(crate) struct Upgrade {
    /// Only these packages, which must be installed; all when absent
    #[arg(value_name = "NAME")]
    names: Vec<PackageName>,
    /// Only what fixes security
    #[arg(long)]
    security: bool,
    /// Remove what was installed for others, and nothing needs any more
    #[arg(long)]
    autoremove: bool,
    /// Replace configuration files that were changed on the host by the packages' own; they stay when absent
    #[arg(long)]
    replace_conffiles: bool,
    #[command(flatten)]
    how: How,
}

/// Change what may be upgraded
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward package hold postgresql-16 --on tag:db
  fleetward package unhold postgresql-16 --on db-1"))]
pub(crate) struct Named {
    /// The packages
    #[arg(value_name = "NAME", required = true)]
    names: Vec<PackageName>,
    #[command(flatten)]
    how: How,
}

/// Remove packages
#[derive(Debug, Args)]
#[command(after_help = format!("\
Nothing is removed that is not named, except with --autoremove what was installed for others. What the agent needs stays.

{TARGETS}

Examples:
  fleetward package remove apache2 --on 'web-*' --autoremove
  fleetward package purge apache2 --on web-1"))]
pub(crate) struct Remove {
    /// The packages
    #[arg(value_name = "NAME", required = true)]
    names: Vec<PackageName>,
    /// Remove what was installed for others, and nothing needs any more
    #[arg(long)]
    autoremove: bool,
    #[command(flatten)]
    how: How,
}

/// `fleetward package …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    let (asked, how) = match command {
        Command::List(List { pattern, pending, security, held, targets }) => {
            return query::ask(&Packages { pending, security, held, pattern }, targets, app).await;
        }
        Command::Refresh(Refresh { how }) => (verb(PackageVerb::Refresh, Vec::new()), how),
        Command::Install(Install { names, replace_conffiles, how }) => {
            let conffiles = conffiles(replace_conffiles);
            (Package { names, conffiles, ..verb(PackageVerb::Install, Vec::new()) }, how)
        }
        Command::Upgrade(Upgrade { names, security, autoremove, replace_conffiles, how }) => {
            let conffiles = conffiles(replace_conffiles);
            (Package { security, autoremove, conffiles, ..verb(PackageVerb::Upgrade, names) }, how)
        }
        Command::Hold(Named { names, how }) => (verb(PackageVerb::Hold, names), how),
        Command::Unhold(Named { names, how }) => (verb(PackageVerb::Unhold, names), how),
        Command::Remove(Remove { names, autoremove, how }) => {
            (Package { autoremove, ..verb(PackageVerb::Remove, names) }, how)
        }
        Command::Purge(Remove { names, autoremove, how }) => {
            (Package { autoremove, ..verb(PackageVerb::Purge, names) }, how)
        }
    };
    action::carry_out(&asked, how, app).await
}

fn verb(verb: PackageVerb, names: Vec<PackageName>) -> Package {
    let names = names.into_iter().map(|name| PackageSpec { name, version: None }).collect();
    Package { verb, names, security: false, conffiles: Conffiles::Keep, autoremove: false }
}

const fn conffiles(replace: bool) -> Conffiles {
    if replace { Conffiles::Replace } else { Conffiles::Keep }
}
