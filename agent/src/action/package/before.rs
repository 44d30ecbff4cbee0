//! How packages were before a run, for its report: a run that a power cut ended goes on where some of them have changed already.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::platform::apt::installed::Installed;
use crate::platform::apt::simulated::Would;

/// So many packages are remembered at the most. A report names fewer.
const MOST: usize = 1000;

/// What was to be changed, and how that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    names: BTreeSet<String>,
    /// As dpkg had them: full name, name, architecture, version, what should become of it, what it is.
    there: Vec<(String, String, String, String, String, String)>,
}

impl Before {
    pub(super) fn of(would: &[Would], installed: &BTreeMap<String, Installed>) -> Self {
        let bare = |would: &Would| would.name.split(':').next().unwrap_or_default().to_owned();
        let names: BTreeSet<String> = would.iter().map(bare).take(MOST).collect();
        let there = installed.values().filter(|package| names.contains(&package.name));
        let there = there.cloned().map(|package| {
            let Installed { full, name, architecture, version, want, state, .. } = package;
            (full, name, architecture, version, want, state)
        });
        Self { there: there.take(MOST).collect(), names }
    }

    /// Puts it in the place of what is known of these packages by now.
    pub(super) fn put_into(self, installed: &mut BTreeMap<String, Installed>) {
        let Self { names, there } = self;
        installed.retain(|_, package| !names.contains(&package.name));
        for (full, name, architecture, version, want, state) in there {
            let needs = String::new();
            let package = Installed { full, name, architecture, version, want, state, needs };
            installed.insert(package.full.clone(), package);
        }
    }
}
