//! What a host wants after its packages have changed: services that run with files of before, and a reboot.

use std::path::Path;

use fleetward_protocol::action::package::{MAX_WANTED, Restarts};
use fleetward_protocol::text::{List, Text, Word};

use super::{AptError, hear};
use crate::config;
use crate::platform::files;

/// The most that is read of a file beside it.
const MAX_FILE: u64 = 64 << 10;

/// Whether a host wants to be rebooted, and for which packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebootWanted {
    /// Whether it does.
    pub is_wanted: bool,
    /// The packages for which, each once.
    pub packages: Vec<Word>,
}

/// Whether this host wants to be rebooted.
#[must_use]
pub fn read_reboot() -> RebootWanted {
    read_reboot_at(&config::reboot_required())
}

fn read_reboot_at(file: &Path) -> RebootWanted {
    if file.symlink_metadata().is_err() {
        return RebootWanted::default();
    }
    let beside = file.with_extension("pkgs");
    let text = files::read_file(&beside, MAX_FILE).unwrap_or_default();
    let mut packages: Vec<Word> = Vec::new();
    for line in String::from_utf8_lossy(&text).lines().map(str::trim).filter(|line| !line.is_empty()) {
        let package = Text::of(line);
        if !packages.contains(&package) && packages.len() < MAX_WANTED {
            packages.push(package);
        }
    }
    RebootWanted { is_wanted: true, packages }
}

/// What needrestart(1) says; `None` where it is not installed, or does not say.
pub async fn read_restarts() -> Option<Restarts> {
    // In batch mode it lists, and restarts nothing.
    match hear("needrestart", ["-b", "-r", "l"]).await {
        Ok((status, said, _)) if status.success() || said.contains("NEEDRESTART-") => Some(read(&said)),
        Ok(_) | Err(AptError::Absent(_) | AptError::Start { .. }) => None,
        Err(_) => None,
    }
}

/// ```text
/// NEEDRESTART-VER: 3.6
/// NEEDRESTART-KCUR: 6.1.0-17-amd64
/// NEEDRESTART-KEXP: 6.1.0-18-amd64
/// NEEDRESTART-KSTA: 3
/// NEEDRESTART-SVC: nginx.service
/// ```
fn read(said: &str) -> Restarts {
    let values = |key: &str| {
        let prefix = format!("NEEDRESTART-{key}: ");
        said.lines()
            .filter_map(move |line| line.strip_prefix(prefix.as_str()).map(|value| Text::of(value.trim())))
    };
    let kernel: Option<Word> = values("KCUR").next();
    let next: Option<Word> = values("KEXP").next();
    // 1 says that the newest runs (README.batch.md of needrestart); containers say nothing.
    let is_old = values("KSTA").next().is_some_and(|state: Word| matches!(state.as_str(), "2" | "3"));
    Restarts {
        services: List::of(values("SVC")),
        kernel: kernel.filter(|_| is_old),
        next_kernel: next.filter(|_| is_old),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_says_that_a_reboot_is_wanted_and_another_why() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("reboot-required");
        assert_eq!(read_reboot_at(&file), RebootWanted::default());
        std::fs::write(&file, "*** System restart required ***\n").unwrap();
        assert_eq!(read_reboot_at(&file), RebootWanted { is_wanted: true, packages: vec![] });
        std::fs::write(directory.path().join("reboot-required.pkgs"), "linux-image\ndbus\nlinux-image\n\n")
            .unwrap();
        assert_eq!(read_reboot_at(&file).packages, ["linux-image", "dbus"]);
    }

    #[test]
    fn needrestart_names_services_and_an_old_kernel() {
        let said = "NEEDRESTART-VER: 3.6\nNEEDRESTART-KCUR: 6.1.0-17\nNEEDRESTART-KEXP: 6.1.0-18\nNEEDRESTART-KSTA: 3\nNEEDRESTART-SVC: a.service\nNEEDRESTART-SVC: b.service\n";
        let told = read(said);
        assert_eq!(
            told.services.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["a.service", "b.service"]
        );
        assert_eq!(
            (told.kernel.as_deref(), told.next_kernel.as_deref()),
            (Some("6.1.0-17"), Some("6.1.0-18"))
        );
        let told = read(&said.replace("KSTA: 3", "KSTA: 1"));
        assert_eq!((told.kernel, told.next_kernel), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(said in "(NEEDRESTART-(SVC|KSTA|KCUR): [a-z0-9\t]{0,8}\n){0,300}|\\PC{0,60}") {
            prop_assert!(read(&said).services.len() <= MAX_WANTED);
        }
    }
}
