//! Where sites stand on a host.

use std::path::{Path, PathBuf};

use super::dump::Dump;

/// How a host has its sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// As Debian: files in one directory, and links to those that are enabled in another, which nginx includes.
    Links {
        /// Where the files are.
        available: PathBuf,
        /// Where the links are.
        enabled: PathBuf,
        /// What names have to end with to be included.
        ending: &'static str,
    },
    /// Files in one directory, of which nginx includes those that end with `.conf`.
    Files {
        /// The directory.
        directory: PathBuf,
    },
}

/// Where the parts of one site are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SitePlace {
    /// Its file while it is enabled, or always where links tell that.
    pub file: PathBuf,
    /// Its link, where there are links.
    pub link: Option<PathBuf>,
    /// Its file while it is disabled, where there are no links.
    pub disabled: Option<PathBuf>,
    /// Its file of users.
    pub users: PathBuf,
}

impl Layout {
    /// How this host has them; `None` if nginx includes neither of the usual directories.
    #[must_use]
    pub fn of(dump: &Dump) -> Option<Self> {
        let includes = dump.includes();
        let named = |pattern: &&PathBuf, directory: &str| {
            pattern.parent().is_some_and(|parent| parent.ends_with(directory))
        };
        let name = |pattern: &Path| pattern.file_name().map(|name| name.to_string_lossy().into_owned());
        let links = includes.iter().filter(|pattern| named(pattern, "sites-enabled")).find_map(|pattern| {
            let ending = match name(pattern)?.as_str() {
                "*" => "",
                "*.conf" => ".conf",
                _ => return None,
            };
            let enabled = pattern.parent()?.to_owned();
            let available = enabled.parent()?.join("sites-available");
            Some(Self::Links { available, enabled, ending })
        });
        let files = || {
            includes.iter().find_map(|pattern| {
                let is_so = named(&pattern, "conf.d") && name(pattern)? == "*.conf";
                is_so
                    .then(|| Self::Files { directory: pattern.parent().unwrap_or(Path::new("/")).to_owned() })
            })
        };
        links.or_else(files)
    }

    /// The directory that nginx includes.
    #[must_use]
    pub fn included(&self) -> &Path {
        match self {
            Self::Links { enabled, .. } => enabled,
            Self::Files { directory } => directory,
        }
    }

    /// Where a site of this name is.
    #[must_use]
    pub fn place(&self, name: &str) -> SitePlace {
        match self {
            Self::Links { available, enabled, ending } => SitePlace {
                file: available.join(format!("{name}{ending}")),
                link: Some(enabled.join(format!("{name}{ending}"))),
                disabled: None,
                users: users(available, name),
            },
            Self::Files { directory } => SitePlace {
                file: directory.join(format!("{name}.conf")),
                link: None,
                disabled: Some(directory.join(format!("{name}.conf.disabled"))),
                users: users(directory, name),
            },
        }
    }
}

/// Beside the directory of sites, in one that nobody includes.
fn users(beside: &Path, name: &str) -> PathBuf {
    beside.parent().unwrap_or(Path::new("/")).join("fleetward").join(format!("{name}.htpasswd"))
}
