//! Lists the packages of dpkg, with what apt knows of newer versions.

use std::collections::{BTreeMap, BTreeSet};

use fleetward_protocol::query::packages::{PackageItem, Packages};
use fleetward_protocol::text::Text;

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::apt::installed::Installed;
use crate::platform::apt::policy::{Policy, Releases};
use crate::platform::apt::{Apt, AptError};

impl Look for Packages {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        for item in read(self).await.map_err(problem)? {
            teller.item(&item).await?;
        }
        Ok(())
    }
}

/// What there is to upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Updates {
    /// Packages with a newer version.
    pub(super) pending: u32,
    /// Those of them where a newer version fixes security.
    pub(super) security: u32,
}

impl Updates {
    /// Counts them by the lists that apt fetched last.
    pub(super) async fn read() -> Result<Self, AptError> {
        let pending = read(&Packages { pending: true, ..Packages::default() }).await?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let security = pending.iter().filter(|item| item.security).count();
        Ok(Self { pending: count(pending.len()), security: count(security) })
    }
}

/// The packages that are meant.
async fn read(asked: &Packages) -> Result<Vec<PackageItem>, AptError> {
    let apt = Apt::find().await?;
    let installed = apt.read_installed().await?;
    let meant: Vec<&Installed> = installed
        .values()
        .filter(|package| package.is_there() && asked.means_name(&package.name))
        .filter(|package| !asked.held || package.is_held())
        .collect();
    let names: Vec<&str> = meant.iter().map(|package| package.full.as_str()).collect();
    let known = Known {
        policies: apt.read_policies(&names).await?,
        releases: apt.read_releases().await?,
        automatic: apt.read_automatic().await?,
    };
    let items = meant.into_iter().map(|package| known.item(package));
    Ok(items.filter(|item| asked.means(item)).collect())
}

/// What apt knows.
struct Known {
    policies: BTreeMap<String, Policy>,
    releases: Releases,
    automatic: BTreeSet<String>,
}

impl Known {
    fn item(&self, package: &Installed) -> PackageItem {
        let Installed { full, name, architecture, version, state, .. } = package;
        // dpkg names the architecture where a package can be there for several, apt where it is not the host's own.
        let to_apt = if self.policies.contains_key(full) { full } else { name };
        let policy = self.policies.get(to_apt).filter(|policy| policy.installed.as_ref() == Some(version));
        let newer = policy.and_then(Policy::newer);
        let security = policy.and_then(|policy| policy.security(&self.releases));
        let release = newer.and_then(|version| version.release(&self.releases));
        let word = |text: &String| (!text.is_empty()).then(|| Text::of(text));
        PackageItem {
            name: Text::of(name),
            architecture: Text::of(architecture),
            state: Text::of(state),
            version: Text::of(version),
            candidate: newer.map(|version| Text::of(&version.number)),
            origin: release.and_then(|release| word(&release.label)),
            suite: release.and_then(|release| word(&release.suite)),
            security: security.is_some(),
            held: package.is_held(),
            automatic: self.automatic.contains(to_apt),
        }
    }
}

fn problem(error: AptError) -> Stop {
    let advice = match &error {
        AptError::Absent(_) => "this kind is for hosts of Debian and Ubuntu alone",
        AptError::Silent(_) => "ask again when the host has less to do",
        AptError::Start { .. } | AptError::Failed { .. } | AptError::Much(_) | AptError::Strange(_) => {
            "run `apt-cache policy` and `dpkg --audit` on the host: they may say more"
        }
    };
    Stop::failed(format_args!("{error}; {advice}"))
}
