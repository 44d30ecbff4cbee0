//! What apt-get would do: the lines of `apt-get --simulate` (apt-get(8)).

use super::{Apt, AptError, complaint, hear};

/// What would become of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Would {
    /// As apt names it: with its architecture where that is not the host's own.
    pub name: String,
    /// The version that is installed now.
    pub before: Option<String>,
    /// The version that would be; `None` where it would be removed.
    pub after: Option<String>,
}

impl Apt {
    /// What `apt-get` would do with these arguments. It takes no lock.
    ///
    /// # Errors
    /// Why it would do nothing.
    pub async fn simulate(&self, arguments: &[String]) -> Result<Vec<Would>, AptError> {
        // Without a lock: whoever holds it is not waited for only to look.
        let look = ["--simulate", "-o", "Debug::NoLocking=1"].map(str::to_owned);
        let (status, said, wrong) = hear("apt-get", look.iter().chain(arguments)).await?;
        if !status.success() {
            return Err(AptError::Failed {
                program: "apt-get",
                said: reason(&said, &complaint(&wrong, status)),
            });
        }
        Ok(read(&said))
    }
}

/// What it says of packages that cannot be had together stands before its error.
fn reason(said: &str, wrong: &str) -> fleetward_protocol::text::Line {
    let mut lines = said.lines().skip_while(|line| !line.contains("unmet dependencies"));
    let unmet: Vec<&str> =
        lines.by_ref().skip(1).take_while(|line| line.starts_with(' ')).map(str::trim).take(8).collect();
    match unmet.is_empty() {
        true => fleetward_protocol::text::Text::of(wrong),
        false => fleetward_protocol::text::Text::of(format_args!("{wrong} ({})", unmet.join("; "))),
    }
}

fn read(said: &str) -> Vec<Would> {
    said.lines().filter_map(read_one).collect()
}

/// `Inst curl [7.1-1] (7.1-2 Debian:12/stable [amd64])`, `Remv curl [7.1-1]`, `Purg curl [7.1-1]`; what is set up afterwards
/// (`Conf`) was told before.
fn read_one(line: &str) -> Option<Would> {
    let (verb, rest) = line.split_once(' ')?;
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let before =
        rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(before, _)| before.to_owned());
    let after = match verb {
        "Inst" => Some(rest.split_once('(')?.1.split_ascii_whitespace().next()?.to_owned()),
        "Remv" | "Purg" => None,
        _ => return None,
    };
    (!name.is_empty()).then(|| Would { name: name.to_owned(), before, after })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_tell_what_would_become_of_packages() {
        let said = "NOTE: This is only a simulation!\nReading package lists...\nInst libc6 [2.36-9] (2.36-10 Debian:12.4/stable, Debian-Security:12/stable-security [amd64]) []\n\
            Inst nginx (1.24-1 Debian:12.4/stable [all])\nInst libc6:i386 [2.36-9] (2.36-10 Debian:12.4/stable [i386])\nRemv old [1.0]\nPurg older [1.1] [a:amd64 ]\nPurg config-only\nConf nginx (1.24-1 Debian:12.4/stable [all])\nInst torn\n";
        let told: Vec<_> =
            read(said).into_iter().map(|would| (would.name, would.before, would.after)).collect();
        let some = |text: &str| Some(text.to_owned());
        let name = |text: &str| text.to_owned();
        assert_eq!(
            told,
            [
                (name("libc6"), some("2.36-9"), some("2.36-10")),
                (name("nginx"), None, some("1.24-1")),
                (name("libc6:i386"), some("2.36-9"), some("2.36-10")),
                (name("old"), some("1.0"), None),
                (name("older"), some("1.1"), None),
                (name("config-only"), None, None),
            ]
        );
    }

    #[test]
    fn what_cannot_be_had_together_is_told() {
        let said = "Some packages could not be installed.\nThe following packages have unmet dependencies:\n a : Depends: b (= 2) but 1 is to be installed\n c : Depends: d\nrest\n";
        let told = reason(said, "Unable to correct problems");
        assert_eq!(
            told,
            "Unable to correct problems (a : Depends: b (= 2) but 1 is to be installed; c : Depends: d)"
        );
        assert_eq!(reason("", "no"), "no");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(said in "((Inst|Remv|Purg|Conf) [a-z\\[\\]() .0-9]{0,30}\n){0,5}|\\PC{0,60}") {
            for would in read(&said) {
                prop_assert!(!would.name.is_empty() && !would.name.contains(' '));
            }
        }
    }
}
