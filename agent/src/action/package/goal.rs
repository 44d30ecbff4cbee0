//! What is to be done, by what apt-get says that it would do; and what must not be.

use std::collections::{BTreeMap, BTreeSet};

use fleetward_protocol::action::package::{Conffiles, Package, PackageSpec, PackageVerb};
use fleetward_protocol::action::{Change, Contract as _};
use fleetward_protocol::object::{Class, Object};

use super::problem;
use crate::config::Allowed;
use crate::perform::{Problem, Steps};
use crate::platform::apt::Apt;
use crate::platform::apt::change::Program;
use crate::platform::apt::installed::{Installed, names};
use crate::platform::apt::policy::Policy;
use crate::platform::apt::simulated::Would;

/// The agent's own package.
const AGENT: &str = "fleetward-agent";
/// Without these no agent does what it is asked, whatever its package says that it needs.
const NEEDED: [&str; 5] = ["apt", "dpkg", "systemd", "dbus", "libc6"];

/// What apt is always set to: to write for no terminal, and to wait for nobody. What it would do once nobody else is at work is looked at
/// again before: it may have become more than was asked for.
const SET: [&str; 3] = ["APT::Color=0", "Dpkg::Use-Pty=0", "DPkg::Lock::Timeout=0"];

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// Nothing.
    Reached,
    /// To run this.
    Change {
        program: Program,
        arguments: Vec<String>,
        /// What would become of packages.
        would: Vec<Would>,
        /// What was installed for others, and would not be known as that any more.
        to_mark: Vec<String>,
    },
}

impl Goal {
    fn change(program: Program, arguments: Vec<String>, would: Vec<Would>) -> Self {
        Self::Change { program, arguments, would, to_mark: Vec::new() }
    }

    /// What would change.
    pub(super) fn preview(&self, asked: &Package) -> Vec<Change> {
        let Self::Change { would, .. } = self else { return Vec::new() };
        let change = |Would { name, before, after }: &Would| match (before, after) {
            (Some(before), Some(after)) => Change::new(format_args!("change {name}")).between(before, after),
            (None, Some(after)) => Change::new(format_args!("install {name} {after}")),
            (Some(before), None) => Change::new(format_args!("remove {name} {before}")),
            (None, None) => Change::new(format_args!("remove what is left of {name}")),
        };
        match would.is_empty() {
            true => vec![Change::new(asked.subject())],
            false => would.iter().map(change).collect(),
        }
    }

    /// What would become of packages.
    pub(super) fn would(&self) -> &[Would] {
        match self {
            Self::Reached => &[],
            Self::Change { would, .. } => would,
        }
    }

    /// What is to be marked as installed for others afterwards.
    pub(super) fn to_mark(&self) -> &[String] {
        match self {
            Self::Reached => &[],
            Self::Change { to_mark, .. } => to_mark,
        }
    }

    /// Tells what would become of packages.
    pub(super) fn tell(&self, steps: &mut Steps) {
        let Self::Change { would, .. } = self else { return };
        for Would { name, before, after } in would {
            match (before, after) {
                (Some(before), Some(after)) => steps.say(format_args!("{name}: {before} -> {after}")),
                (None, Some(after)) => steps.say(format_args!("{name}: {after} is to be installed")),
                (_, None) => steps.say(format_args!("{name}: is to be removed")),
            }
        }
    }
}

/// What apt knows, as far as the action needs it.
struct Known<'a> {
    asked: &'a Package,
    apt: &'a Apt,
    installed: &'a BTreeMap<String, Installed>,
    automatic: BTreeSet<String>,
}

/// What is to be done for this action.
///
/// # Errors
/// What speaks against it.
pub(super) async fn find(
    asked: &Package,
    apt: &Apt,
    installed: &BTreeMap<String, Installed>,
    allowed: &Allowed,
) -> Result<Goal, Problem> {
    let automatic = apt.read_automatic().await.map_err(|error| problem(&error))?;
    let known = Known { asked, apt, installed, automatic };
    let goal = match asked.verb {
        PackageVerb::Refresh => {
            let arguments =
                options(asked).chain(["update", "-o", "APT::Update::Error-Mode=any"].map(str::to_owned));
            return Ok(Goal::change(Program::AptGet, arguments.collect(), Vec::new()));
        }
        PackageVerb::Hold | PackageVerb::Unhold => return known.hold(),
        PackageVerb::Install => known.install().await?,
        PackageVerb::Upgrade => known.upgrade().await?,
        PackageVerb::Remove | PackageVerb::Purge => known.remove().await?,
    };
    if let Goal::Change { would, .. } = &goal {
        known.ensure_kept(would).await?;
        ensure_allowed(would, allowed)?;
    }
    Ok(goal)
}

/// Refuses to remove what the owner's list does not name, whatever takes it away. What is named needs what comes with it, and that is
/// allowed with it; nothing needs that another one goes.
fn ensure_allowed(would: &[Would], allowed: &Allowed) -> Result<(), Problem> {
    let bare = |would: &'_ Would| would.name.split(':').next().unwrap_or_default().to_owned();
    let gone = would.iter().filter(|would| would.after.is_none()).map(bare);
    let others: Vec<String> =
        gone.filter(|name| !allowed.allows(&Object::named(Class::Packages, name))).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    match others.is_empty() {
        true => Ok(()),
        false => Err(Problem::new(
            format_args!(
                "{} would be removed as well, and policy.rules.package.packages in agent.toml does not name {}",
                list(&others),
                if others.len() == 1 { "it" } else { "them" }
            ),
            "ask without `autoremove`; or its owner adds that to the list, on the host",
        )),
    }
}

/// What apt-get is always asked with.
fn options(asked: &Package) -> impl Iterator<Item = String> {
    // Where a file was not changed on the host, the package's own takes its place; where it was, the policy decides.
    let conffiles: &[&str] = match asked.conffiles {
        Conffiles::Keep => &["Dpkg::Options::=--force-confdef", "Dpkg::Options::=--force-confold"],
        Conffiles::Replace => &["Dpkg::Options::=--force-confnew"],
    };
    let set = SET.iter().chain(conffiles).flat_map(|set| ["-o", set]);
    ["--yes", "--quiet"].into_iter().chain(set).map(str::to_owned)
}

impl Known<'_> {
    /// The host's own package of this name, if dpkg knows it.
    fn own(&self, name: &str) -> Option<&Installed> {
        // Of several architectures the host's own is the one that apt names without it.
        let same = || self.installed.values().filter(|package| package.name == name);
        self.installed
            .get(name)
            .or_else(|| same().find(|package| package.is_there()))
            .or_else(|| same().next())
    }

    fn there(&self, name: &str) -> Option<&Installed> {
        self.own(name).filter(|package| package.is_there())
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.asked.names.iter().map(|spec| spec.name.as_str())
    }

    fn ensure_not_held<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), Problem> {
        let held: Vec<&str> = names.filter(|name| self.there(name).is_some_and(Installed::is_held)).collect();
        if held.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            format_args!("{} held on this host: somebody decided that it stays as it is", are(&held)),
            "ask for `unhold` first if it may be changed",
        ))
    }

    fn hold(&self) -> Result<Goal, Problem> {
        let wanted = self.asked.verb == PackageVerb::Hold;
        let absent: Vec<&str> = self.named().filter(|name| self.there(name).is_none()).collect();
        if !absent.is_empty() && wanted {
            return Err(not_installed(&absent));
        }
        let differ: Vec<String> = self
            .named()
            .filter(|name| self.own(name).is_some_and(|package| package.is_held() != wanted))
            .map(str::to_owned)
            .collect();
        if differ.is_empty() {
            return Ok(Goal::Reached);
        }
        let arguments = [self.asked.verb.as_str().to_owned()].into_iter().chain(differ);
        Ok(Goal::change(Program::AptMark, arguments.collect(), Vec::new()))
    }

    async fn simulate(&self, arguments: &[String]) -> Result<Vec<Would>, Problem> {
        self.apt.simulate(arguments).await.map_err(|error| problem(&error))
    }

    /// What apt knows of the packages that are named. Each is known by exactly its name: what apt-get does not know it reads as
    /// a pattern.
    async fn policies(&self) -> Result<BTreeMap<String, Policy>, Problem> {
        let names: Vec<&str> = self.named().collect();
        let policies = self.apt.read_policies(&names).await.map_err(|error| problem(&error))?;
        if let Some(name) = names.iter().find(|name| !policies.contains_key(**name)) {
            return Err(Problem::new(
                format_args!("apt knows no package {name} on this host"),
                "ask for `refresh` before, or look for the right name with `apt-cache search` on the host",
            ));
        }
        Ok(policies)
    }

    async fn install(&self) -> Result<Goal, Problem> {
        let policies = self.policies().await?;
        for PackageSpec { name, version } in &self.asked.names {
            let Some(policy) = policies.get(name.as_str()) else { continue };
            if let Some(version) = version {
                if !policy.versions.iter().any(|there| there.number == version.as_str()) {
                    let there: Vec<&str> =
                        policy.versions.iter().take(5).map(|there| there.number.as_str()).collect();
                    return Err(Problem::new(
                        format_args!("there is no version {version} of {name}; there is {}", list(&there)),
                        "ask for one of these, or for `refresh` before",
                    ));
                }
            } else if policy.candidate.is_none() {
                return Err(Problem::new(
                    format_args!(
                        "there is no version of {name} to install: others provide it, or only speak of it"
                    ),
                    "name a package that can be installed: `apt-cache showpkg` on the host lists what provides it",
                ));
            }
        }
        let mut arguments: Vec<String> =
            options(self.asked).chain(["install", "--no-remove"].map(str::to_owned)).collect();
        if self.has_versions() {
            // Whoever names a version means it.
            arguments.push("--allow-downgrades".to_owned());
        }
        arguments.extend(self.asked.names.iter().map(ToString::to_string));
        let held: Vec<&str> = self.named().filter(|name| self.would_change(name, &policies)).collect();
        self.ensure_not_held(held.into_iter())?;
        let would = self.simulate(&arguments).await?;
        // What was installed for others, and is asked for now, is to stay when they go.
        let is_marked = self.named().any(|name| self.automatic.contains(name) && self.there(name).is_some());
        match would.is_empty() && !is_marked {
            true => Ok(Goal::Reached),
            false => Ok(Goal::change(Program::AptGet, arguments, would)),
        }
    }

    fn has_versions(&self) -> bool {
        self.asked.names.iter().any(|spec| spec.version.is_some())
    }

    /// Whether the package would not stay in its version.
    fn would_change(&self, name: &str, policies: &BTreeMap<String, Policy>) -> bool {
        let spec = self.asked.names.iter().find(|spec| spec.name.as_str() == name);
        let version = spec.and_then(|spec| spec.version.as_ref()).map(|version| version.as_str());
        policies.get(name).is_some_and(|policy| {
            let wanted = version.or_else(|| policy.newer().map(|newer| newer.number.as_str()));
            wanted.is_some_and(|wanted| policy.installed.as_deref() != Some(wanted))
        })
    }

    async fn upgrade(&self) -> Result<Goal, Problem> {
        let absent: Vec<&str> = self.named().filter(|name| self.there(name).is_none()).collect();
        if !absent.is_empty() {
            return Err(not_installed(&absent));
        }
        let (verb, named): (&[&str], Vec<String>) = match (self.asked.security, self.asked.names.is_empty()) {
            (false, true) => (&["upgrade", "--with-new-pkgs"], Vec::new()),
            (false, false) => {
                let policies = self.policies().await?;
                self.ensure_not_held(self.named().filter(|name| self.would_change(name, &policies)))?;
                (&["install", "--only-upgrade"], self.named().map(str::to_owned).collect())
            }
            (true, _) => (&["install", "--only-upgrade"], self.security().await?),
        };
        if self.asked.security && named.is_empty() {
            return Ok(Goal::Reached);
        }
        let with = |more: &[&str]| -> Vec<String> {
            let more = more.iter().map(|option| (*option).to_owned());
            options(self.asked)
                .chain(verb.iter().map(|word| (*word).to_owned()))
                .chain(more)
                .chain(named.clone())
                .collect()
        };
        let mut arguments = with(&["--no-remove"]);
        let mut would = self.simulate(&arguments).await?;
        if self.asked.autoremove {
            arguments = with(&["--auto-remove"]);
            would = self.simulate(&arguments).await?;
            self.ensure_automatic(
                would.iter().filter(|would| would.after.is_none()).map(|would| would.name.as_str()),
            )?;
        }
        if would.is_empty() {
            return Ok(Goal::Reached);
        }
        let bare = |name: &String| name.split('=').next().unwrap_or_default().to_owned();
        let to_mark = named.iter().map(bare).filter(|name| self.automatic.contains(name)).collect();
        Ok(Goal::Change { program: Program::AptGet, arguments, would, to_mark })
    }

    /// The packages for which a newer version fixes security, each with that version: `curl=7.1-2`.
    async fn security(&self) -> Result<Vec<String>, Problem> {
        let wanted: Vec<&Installed> = self
            .installed
            .values()
            .filter(|package| package.is_there() && !package.is_held())
            .filter(|package| self.asked.names.is_empty() || self.named().any(|name| name == package.name))
            .collect();
        let names: Vec<&str> = wanted.iter().map(|package| package.full.as_str()).collect();
        let policies = self.apt.read_policies(&names).await.map_err(|error| problem(&error))?;
        let releases = self.apt.read_releases().await.map_err(|error| problem(&error))?;
        let fix = |package: &&Installed| {
            let to_apt = if policies.contains_key(&package.full) { &package.full } else { &package.name };
            let policy = policies.get(to_apt)?;
            Some(format!("{to_apt}={}", policy.security(&releases)?.number))
        };
        Ok(wanted.iter().filter_map(fix).collect())
    }

    async fn remove(&self) -> Result<Goal, Problem> {
        let is_purge = self.asked.verb == PackageVerb::Purge;
        let is_left = |package: &Installed| package.is_there() || is_purge && package.state == "config-files";
        let names: Vec<&str> = self.named().filter(|name| self.own(name).is_some_and(is_left)).collect();
        if names.is_empty() {
            return Ok(Goal::Reached);
        }
        self.ensure_not_held(names.iter().copied())?;
        // Before apt says that it cannot: this is why it must not.
        let gone = |name: &&str| Would { name: (*name).to_owned(), before: None, after: None };
        self.ensure_kept(&names.iter().map(gone).collect::<Vec<_>>()).await?;
        let with = |more: &[&str]| -> Vec<String> {
            let words = [self.asked.verb.as_str()]
                .into_iter()
                .chain(more.iter().copied())
                .chain(names.iter().copied());
            options(self.asked).chain(words.map(str::to_owned)).collect()
        };
        let arguments = with(&[]);
        let would = self.simulate(&arguments).await?;
        if let Some(new) = would.iter().find(|would| would.after.is_some()) {
            return Err(Problem::new(
                format_args!("{} would be installed or changed in its place", new.name),
                format_args!("ask for `install` of {} first, or of what should take its place", new.name),
            ));
        }
        let others: Vec<&str> = would
            .iter()
            .map(|would| would.name.as_str())
            .filter(|name| !names.contains(&name.split(':').next().unwrap_or_default()))
            .collect();
        // Before that: it says more.
        self.ensure_kept(&would).await?;
        if !others.is_empty() {
            return Err(Problem::new(
                format_args!("{} would be removed as well: they need what is named", list(&others)),
                "nothing is removed that was not named: name them too if they are to go",
            ));
        }
        if !self.asked.autoremove {
            return Ok(Goal::change(Program::AptGet, arguments, would));
        }
        let arguments = with(&["--auto-remove"]);
        let would = self.simulate(&arguments).await?;
        let others = would.iter().map(|would| would.name.as_str());
        self.ensure_automatic(others.filter(|name| !names.contains(name)))?;
        Ok(Goal::change(Program::AptGet, arguments, would))
    }

    fn ensure_automatic<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), Problem> {
        let others: Vec<&str> = names.filter(|name| !self.automatic.contains(*name)).collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            format_args!("{} would be removed, and were installed on purpose", list(&others)),
            "ask without `autoremove`, or name them in a `remove` if they are to go",
        ))
    }

    /// Refuses what would take away what the agent is made of, or bring it back to an older version.
    async fn ensure_kept(&self, would: &[Would]) -> Result<(), Problem> {
        let needs = self.apt.read_one(AGENT).await.map(|package| names(&package.needs)).unwrap_or_default();
        let is_needed = |name: &str| name == AGENT || NEEDED.contains(&name) || needs.contains(name);
        let bare = |would: &Would| would.name.split(':').next().unwrap_or_default().to_owned();
        let why = |name: &str| match name == AGENT {
            true => "it is this host's agent".to_owned(),
            false => format!("{AGENT} needs it, and with it this host's connection to its controller"),
        };
        for would in would.iter().filter(|would| is_needed(&bare(would))) {
            let name = bare(would);
            if would.after.is_none() && self.there(&name).is_some() {
                return Err(Problem::new(
                    format_args!("{name} would be removed: {}", why(&name)),
                    "do it on the host itself with `apt-get` if that is meant",
                ));
            }
            if self.is_downgrade(would).await {
                return Err(Problem::new(
                    format_args!("{name} would be brought back to an older version: {}", why(&name)),
                    "do it on the host itself with `apt-get` if that is meant",
                ));
            }
        }
        if self.has_versions() {
            for would in would {
                if !self.named().any(|name| name == bare(would)) && self.is_downgrade(would).await {
                    return Err(Problem::new(
                        format_args!("{} would be brought back to an older version as well", would.name),
                        format_args!("name it with the version that it is to have: {}=VERSION", would.name),
                    ));
                }
            }
        }
        Ok(())
    }

    async fn is_downgrade(&self, would: &Would) -> bool {
        match (&would.before, &would.after) {
            (Some(before), Some(after)) => self.apt.read_is_older(after, before).await,
            _ => false,
        }
    }
}

fn not_installed(names: &[&str]) -> Problem {
    Problem::new(
        format_args!("{} not installed on this host", are(names)),
        "ask for `install`, or leave it out",
    )
}

fn are(names: &[&str]) -> String {
    format!("{} {}", list(names), if names.len() == 1 { "is" } else { "are" })
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
