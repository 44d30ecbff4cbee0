//! The typed actions of a chaos run, and the units, files and packages that they act upon.

use std::fmt;
use std::fmt::Write as _;

/// The kind of action that scripts are.
pub const SCRIPT: &str = "script";
/// Where [`Unit::Worker`] records its starts, a line each. No script's record has a name without a dot.
pub const STARTS: &str = "/var/lib/chaos/unit";
/// Where units are installed: not where links are made that mask them (systemd.unit(5)).
pub const UNITS: &str = "/usr/local/lib/systemd/system";
/// Where the file is that is written and removed. Nothing else is there.
pub const FILES: &str = "/etc/chaos";
/// That file's name.
pub const FILE: &str = "settings";
/// Where the drop-in of [`Unit::Tuned`] is. Whoever writes the first one makes the directory.
pub const DROP_INS: &str = "/etc/systemd/system/chaos-tuned.service.d";
/// The drop-in's name, as it is asked for and with what systemd wants behind it.
const DROP_IN: &str = "words";
/// The drop-in's file.
pub const DROP_IN_FILE: &str = "words.conf";
/// The site's name.
pub const SITE: &str = "chaos";
/// The name that the site answers to.
pub const SITE_NAME: &str = "chaos.example.com";
/// The package that is held and let go: each host of a lab has it, and neither an agent nor a fault needs it.
pub const HELD: &str = "iputils-ping";

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
    /// Kind `file`: writes the file, and keeps the one that is there.
    WriteFile(Content),
    /// Kind `file`: removes it, and keeps it.
    RemoveFile,
    /// Kind `unit-content`: writes the drop-in.
    WriteDropIn(Content),
    /// Kind `unit-content`: removes it.
    RemoveDropIn,
    /// Kind `package`: keeps a package as it is.
    Hold,
    /// Kind `package`: lets it go.
    Unhold,
    /// Kind `site`: has the site there, and nginx work with it.
    EnsureSite(Content),
    /// Kind `site`: removes it.
    RemoveSite,
    /// Kind `reboot`: reboots the host if no other run is under way there.
    Reboot,
    /// Kind `reboot`: reboots it in any case.
    RebootWhileBusy,
}

/// What is written: one of two contents, of different sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// The shorter one.
    Short,
    /// The longer one.
    Long,
}

/// What typed actions act upon. No two actions are at work on the same at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A unit.
    Unit(Unit),
    /// The file.
    File,
    /// The drop-in, and the unit that it belongs to.
    DropIn,
    /// The package.
    Package,
    /// The site of nginx.
    Site,
    /// The host itself.
    Host,
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
    /// Does nothing, and nobody starts it. Its drop-in says what it is called.
    Tuned,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Restart,
        Self::Start,
        Self::Enable,
        Self::Disable,
        Self::Mask,
        Self::Unmask,
        Self::WriteFile(Content::Short),
        Self::WriteFile(Content::Long),
        Self::RemoveFile,
        Self::WriteDropIn(Content::Short),
        Self::WriteDropIn(Content::Long),
        Self::RemoveDropIn,
        Self::Hold,
        Self::Unhold,
        Self::EnsureSite(Content::Short),
        Self::EnsureSite(Content::Long),
        Self::RemoveSite,
        Self::Reboot,
        Self::RebootWhileBusy,
    ];

    /// Its kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Restart | Self::Start => "unit",
            Self::Enable | Self::Disable | Self::Mask | Self::Unmask => "unit-file",
            Self::WriteFile(_) | Self::RemoveFile => "file",
            Self::WriteDropIn(_) | Self::RemoveDropIn => "unit-content",
            Self::Hold | Self::Unhold => "package",
            Self::EnsureSite(_) | Self::RemoveSite => "site",
            Self::Reboot | Self::RebootWhileBusy => "reboot",
        }
    }

    /// What it does, in the word of its kind: its parameter `verb`, where it has one.
    const fn verb(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Mask => "mask",
            Self::Unmask => "unmask",
            Self::WriteFile(_) | Self::WriteDropIn(_) => "write",
            Self::RemoveFile | Self::RemoveDropIn | Self::RemoveSite => "remove",
            Self::EnsureSite(_) => "ensure",
            Self::Reboot | Self::RebootWhileBusy => "reboot",
            Self::Hold => "hold",
            Self::Unhold => "unhold",
        }
    }

    /// What it acts upon.
    pub const fn object(self) -> Object {
        match self {
            Self::Restart | Self::Start => Object::Unit(Unit::Worker),
            Self::Enable | Self::Disable => Object::Unit(Unit::Boot),
            Self::Mask | Self::Unmask => Object::Unit(Unit::Masked),
            Self::WriteFile(_) | Self::RemoveFile => Object::File,
            Self::WriteDropIn(_) | Self::RemoveDropIn => Object::DropIn,
            Self::Hold | Self::Unhold => Object::Package,
            Self::EnsureSite(_) | Self::RemoveSite => Object::Site,
            Self::Reboot | Self::RebootWhileBusy => Object::Host,
        }
    }

    /// What it writes, where it writes something.
    pub fn content(self) -> Option<String> {
        match self {
            Self::WriteFile(content) => Some(content.of_file()),
            Self::WriteDropIn(content) => Some(content.of_drop_in()),
            _ => None,
        }
    }

    /// Its parameters, for the command line.
    pub fn params(self) -> Vec<String> {
        let verb = format!("verb={}", self.verb());
        match (self.object(), self.content()) {
            (Object::Unit(unit), _) => vec![format!("unit={}", unit.name()), verb],
            (Object::File, content) => {
                let path = format!("path={FILES}/{FILE}");
                let state = if content.is_some() { "state=present" } else { "state=absent" };
                let content = content.map(|content| format!("content={content}"));
                [path, state.to_owned(), "backup=true".to_owned()].into_iter().chain(content).collect()
            }
            (Object::DropIn, content) => {
                let unit = format!("unit={}", Unit::Tuned.name());
                let text = content.map(|content| format!("text={content}"));
                [unit, format!("drop_in={DROP_IN}"), verb].into_iter().chain(text).collect()
            }
            (Object::Package, _) => vec![verb, format!("names={HELD}")],
            (Object::Host, _) => vec![format!("while_busy={}", self == Self::RebootWhileBusy)],
            (Object::Site, _) => {
                let described = match self {
                    Self::EnsureSite(content) => vec![
                        format!("server_names={SITE_NAME}"),
                        format!("locations:={}", content.locations()),
                        "probe:={}".to_owned(),
                    ],
                    _ => Vec::new(),
                };
                [format!("name={SITE}"), verb].into_iter().chain(described).collect()
            }
        }
    }
}

impl fmt::Display for Action {
    /// As the controller shows it: not with what is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.verb();
        match self.object() {
            Object::Unit(unit) => write!(f, "{verb} {}", unit.name()),
            Object::File => write!(f, "{verb} {FILES}/{FILE}"),
            Object::DropIn => write!(f, "{verb} {} ({DROP_IN})", Unit::Tuned.name()),
            Object::Package => write!(f, "{verb} {HELD}"),
            Object::Host => f.write_str(verb),
            Object::Site => write!(f, "{verb} site {SITE}"),
        }
    }
}

impl Content {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Short, Self::Long];

    const fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }

    /// So many lines, each of which says where it belongs: a part of one is no beginning of the other.
    fn lines(self, before: &str) -> String {
        let count = match self {
            Self::Short => 450,
            Self::Long => 700,
        };
        let mut lines = String::new();
        for number in 1..=count {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{before}{} {number:05}", self.word());
        }
        lines
    }

    /// As the file has it: some 10 KiB.
    pub fn of_file(self) -> String {
        self.lines("line of the ")
    }

    /// As the drop-in has it. What systemd takes from it stands at its end: half of it says nothing.
    pub fn of_drop_in(self) -> String {
        format!("{}[Unit]\nDescription={}\n", self.lines("# line of the "), self.description())
    }

    /// What the site answers, the first of them to a request for `/`.
    pub fn answers(self) -> Vec<String> {
        // Less than the 128 locations that a site may have.
        let count = match self {
            Self::Short => 60,
            Self::Long => 100,
        };
        (1..=count).map(|number| format!("answer of the {} {number:05}", self.word())).collect()
    }

    /// The site's locations, one for each answer.
    fn locations(self) -> serde_json::Value {
        let answers = self.answers().into_iter().enumerate();
        let locations = answers.map(|(at, body)| {
            let path = if at == 0 { "/".to_owned() } else { format!("/{at}") };
            serde_json::json!({"path": path, "match": "exact", "reply": {"status": 200, "body": body}})
        });
        locations.collect()
    }

    /// What [`Unit::Tuned`] is called with it.
    pub fn description(self) -> String {
        format!("A unit with the {} drop-in", self.word())
    }
}

impl Object {
    /// The action that leaves it as `prepare` does; `None` where nothing of it is looked at in the end.
    pub const fn initially(self) -> Option<Action> {
        match self {
            Self::Unit(_) | Self::Host => None,
            Self::File => Some(Action::RemoveFile),
            Self::DropIn => Some(Action::RemoveDropIn),
            Self::Package => Some(Action::Unhold),
            Self::Site => Some(Action::RemoveSite),
        }
    }
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Worker, Self::Boot, Self::Masked, Self::Tuned];

    /// The unit's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "chaos.service",
            Self::Boot => "chaos-boot.service",
            Self::Masked => "chaos-masked.service",
            Self::Tuned => "chaos-tuned.service",
        }
    }

    /// What it is called by its own file.
    pub const DESCRIPTION: &'static str = "A unit of the chaos run";

    /// The unit's file.
    pub fn text(self) -> String {
        // Started as often as operators ask for: the limit of systemd is not what is tried here.
        let begin = format!(
            "[Unit]\nDescription={}\nStartLimitIntervalSec=0\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n",
            Self::DESCRIPTION
        );
        match self {
            Self::Worker => format!("{begin}ExecStart=/bin/sh -c '{} && sleep 1'\n", record()),
            Self::Masked | Self::Tuned => format!("{begin}ExecStart=/bin/true\n"),
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

    /// As the host would parse them, and with the words that the controller shows.
    #[test]
    fn parameters_are_those_of_the_kind_and_the_run_is_called_so() {
        use fleetward_protocol::action::{Action as Asked, ActionRequest};

        for action in Action::ALL {
            let mut params = serde_json::Map::new();
            for param in action.params() {
                let (name, value) = param.split_once('=').unwrap();
                if let Some(name) = name.strip_suffix(':') {
                    params.insert(name.to_owned(), serde_json::from_str(value).unwrap());
                    continue;
                }
                let value = match name {
                    "backup" | "while_busy" => value.parse::<bool>().unwrap().into(),
                    "names" | "server_names" => vec![value].into(),
                    _ => value.into(),
                };
                params.insert(name.to_owned(), value);
            }
            let params = serde_json::Value::Object(params).to_string();
            let request = ActionRequest { kind: action.kind().into(), params };
            let parsed = Asked::parse(&request).unwrap();
            assert_eq!(parsed.subject().as_str(), action.to_string());
        }
        assert_eq!(Action::Start.params(), ["unit=chaos.service", "verb=start"]);
        assert_eq!(Action::RemoveSite.params(), ["name=chaos", "verb=remove"]);
        assert_eq!(Action::RemoveFile.params(), ["path=/etc/chaos/settings", "state=absent", "backup=true"]);
    }

    #[test]
    fn contents_are_told_apart_by_their_size_and_a_part_of_one_is_none() {
        for (short, long) in [
            (Content::Short.of_file(), Content::Long.of_file()),
            (Content::Short.of_drop_in(), Content::Long.of_drop_in()),
        ] {
            assert!((8 << 10..16 << 10).contains(&short.len()), "{}", short.len());
            assert!(short.len() + 1024 < long.len() && long.len() < 32 << 10, "{}", long.len());
            assert_eq!(short.lines().zip(long.lines()).filter(|(a, b)| a == b && *a != "[Unit]").count(), 0);
        }
        for content in Content::ALL {
            let text = content.of_drop_in();
            assert!(text.ends_with(&format!("[Unit]\nDescription={}\n", content.description())));
            assert_ne!(content.description(), Unit::DESCRIPTION);
        }
        let (short, long) = (Content::Short.answers(), Content::Long.answers());
        assert!(short.len() + 8 < long.len() && !short.iter().any(|answer| long.contains(answer)));
        assert_eq!(DROP_IN_FILE.strip_suffix(".conf"), Some(DROP_IN));
        assert!(DROP_INS.ends_with(&format!("/{}.d", Unit::Tuned.name())));
    }

    #[test]
    fn what_is_looked_at_in_the_end_has_an_action_that_is_its_beginning() {
        for action in Action::ALL {
            let object = action.object();
            assert!(object.initially().is_none_or(|initially| initially.object() == object));
            assert_eq!(object.initially().is_none(), matches!(object, Object::Unit(_) | Object::Host));
        }
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
        assert_eq!(installs, [false, true, false, false]);
    }
}
