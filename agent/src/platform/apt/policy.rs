//! What versions there are of a package, from where, and which one apt would take: `apt-cache policy`.

use std::collections::BTreeMap;

use super::{Apt, AptError, read};

/// What apt knows of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The version that is installed.
    pub installed: Option<String>,
    /// The one that apt would install.
    pub candidate: Option<String>,
    /// The versions that there are, the newest first.
    pub versions: Vec<Version>,
}

/// A version, and the sources that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub number: String,
    /// From where it can be had, in the words of apt.
    pub sources: Vec<String>,
}

/// Who publishes a source (apt_preferences(5), "Determination of Package Version and Distribution Properties").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Release {
    /// `Debian`, `Debian-Security`, `Ubuntu`, …
    pub label: String,
    /// Its suite: `stable-security`, `noble-updates`, …
    pub suite: String,
    /// Its codename: `bookworm-security`, …
    pub codename: String,
}

impl Release {
    /// Whether it is an archive for what fixes security. Debian names it so in its label; Debian, Ubuntu and what is made of
    /// them in its suite.
    #[must_use]
    pub fn is_security(&self) -> bool {
        self.label == "Debian-Security"
            || [&self.suite, &self.codename].iter().any(|name| name.ends_with("-security"))
    }
}

/// The sources, by the words of apt.
pub type Releases = BTreeMap<String, Release>;

impl Policy {
    /// The candidate, if it is newer than what is installed.
    #[must_use]
    pub fn newer(&self) -> Option<&Version> {
        let candidate = self.candidate.as_deref()?;
        self.until_installed().find(|version| version.number == candidate)
    }

    /// The newest version that fixes security, of those that are newer than what is installed and that apt would not pass over for
    /// the sake of its candidate.
    #[must_use]
    pub fn security(&self, releases: &Releases) -> Option<&Version> {
        let candidate = self.newer()?;
        let up_to = self.until_installed().skip_while(|version| version.number != candidate.number);
        let is_security = |source: &String| releases.get(source).is_some_and(Release::is_security);
        up_to.into_iter().find(|version| version.sources.iter().any(is_security))
    }

    /// The versions that are newer than what is installed.
    fn until_installed(&self) -> impl Iterator<Item = &Version> {
        let installed = self.installed.as_deref();
        // What is installed is always among the versions. Where it is not, nothing is newer.
        let is_known = self.versions.iter().any(|version| Some(version.number.as_str()) == installed);
        self.versions.iter().take_while(move |version| is_known && Some(version.number.as_str()) != installed)
    }
}

impl Version {
    /// Who publishes it: a security archive before others, for that is what matters.
    #[must_use]
    pub fn release<'a>(&self, releases: &'a Releases) -> Option<&'a Release> {
        let known = || self.sources.iter().filter_map(|source| releases.get(source));
        known()
            .find(|release| release.is_security())
            .or_else(|| known().find(|release| !release.suite.is_empty()))
    }
}

impl Apt {
    /// What apt knows of these packages. One that it does not know is not among them, and others may be.
    ///
    /// # Errors
    /// If apt does not tell.
    pub async fn read_policies(&self, names: &[&str]) -> Result<BTreeMap<String, Policy>, AptError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut all = BTreeMap::new();
        // What a process is started with has an end (execve(2)).
        for names in names.chunks(4096) {
            all.extend(policies(&read("apt-cache", ["policy"].iter().chain(names)).await?));
        }
        Ok(all)
    }

    /// Who publishes the sources that this host has.
    ///
    /// # Errors
    /// If apt does not tell.
    pub async fn read_releases(&self) -> Result<Releases, AptError> {
        Ok(releases(&read("apt-cache", ["policy"]).await?))
    }
}

/// ```text
/// bash:
///   Installed: 5.2.15-2+b8
///   Candidate: 5.2.15-2+b13
///   Version table:
///      5.2.15-2+b13 500
///         500 http://deb.example.com/debian bookworm/main amd64 Packages
///  *** 5.2.15-2+b8 100
///         100 /var/lib/dpkg/status
/// ```
fn policies(said: &str) -> BTreeMap<String, Policy> {
    let mut all: BTreeMap<String, Policy> = BTreeMap::new();
    let mut current: Option<(String, Policy)> = None;
    let known = |text: &str| (text != "(none)").then(|| text.to_owned());
    for line in said.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ') && !name.is_empty()) {
            all.extend(current.take());
            current =
                Some((name.to_owned(), Policy { installed: None, candidate: None, versions: Vec::new() }));
            continue;
        }
        let Some((_, policy)) = &mut current else { continue };
        if let Some(installed) = line.strip_prefix("  Installed: ") {
            policy.installed = known(installed);
        } else if let Some(candidate) = line.strip_prefix("  Candidate: ") {
            policy.candidate = known(candidate);
        } else if let Some(source) = line.strip_prefix("       ") {
            if let (Some(version), Some(source)) = (policy.versions.last_mut(), behind_priority(source)) {
                version.sources.push(source.to_owned());
            }
        } else if let Some(version) = line.strip_prefix(" *** ").or_else(|| line.strip_prefix("     "))
            && let Some(number) = version.split_ascii_whitespace().next()
        {
            policy.versions.push(Version { number: number.to_owned(), sources: Vec::new() });
        }
    }
    all.extend(current);
    all
}

/// ```text
/// Package files:
///  500 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
///      release v=12,o=Debian,a=stable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64
///      origin deb.example.com
/// Pinned packages:
/// ```
fn releases(said: &str) -> Releases {
    let mut all = Releases::new();
    let mut source: Option<&str> = None;
    for line in said.lines() {
        match line.strip_prefix("     ") {
            Some(rest) => {
                if let (Some(source), Some(release)) = (source, rest.strip_prefix("release ")) {
                    all.insert(source.to_owned(), self::release(release));
                }
            }
            None if line.starts_with(' ') => source = behind_priority(line),
            None => source = None,
        }
    }
    all
}

/// `v=12,o=Debian,…`: what stands in it may hold commas of its own.
fn release(text: &str) -> Release {
    let mut release = Release::default();
    let mut field: Option<&mut String> = None;
    for part in text.split(',') {
        let is_key =
            |(key, _): &(&str, &str)| key.len() == 1 && key.bytes().all(|byte| byte.is_ascii_lowercase());
        match part.split_once('=').filter(is_key) {
            Some((key, value)) => {
                field = match key {
                    "l" => Some(&mut release.label),
                    "a" => Some(&mut release.suite),
                    "n" => Some(&mut release.codename),
                    _ => None,
                };
                if let Some(field) = &mut field {
                    value.clone_into(field);
                }
            }
            None => {
                if let Some(field) = &mut field {
                    field.push(',');
                    field.push_str(part);
                }
            }
        }
    }
    release
}

fn behind_priority(text: &str) -> Option<&str> {
    let (priority, source) = text.trim_start().split_once(' ')?;
    priority.parse::<i32>().ok()?;
    Some(source.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILES: &str = "Package files:
 100 /var/lib/dpkg/status
     release a=now
 500 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
     release v=12,o=Debian,a=stable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64
     origin deb.example.com
 500 http://deb.example.com/debian bookworm/main amd64 Packages
     release v=12.4,o=Debian,a=stable,n=bookworm,l=Debian,c=main,b=amd64
     origin deb.example.com
  -1 https://repo.example.com ./ Packages
     release o=Example, Inc.,l=Example, Inc.,c=
     origin repo.example.com
 500 http://archive.example.com/ubuntu noble-security/main amd64 Packages
     release v=24.04,o=Ubuntu,a=noble-security,n=noble,l=Ubuntu,c=main,b=amd64
Pinned packages:
     something -> 1.0 with priority 990
";

    const POLICY: &str = "bash:
  Installed: 5.2-1
  Candidate: 5.2-4
  Version table:
     5.2-4 500
        500 http://deb.example.com/debian bookworm/main amd64 Packages
     5.2-3 500 (phased 10%)
        500 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
     5.2-2 500
        500 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
 *** 5.2-1 1001
       1001 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
        100 /var/lib/dpkg/status
     5.1-1 -1
         -1 https://repo.example.com ./ Packages
libc6:i386:
  Installed: (none)
  Candidate: (none)
  Version table:
     2.36-9 500
        500 http://deb.example.com/debian bookworm/main i386 Packages
pinned:
  Installed: 1.0-1
  Candidate: 1.0-2
  Package pin: 1.0-2
  Version table:
     1.0-3 500
        500 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
     1.0-2 990
        500 http://deb.example.com/debian bookworm/main amd64 Packages
 *** 1.0-1 100
        100 /var/lib/dpkg/status
lower:
  Installed: 2.0-1
  Candidate: 1.0-1
  Version table:
 *** 2.0-1 100
        100 /var/lib/dpkg/status
     1.0-1 1001
        500 http://deb.example.com/debian-security bookworm-security/main amd64 Packages
";

    #[test]
    fn what_there_is_to_upgrade_to_and_what_of_it_fixes_security() {
        let (releases, all) = (releases(FILES), policies(POLICY));
        assert_eq!(
            all.keys().map(String::as_str).collect::<Vec<_>>(),
            ["bash", "libc6:i386", "lower", "pinned"]
        );
        let number = |version: Option<&Version>| version.map(|version| version.number.clone());
        let bash = &all["bash"];
        assert_eq!(number(bash.newer()).as_deref(), Some("5.2-4"));
        // The candidate has come from elsewhere; what fixes security stands below it.
        assert_eq!(number(bash.security(&releases)).as_deref(), Some("5.2-3"));
        assert_eq!(bash.newer().unwrap().release(&releases).unwrap().suite, "stable");
        assert_eq!(bash.versions.len(), 5);
        assert_eq!(bash.versions[3].sources.len(), 2);
        // What the owner keeps from being installed is not.
        assert_eq!(number(all["pinned"].newer()).as_deref(), Some("1.0-2"));
        assert_eq!(all["pinned"].security(&releases), None);
        // Of a downgrade nobody says that it is newer.
        assert_eq!((all["lower"].newer(), all["lower"].security(&releases)), (None, None));
        assert_eq!((all["libc6:i386"].newer(), &all["libc6:i386"].candidate), (None, &None));
    }

    #[test]
    fn a_source_says_who_publishes_it() {
        let all = releases(FILES);
        let of = |part: &str| all.iter().find(|(source, _)| source.contains(part)).unwrap().1;
        assert!(of("debian-security").is_security() && of("ubuntu").is_security());
        assert!(!of("debian bookworm/").is_security() && !of("repo.example.com").is_security());
        assert_eq!(of("repo.example.com").label, "Example, Inc.");
        assert_eq!(of("dpkg/status").suite, "now");
        assert_eq!(all.len(), 5, "{all:?}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(said in "([ *]{0,8}[a-z0-9:=,.-]{0,8}[ :]{0,2}[a-zI: ]{0,12}\n){0,12}|\\PC{0,80}") {
            let releases = releases(&said);
            for policy in policies(&said).values() {
                let _ = (policy.newer(), policy.security(&releases));
            }
        }

        /// What fixes security is newer than what is installed, and not newer than what apt would take.
        #[test]
        fn security_stands_between_what_is_installed_and_the_candidate(
            versions in prop::collection::vec((0..3_u8, any::<bool>()), 1..8),
            installed in any::<prop::sample::Index>(),
            candidate in any::<prop::sample::Index>(),
        ) {
            let releases = releases(FILES);
            let sources: Vec<&String> = releases.keys().collect();
            let versions: Vec<Version> = versions.iter().enumerate().map(|(number, (source, has))| Version {
                number: format!("{}", 100 - number),
                sources: if *has { vec![sources[usize::from(*source)].clone()] } else { vec![] },
            }).collect();
            let (installed, candidate) = (installed.index(versions.len()), candidate.index(versions.len()));
            let policy = Policy {
                installed: Some(versions[installed].number.clone()),
                candidate: Some(versions[candidate].number.clone()),
                versions: versions.clone(),
            };
            prop_assert_eq!(policy.newer().is_some(), candidate < installed);
            let is_security = |version: &Version| version.sources.iter().any(|source| releases[source].is_security());
            let expected = (candidate..installed).map(|at| &versions[at]).find(|version| is_security(version));
            prop_assert_eq!(policy.security(&releases), expected);
        }
    }
}
