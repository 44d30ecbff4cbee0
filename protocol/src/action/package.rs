//! Install, upgrade, hold and remove packages of Debian and Ubuntu through apt.
//!
//! What is already as it was asked for is left alone, and the report says so. Nothing is removed that is not named, and what
//! this host's agent is made of stays.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Actor, Contract, Needs, Privilege};
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{List, Text, Word};

/// The most packages that one action names.
pub const MAX_NAMES: usize = 64;
/// The longest name of a package, in bytes. Debian sets no limit; no archive has longer ones.
pub const MAX_NAME: usize = 128;
/// The longest version, in bytes.
pub const MAX_VERSION: usize = 128;
/// The most changes that a report names.
pub const MAX_CHANGES: usize = 1024;
/// The most services, or packages that want a restart, that a report names.
pub const MAX_WANTED: usize = 128;

/// Parameters of a package action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What to do.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub verb: PackageVerb,
    /// With which packages, at most 64. To install one in a certain version, that stands behind its name: `nginx=1.24.0-2`.
    /// `upgrade` without names means all that are installed; `refresh` takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>, example = json!(["nginx"]), max_items = 64))]
    pub names: Vec<PackageSpec>,
    /// Only upgrades that fix security: to the newest version that a security archive of Debian or Ubuntu has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub security: bool,
    /// What becomes of a configuration file that was changed on the host when its package brings another one.
    #[serde(default, skip_serializing_if = "Conffiles::is_keep")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub conffiles: Conffiles,
    /// Whether packages are removed as well that were installed for others, and that nothing needs any more. With `upgrade`,
    /// `remove` and `purge` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub autoremove: bool,
}

choices! {
    /// What can be done with packages.
    pub enum PackageVerb {
        /// Have apt fetch its lists again: what there is, in which versions.
        Refresh = "refresh",
        /// Install them, or bring them to a version that is named or the newest there is.
        Install = "install",
        /// Bring what is installed to the newest version. Nothing is removed; what would need that is left as it is.
        Upgrade = "upgrade",
        /// Keep them as they are: nothing upgrades or removes them until they are let go.
        Hold = "hold",
        /// Let them be upgraded again.
        Unhold = "unhold",
        /// Remove them, and leave their configuration files.
        Remove = "remove",
        /// Remove them with their configuration files. Many packages remove their data as well.
        Purge = "purge",
    }
}

choices! {
    /// What becomes of a configuration file that was changed on the host when its package brings another one.
    pub enum Conffiles {
        /// The file stays; the package's own is put beside it, as `.dpkg-dist`.
        Keep = "keep",
        /// The package's own takes its place; the file is kept beside it, as `.dpkg-old`.
        Replace = "replace",
    }
}

#[expect(clippy::derivable_impls, reason = "the enum is made by a macro that knows of no default")]
impl Default for Conffiles {
    fn default() -> Self {
        Self::Keep
    }
}

impl Conffiles {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// The name of a package, as Debian's policy has it (section 5.6.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

/// The version of a package, as Debian's policy has it (section 5.6.12).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageVersion(String);

/// A package, and perhaps the version that is meant: `nginx`, `nginx=1.24.0-2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageSpec {
    /// Which package.
    pub name: PackageName,
    /// In which version.
    pub version: Option<PackageVersion>,
}

/// Why a text names no package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {rule}")]
pub struct InvalidPackage {
    text: Word,
    what: &'static str,
    rule: &'static str,
}

/// What a package action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PackageReport {
    /// Whether anything was done. Where all was as wanted, nothing is touched.
    pub changed: bool,
    /// What is not as it was before, as many as fit.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<PackageChange>))]
    pub changes: List<PackageChange, MAX_CHANGES>,
    /// How many more there are.
    #[serde(default)]
    pub more: u32,
    /// How many packages have a newer version now. Absent where that was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// What still runs with files that were replaced, by what needrestart says; absent where it is not installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Restarts>,
    /// Whether the host wants to be rebooted.
    pub reboot_required: bool,
    /// The packages for which it wants that.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub reboot_for: List<Word, MAX_WANTED>,
}

/// A package that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PackageChange {
    /// Its name, with its architecture where that is not the host's own: `libc6:i386`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub name: Word,
    /// Its version before; absent where it was not installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub before: Option<Word>,
    /// Its version after; absent where it is not installed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub after: Option<Word>,
    /// Whether it is held now, where that is what changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
}

/// What needrestart(1) says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Restarts {
    /// The services that run with files of before.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub services: List<Word, MAX_WANTED>,
    /// The kernel that runs, where a newer one is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub kernel: Option<Word>,
    /// The kernel that would run after a reboot, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub next_kernel: Option<Word>,
}

impl Contract for Package {
    const KIND: &'static str = "package";
    const SUMMARY: &'static str = "Install, upgrade, hold or remove packages of Debian and Ubuntu.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[Class::Packages];
    // A release's worth of upgrades over a slow line.
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
    const PRIVILEGE: Privilege = Privilege::Administer;

    type Asked = Self;
    type Report = PackageReport;

    fn subject(&self) -> Word {
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let what = match (self.verb, names.is_empty()) {
            (PackageVerb::Upgrade, true) => "all packages".to_owned(),
            (PackageVerb::Refresh, true) => "the lists of packages".to_owned(),
            _ => names.join(", "),
        };
        let security = if self.security { " (security)" } else { "" };
        Text::of(format_args!("{} {what}{security}", self.verb))
    }

    fn needs(&self) -> Needs {
        Needs {
            actor: Actor::Root,
            // Scripts that work with apt hold the same.
            resources: "apt".parse().into_iter().collect(),
            contents: Vec::new(),
        }
    }

    fn touches(&self) -> Vec<Object> {
        match (self.verb, self.names.is_empty()) {
            // Lists say what there is, and change nothing of it.
            (PackageVerb::Refresh, _) => Vec::new(),
            (_, true) => vec![Object::any(Class::Packages)],
            (_, false) => self.names.iter().map(|spec| Object::named(Class::Packages, &spec.name)).collect(),
        }
    }

    fn validate(&self) -> Result<(), String> {
        let Self { verb, names, security, conffiles, autoremove } = self;
        let distinct: BTreeSet<&PackageName> = names.iter().map(|spec| &spec.name).collect();
        if names.len() > MAX_NAMES {
            return Err(format!("{} packages are named, and {MAX_NAMES} are allowed", names.len()));
        }
        if distinct.len() < names.len() {
            return Err("a package is named twice".to_owned());
        }
        match verb {
            PackageVerb::Refresh if !names.is_empty() => {
                return Err("`refresh` is about all lists, and takes no names".to_owned());
            }
            PackageVerb::Refresh | PackageVerb::Upgrade => {}
            _ if names.is_empty() => return Err(format!("`{verb}` takes the names of packages")),
            _ => {}
        }
        if *verb != PackageVerb::Install
            && let Some(spec) = names.iter().find(|spec| spec.version.is_some())
        {
            return Err(format!("`{spec}`: a version goes with `install` alone"));
        }
        if *security && *verb != PackageVerb::Upgrade {
            return Err("`security` goes with `upgrade` alone".to_owned());
        }
        if *autoremove && !matches!(verb, PackageVerb::Upgrade | PackageVerb::Remove | PackageVerb::Purge) {
            return Err("`autoremove` goes with `upgrade`, `remove` and `purge` alone".to_owned());
        }
        if *conffiles != Conffiles::Keep && !matches!(verb, PackageVerb::Install | PackageVerb::Upgrade) {
            return Err("`conffiles` goes with `install` and `upgrade` alone".to_owned());
        }
        Ok(())
    }
}

impl PackageName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PackageVersion {
    /// The version.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = InvalidPackage;

    fn from_str(text: &str) -> Result<Self, InvalidPackage> {
        let invalid = |rule| InvalidPackage { text: Text::of(text), what: "the name of a package", rule };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_valid = |c: char| is_plain(c) || matches!(c, '+' | '-' | '.');
        match text.len() {
            0 => Err(invalid("it is empty")),
            1 => Err(invalid("it has two characters at least")),
            length if length > MAX_NAME => Err(invalid("it has more than 128 characters")),
            _ if !text.chars().all(is_valid) => {
                Err(invalid("only lower-case letters, digits and `+-.` are allowed"))
            }
            _ if !text.starts_with(is_plain) => Err(invalid("it begins with a letter or a digit")),
            // To apt-get(8) that means to remove what stands before it.
            _ if text.ends_with('-') => Err(invalid("it ends with `-`")),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl FromStr for PackageVersion {
    type Err = InvalidPackage;

    fn from_str(text: &str) -> Result<Self, InvalidPackage> {
        let invalid = |rule| InvalidPackage { text: Text::of(text), what: "a version", rule };
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | ':' | '~');
        match text.len() {
            0 => Err(invalid("it is empty")),
            length if length > MAX_VERSION => Err(invalid("it has more than 128 characters")),
            _ if !text.chars().all(is_valid) => Err(invalid("only letters, digits and `.+-:~` are allowed")),
            _ if !text.starts_with(|c: char| c.is_ascii_digit()) => {
                Err(invalid("it begins with a digit; `apt-cache policy` lists the versions there are"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl FromStr for PackageSpec {
    type Err = InvalidPackage;

    fn from_str(text: &str) -> Result<Self, InvalidPackage> {
        match text.split_once('=') {
            None => Ok(Self { name: text.parse()?, version: None }),
            Some((name, version)) => Ok(Self { name: name.parse()?, version: Some(version.parse()?) }),
        }
    }
}

impl fmt::Display for PackageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            None => f.pad(&self.name.0),
            Some(version) => write!(f, "{}={}", self.name, version.0),
        }
    }
}

/// The ways in which these are texts.
macro_rules! texts {
    ($($Name:ident)+) => {$(
        impl TryFrom<String> for $Name {
            type Error = InvalidPackage;

            fn try_from(text: String) -> Result<Self, InvalidPackage> {
                text.parse()
            }
        }

        impl From<$Name> for String {
            fn from(value: $Name) -> Self {
                value.to_string()
            }
        }
    )+};
}

texts! { PackageName PackageVersion PackageSpec }

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::{Action, ActionRequest};

    #[test]
    fn names_are_those_of_debian_and_nothing_that_apt_reads_otherwise() {
        for text in
            ["nginx", "g++", "libc6", "0ad", "python3.11-minimal", "nginx=1.24.0-2", "a1=2:1.0~rc1+b2"]
        {
            assert_eq!(text.parse::<PackageSpec>().unwrap().to_string(), text);
        }
        let long = "x".repeat(129);
        for (text, told) in [
            ("", "it is empty"),
            ("a", "two characters"),
            ("nginx-", "ends with `-`"),
            ("-y", "begins with"),
            ("nginx*", "only lower-case"),
            ("Nginx", "only lower-case"),
            ("nginx/stable", "only lower-case"),
            ("libc6:i386", "only lower-case"),
            ("^tasksel", "only lower-case"),
            ("a b", "only lower-case"),
            ("nginx\n", "only lower-case"),
            (&long, "more than 128"),
            ("nginx=", "it is empty"),
            ("nginx=*", "only letters"),
            ("nginx=now", "begins with a digit"),
        ] {
            let error = text.parse::<PackageSpec>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
            assert!(crate::printable::is_line(&error), "{error:?}");
        }
    }

    #[test]
    fn parameters_read_as_they_are_written() {
        let request = |params: &str| ActionRequest { kind: "package".into(), params: params.into() };
        for (params, subject) in [
            (r#"{"verb":"refresh"}"#, "refresh the lists of packages"),
            (r#"{"verb":"upgrade"}"#, "upgrade all packages"),
            (r#"{"verb":"upgrade","security":true}"#, "upgrade all packages (security)"),
            (r#"{"verb":"install","names":["nginx","curl=8.1-1"]}"#, "install nginx, curl=8.1-1"),
            (r#"{"verb":"remove","names":["nginx"],"autoremove":true}"#, "remove nginx"),
        ] {
            let parsed = Action::parse(&request(params)).unwrap();
            assert_eq!(parsed.subject().as_str(), subject);
            assert_eq!(parsed.needs().resources[0].as_str(), "apt");
            assert_eq!(parsed.request().unwrap().params, params);
        }
        for (params, told) in [
            (r#"{"verb":"refresh","names":["nginx"]}"#, "takes no names"),
            (r#"{"verb":"install"}"#, "`install` takes the names of packages"),
            (r#"{"verb":"remove","names":[]}"#, "`remove` takes the names of packages"),
            (r#"{"verb":"hold","names":["nginx=1.2"]}"#, "a version goes with `install` alone"),
            (r#"{"verb":"install","names":["nginx","nginx=1"]}"#, "named twice"),
            (r#"{"verb":"install","names":["nginx"],"security":true}"#, "`security` goes with"),
            (r#"{"verb":"install","names":["nginx"],"autoremove":true}"#, "`autoremove` goes with"),
            (r#"{"verb":"remove","names":["nginx"],"conffiles":"replace"}"#, "`conffiles` goes with"),
            (r#"{"verb":"dist-upgrade"}"#, "unknown variant"),
            (r#"{"verb":"upgrade","force":true}"#, "unknown field"),
        ] {
            let error = Action::parse(&request(params)).unwrap_err().to_string();
            assert!(error.contains("`package`") && error.contains(told), "{error}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("\"p{number}\"")).collect();
        let many = format!(r#"{{"verb":"install","names":[{}]}}"#, many.join(","));
        assert!(Action::parse(&request(&many)).unwrap_err().to_string().contains("64 are allowed"));
    }

    proptest! {
        /// Whatever is taken as a name is no option of a program, no pattern and no other word of apt's.
        #[test]
        fn what_is_taken_is_a_name_and_reads_back(text in "[-a-zA-Z0-9+.:~=*/ ^\\[\\]]{0,12}") {
            if let Ok(spec) = text.parse::<PackageSpec>() {
                prop_assert_eq!(spec.to_string(), text.clone());
                prop_assert!(!text.starts_with('-') && !text.contains(['*', '/', ' ', '^', '[', ']']));
                prop_assert!(!spec.name.as_str().ends_with('-'));
            }
        }
    }
}
