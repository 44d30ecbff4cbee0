//! `unit write`, `rm` and `revert`: files of units.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fleetward_protocol::action::unit::SETTLE_S;
use fleetward_protocol::action::unit_content::{
    ContentVerb, DropInName, MAX_TEXT, Then, UnitContent, UnitFileName, Values,
};

use crate::action::{self, How};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::input;
use crate::start::TARGETS;

/// Write the file of a unit, or a drop-in of it
#[derive(Debug, Args)]
#[command(after_help = format!("\
The text comes from a file, from standard input (`-`), or as settings: `--set Service.MemoryMax=1G`. The host's own \
`systemd-analyze verify` checks it first. The file that was there is kept beside it, for `fleetward unit revert`. If the unit does not \
come up with it, both are as they were before.

{TARGETS}

Examples:
  fleetward unit write app --file app.service --on 'web-*' --then restart --batch 10% --max-failures 0
  fleetward unit write app --drop-in limits --set Service.MemoryMax=1G --set Service.TasksMax=200 --on all --then try-restart
  fleetward unit write app --file app.service --on web-1 --dry-run"))]
pub(crate) struct Write {
    #[command(flatten)]
    which: Which,
    /// The file that holds the text; `-` is standard input
    #[arg(long, short, value_name = "FILE", required_unless_present = "set", conflicts_with = "set")]
    file: Option<PathBuf>,
    /// A setting; a name that is given several times stands there so often
    #[arg(long, value_name = "SECTION.NAME=VALUE", value_parser = parse_setting)]
    set: Vec<Setting>,
    /// What is done with the unit afterwards; nothing when absent
    #[arg(long, value_name = "VERB")]
    then: Option<ThenChoice>,
    #[command(flatten)]
    how: How,
}

/// Remove or bring back the file of a unit, or a drop-in of it
#[derive(Debug, Args)]
#[command(after_help = format!("\
A unit that is active or enabled, and has no other file, is not removed: stop and disable it first. What was there is kept beside it, \
and `fleetward unit revert` brings it back.

{TARGETS}

Examples:
  fleetward unit rm app --drop-in limits --on all
  fleetward unit revert app --on web-1 --then restart"))]
pub(crate) struct Other {
    #[command(flatten)]
    which: Which,
    /// What is done with the unit afterwards; nothing when absent
    #[arg(long, value_name = "VERB")]
    then: Option<ThenChoice>,
    #[command(flatten)]
    how: How,
}

/// Which file is meant.
#[derive(Debug, Args)]
struct Which {
    /// The unit, or a template such as app@.service; a service when it has no type
    #[arg(value_name = "UNIT")]
    unit: UnitFileName,
    /// A drop-in of this name, in the place of the unit's own file
    #[arg(long, value_name = "NAME")]
    drop_in: Option<DropInName>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ThenChoice {
    Start,
    Restart,
    TryRestart,
    ReloadOrRestart,
}

/// A setting of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    section: String,
    name: String,
    value: String,
}

/// `fleetward unit write`.
pub(super) async fn write(command: Write, app: &App) -> Result<Exit, Failure> {
    let Write { which, file, set, then, how } = command;
    let text = file.map(|file| input::read_text(&file, MAX_TEXT)).transpose()?;
    let asked = UnitContent { text, sections: sections(set), ..content(ContentVerb::Write, which, then) };
    action::carry_out(&asked, how, app).await
}

/// `fleetward unit rm` and `revert`.
pub(super) async fn other(verb: ContentVerb, command: Other, app: &App) -> Result<Exit, Failure> {
    let Other { which, then, how } = command;
    action::carry_out(&content(verb, which, then), how, app).await
}

fn content(verb: ContentVerb, which: Which, then: Option<ThenChoice>) -> UnitContent {
    let Which { unit, drop_in } = which;
    let then = match then {
        None => Then::Nothing,
        Some(ThenChoice::Start) => Then::Start,
        Some(ThenChoice::Restart) => Then::Restart,
        Some(ThenChoice::TryRestart) => Then::TryRestart,
        Some(ThenChoice::ReloadOrRestart) => Then::ReloadOrRestart,
    };
    UnitContent { unit, drop_in, verb, text: None, sections: BTreeMap::new(), then, settle_s: SETTLE_S }
}

fn sections(settings: Vec<Setting>) -> BTreeMap<String, BTreeMap<String, Values>> {
    let mut sections: BTreeMap<String, BTreeMap<String, Values>> = BTreeMap::new();
    for Setting { section, name, value } in settings {
        let values = sections.entry(section).or_default().entry(name).or_insert(Values::Many(Vec::new()));
        if let Values::Many(values) = values {
            values.push(value);
        }
    }
    sections
}

fn parse_setting(text: &str) -> Result<Setting, String> {
    let parsed = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
    let ((section, name), value) = parsed.ok_or("write SECTION.NAME=VALUE, such as Service.MemoryMax=1G")?;
    Ok(Setting { section: section.to_owned(), name: name.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_sections_and_a_name_may_come_again() {
        let given = ["Service.ExecStart=", "Service.ExecStart=/bin/a --x=1.2", "Unit.After=b.service"];
        let given = given.iter().map(|text| parse_setting(text).unwrap()).collect();
        let content = UnitContent {
            sections: sections(given),
            ..content(ContentVerb::Write, Which { unit: "a".parse().unwrap(), drop_in: None }, None)
        };
        assert_eq!(
            content.wanted().unwrap(),
            "[Unit]\nAfter=b.service\n\n[Service]\nExecStart=\nExecStart=/bin/a --x=1.2\n"
        );
        for text in ["Service.MemoryMax", "MemoryMax=1G", ""] {
            assert!(parse_setting(text).unwrap_err().contains("SECTION.NAME=VALUE"));
        }
    }
}
