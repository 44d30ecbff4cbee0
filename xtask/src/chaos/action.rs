//! The typed actions of a chaos run, and the units that they act upon.

use std::fmt;

/// The kind of action that scripts are.
pub const SCRIPT: &str = "script";
/// Where [`Unit::Worker`] records its starts, a line each. No script's record has a name without a dot.
pub const STARTS: &str = "/var/lib/chaos/unit";
/// Where units are installed: not where links are made that mask them (systemd.unit(5)).
pub const UNITS: &str = "/usr/local/lib/systemd/system";

/// A typed action, with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Kind `unit`: stops the worker and starts it again.
    Restart,
    /// Kind `unit`: starts the worker, unless it is active.
    Start,
    /// Kind `unit-file`: has a unit started at boot.
    Enable,
    /// Kind `unit-file`: has it not started at boot.
    Disable,
    /// Kind `unit-file`: lets nobody start a unit.
    Mask,
    /// Kind `unit-file`: takes that away.
    Unmask,
}

/// A unit that typed actions act upon. `prepare` installs all of them on every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Records each of its starts, durably, before anything else, and takes a moment for each, so that something can
    /// happen meanwhile. It is not started at boot.
    Worker,
    /// Does nothing. It says where in the boot it belongs, so that it can be enabled.
    Boot,
    /// Does nothing. It is another one than [`Unit::Boot`], because what is masked cannot be enabled.
    Masked,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Restart, Self::Start, Self::Enable, Self::Disable, Self::Mask, Self::Unmask];

    /// The action that a run says it is.
    pub fn of(kind: &str, subject: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.kind() == kind && action.to_string() == subject)
    }

    /// Its kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Restart | Self::Start => "unit",
            Self::Enable | Self::Disable | Self::Mask | Self::Unmask => "unit-file",
        }
    }

    /// Its parameter `verb`.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Mask => "mask",
            Self::Unmask => "unmask",
        }
    }

    /// What its parameter `unit` names.
    pub const fn unit(self) -> Unit {
        match self {
            Self::Restart | Self::Start => Unit::Worker,
            Self::Enable | Self::Disable => Unit::Boot,
            Self::Mask | Self::Unmask => Unit::Masked,
        }
    }

    /// Where its report says how the unit was `before`, or is `after`, as a JSON pointer.
    pub fn reported(self, when: &str) -> String {
        match self {
            Self::Restart | Self::Start => format!("/{when}/active"),
            Self::Enable | Self::Disable | Self::Mask | Self::Unmask => format!("/{when}"),
        }
    }

    /// Whether a unit that is like that is as asked.
    pub fn is_content_with(self, state: &str) -> bool {
        match self {
            Self::Restart | Self::Start => state == "active",
            Self::Enable => state == "enabled",
            Self::Disable => state == "disabled",
            Self::Mask => state == "masked",
            Self::Unmask => !state.is_empty() && !state.starts_with("masked"),
        }
    }

    /// Its parameters, for the command line.
    pub fn params(self) -> [String; 2] {
        [format!("unit={}", self.unit().name()), format!("verb={}", self.verb())]
    }
}

impl fmt::Display for Action {
    /// As the controller shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb(), self.unit().name())
    }
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Worker, Self::Boot, Self::Masked];

    /// The unit's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "chaos.service",
            Self::Boot => "chaos-boot.service",
            Self::Masked => "chaos-masked.service",
        }
    }

    /// The unit's file.
    pub fn text(self) -> String {
        // Started as often as operators ask for: the limit of systemd is not what is tried here.
        let begin = "[Unit]\nDescription=A unit of the chaos run\nStartLimitIntervalSec=0\n\n[Service]\n\
             Type=oneshot\nRemainAfterExit=yes\n";
        match self {
            Self::Worker => format!("{begin}ExecStart=/bin/sh -c '{} && sleep 1'\n", record()),
            Self::Masked => format!("{begin}ExecStart=/bin/true\n"),
            Self::Boot => {
                format!("{begin}ExecStart=/bin/true\n\n[Install]\nWantedBy=multi-user.target\n")
            }
        }
    }
}

/// How a start is recorded: as scripts do it.
fn record() -> String {
    format!("echo start >> {STARTS} && sync {STARTS}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::script::RECORDS;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn an_action_is_found_again_by_what_its_run_says() {
        for action in Action::ALL {
            assert_eq!(Action::of(action.kind(), &action.to_string()), Some(action));
        }
        assert_eq!(Action::of("unit", "restart chaos.service"), Some(Action::Restart));
        assert_eq!(Action::of(SCRIPT, "restart chaos.service"), None);
        assert_eq!(Action::of("unit", "stop chaos.service"), None);
        assert_eq!(Action::Start.params(), ["unit=chaos.service", "verb=start"]);
    }

    #[test]
    fn each_start_of_the_worker_is_a_line_that_is_no_scripts_record() {
        let records = tempfile::tempdir().unwrap();
        let text = record().replace(RECORDS, &records.path().display().to_string());
        for _ in 0..2 {
            let mut command = Command::new("sh");
            let finished = crate::process::run(command.args(["-c", &text]), Duration::from_secs(60)).unwrap();
            assert!(finished.status.success(), "{}", finished.error_text());
        }
        let name = Path::new(STARTS).file_name().unwrap();
        assert_eq!(std::fs::read_to_string(records.path().join(name)).unwrap(), "start\nstart\n");
        assert!(Unit::Worker.text().contains(&record()));
        assert_eq!(Path::new(STARTS).parent(), Some(Path::new(RECORDS)));
        assert!(!name.to_string_lossy().contains('.'));
    }

    #[test]
    fn only_the_unit_that_is_enabled_says_where_it_belongs() {
        let installs = Unit::ALL.map(|unit| unit.text().contains("[Install]"));
        assert_eq!(installs, [false, true, false]);
    }
}
