//! What dpkg has installed, and what apt has installed for others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Apt, AptError, hear, read};

/// A package in dpkg's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// As dpkg and apt name it: with its architecture where that matters, `libc6:amd64`.
    pub full: String,
    /// Its name.
    pub name: String,
    /// For which architecture it is built.
    pub architecture: String,
    /// Its version; empty where only its name is known.
    pub version: String,
    /// What should become of it: `install`, `hold`, `deinstall`, `purge` (dpkg(1)).
    pub want: String,
    /// What it is: `installed`, `config-files`, `half-configured`, …
    pub state: String,
    /// What it cannot be without, and what it is recommended with, as its control file says it; of single packages only.
    pub needs: String,
}

impl Installed {
    /// Whether files of it, beside its configuration, are there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.state.as_str(), "not-installed" | "config-files")
    }

    /// Whether dpkg has come to its end with it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(
            self.state.as_str(),
            "not-installed" | "config-files" | "installed" | "triggers-awaited" | "triggers-pending"
        )
    }

    /// Whether nothing may upgrade or remove it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.want == "hold"
    }
}

/// One line for each package; a tab stands in no field.
const FORMAT: &str = "--showformat=${binary:Package}\\t${Package}\\t${Architecture}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Status}\\n";
/// The same with what it needs, for few packages: it may be long.
const FORMAT_WITH_NEEDS: &str = "--showformat=${binary:Package}\\t${Package}\\t${Architecture}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Status}\\t${Pre-Depends}, ${Depends}, ${Recommends}\\n";

impl Apt {
    /// Every package that dpkg knows of, by its full name.
    ///
    /// # Errors
    /// If dpkg does not tell.
    pub async fn read_installed(&self) -> Result<BTreeMap<String, Installed>, AptError> {
        let admin = format!("--admindir={}", self.admin.display());
        let said = read("dpkg-query", [admin.as_str(), "--show", FORMAT]).await?;
        Ok(lines(&said))
    }

    /// A package of this name with what it needs; `None` if dpkg does not know it.
    pub async fn read_one(&self, name: &str) -> Option<Installed> {
        let admin = format!("--admindir={}", self.admin.display());
        let said = read("dpkg-query", [admin.as_str(), "--show", FORMAT_WITH_NEEDS, name]).await.ok()?;
        lines(&said).into_values().next()
    }

    /// Whether a version is older than another one.
    pub async fn read_is_older(&self, one: &str, other: &str) -> bool {
        let compared = hear("dpkg", ["--compare-versions", one, "lt", other]).await;
        compared.is_ok_and(|(status, ..)| status.success())
    }

    /// The packages that were installed for others, as apt names them.
    ///
    /// # Errors
    /// If apt does not tell.
    pub async fn read_automatic(&self) -> Result<BTreeSet<String>, AptError> {
        let said = read("apt-mark", ["showauto"]).await?;
        Ok(said.lines().map(|line| line.trim().to_owned()).collect())
    }
}

fn lines(said: &str) -> BTreeMap<String, Installed> {
    said.lines().filter_map(line).map(|package| (package.full.clone(), package)).collect()
}

fn line(line: &str) -> Option<Installed> {
    let mut fields = line.split('\t').map(str::to_owned);
    let mut next = || fields.next();
    let package = Installed {
        full: next()?,
        name: next()?,
        architecture: next()?,
        version: next()?,
        want: next()?,
        state: next()?,
        needs: next().unwrap_or_default(),
    };
    (!package.name.is_empty()).then_some(package)
}

/// The names in a list of dependencies: `libc6 (>= 2.36), dbus | dbus-broker, python3:any`.
#[must_use]
pub fn names(dependencies: &str) -> BTreeSet<String> {
    let name = |one: &str| {
        let end = one.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        one.get(..end.unwrap_or(one.len())).filter(|name| !name.is_empty()).map(str::to_owned)
    };
    dependencies.split([',', '|']).map(str::trim).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_package() {
        let said = "bash\tbash\tamd64\t5.2-2\tinstall\tinstalled\nlibc6:i386\tlibc6\ti386\t2.36\thold\thalf-configured\n\
                    old\told\tall\t1\tdeinstall\tconfig-files\ntorn\ttorn\n\n";
        let read = lines(said);
        assert_eq!(read.keys().map(String::as_str).collect::<Vec<_>>(), ["bash", "libc6:i386", "old"]);
        let libc = &read["libc6:i386"];
        assert_eq!(
            (libc.name.as_str(), libc.is_there(), libc.is_whole(), libc.is_held()),
            ("libc6", true, false, true)
        );
        assert!(!read["old"].is_there() && read["bash"].is_whole());
    }

    #[test]
    fn needs_have_names() {
        let read = names("libc6 (>= 2.36), dbus | dbus-broker, python3:any, , g++ [amd64]");
        assert_eq!(read.into_iter().collect::<Vec<_>>(), ["dbus", "dbus-broker", "g++", "libc6", "python3"]);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(said in "[a-z\t\n:|,(]{0,200}|\\PC{0,80}") {
            let _ = (lines(&said), names(&said));
        }
    }
}
