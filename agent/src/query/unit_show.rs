//! Shows a unit: its state, its files, its dependencies and its properties.
//!
//! What it shows every user of the host may see, by systemctl(1) or by reading the files; a file that is kept from some of them
//! is named and not shown.

use std::path::Path;

use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::query::unit_show::{Part, Scalar, UnitPart, UnitShow};
use fleetward_protocol::text::{Line, Text, Word};
use fleetward_protocol::time::Timestamp;

use super::look::Look;
use super::teller::{Stop, Teller};
use super::units::problem;
use crate::link::chain;
use crate::platform::files;
use crate::platform::systemd::show::{Plain, Properties};
use crate::platform::systemd::units::Units;

/// The largest file that is shown, in bytes, and the most files.
const MAX_FILE: u64 = 256 << 10;
const MAX_FILES: usize = 64;
/// What the units or lines of an item may take, in JSON.
const MAX_LIST: usize = 5 << 10;
/// The longest line that is shown, in bytes: with each of its characters escaped it fits into an item.
const MAX_LINE: usize = 2400;

/// What is told about a unit, by the names that `units` has for it, and what systemd calls it.
const ABOUT: [(&str, &str); 15] = [
    ("name", "Id"),
    ("description", "Description"),
    ("load", "LoadState"),
    ("active", "ActiveState"),
    ("sub", "SubState"),
    ("file", "UnitFileState"),
    ("result", "Result"),
    ("main_pid", "MainPID"),
    ("since", "StateChangeTimestamp"),
    ("memory", "MemoryCurrent"),
    ("cpu_ms", "CPUUsageNSec"),
    ("tasks", "TasksCurrent"),
    ("restarts", "NRestarts"),
    ("needs_daemon_reload", "NeedDaemonReload"),
    ("status", "StatusText"),
];
/// What names other units (systemd.unit(5), org.freedesktop.systemd1(5)).
const DEPENDENCIES: [&str; 27] = [
    "Requires",
    "Requisite",
    "Wants",
    "BindsTo",
    "PartOf",
    "Upholds",
    "RequiredBy",
    "RequisiteOf",
    "WantedBy",
    "BoundBy",
    "ConsistsOf",
    "UpheldBy",
    "Conflicts",
    "ConflictedBy",
    "Before",
    "After",
    "OnFailure",
    "OnFailureOf",
    "OnSuccess",
    "OnSuccessOf",
    "Triggers",
    "TriggeredBy",
    "PropagatesReloadTo",
    "ReloadPropagatedFrom",
    "PropagatesStopTo",
    "StopPropagatedFrom",
    "SliceOf",
];

impl Look for UnitShow {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let bus = Units::connect().await.map_err(problem)?;
        let properties = bus.show(&self.unit).await.map_err(problem)?;
        let is_inactive = properties.text("ActiveState") == Some("inactive");
        if properties.text("LoadState") == Some("not-found") && is_inactive {
            let unit = &self.unit;
            return Err(Stop::failed(format_args!(
                "this host has no unit `{unit}`; `fleetward unit list` shows what it has"
            )));
        }
        let id = properties.text("Id").unwrap_or(self.unit.as_str());
        if !teller.allowed().allows(&Object::named(Class::Units, id)) {
            let unit = &self.unit;
            return Err(Stop::failed(format_args!(
                "`{unit}` is another name of `{id}`, which the owner of this host does not allow; see policy.rules in agent.toml there"
            )));
        }
        if self.wants(Part::About) {
            for (name, property) in ABOUT {
                if let Some(part) = about(name, property, &properties) {
                    teller.item(&part).await?;
                }
            }
        }
        if self.wants(Part::File) {
            show_files(&properties, teller).await?;
        }
        if self.wants(Part::Dependency) {
            for name in DEPENDENCIES {
                let is_allowed = |unit: &&String| teller.allowed().allows(&Object::named(Class::Units, unit));
                let units: Vec<Word> =
                    properties.texts(name).iter().filter(is_allowed).map(Text::of).collect();
                for (from, units) in portions(units) {
                    let part = UnitPart { units, from: Some(from), ..UnitPart::new(Part::Dependency, name) };
                    teller.item(&part).await?;
                }
            }
        }
        if self.wants(Part::Property) {
            let is_told = |name: &str| {
                DEPENDENCIES.contains(&name) || ABOUT.iter().any(|(_, property)| *property == name)
            };
            for (name, value) in properties.0.iter().filter(|(name, _)| !is_told(name)) {
                teller.item(&property(name, value)).await?;
            }
        }
        Ok(())
    }
}

fn about(name: &str, property: &str, properties: &Properties) -> Option<UnitPart> {
    let part = UnitPart::new(Part::About, name);
    let value = properties.0.get(property)?;
    Some(match (name, value) {
        ("since", Plain::Number(at)) => UnitPart { at: Some(microseconds(*at)), ..part },
        ("cpu_ms", Plain::Number(time)) => UnitPart { value: Some(Scalar::Number(time / 1_000_000)), ..part },
        ("main_pid", Plain::Number(0)) => return None,
        ("needs_daemon_reload", value) if *value == Plain::Text("no".to_owned()) => return None,
        (_, value) => valued(part, value),
    })
}

fn property(name: &str, value: &Plain) -> UnitPart {
    let part = UnitPart::new(Part::Property, name);
    match value {
        Plain::Number(at) if name.ends_with("Timestamp") || name.ends_with("USecRealtime") => {
            UnitPart { at: Some(microseconds(*at)), ..part }
        }
        value => valued(part, value),
    }
}

fn valued(part: UnitPart, value: &Plain) -> UnitPart {
    let text = |text: &str| {
        let told = Text::of(text);
        let truncated = told.len() < text.len();
        UnitPart { value: Some(Scalar::Text(told)), truncated, ..part.clone() }
    };
    match value {
        Plain::Number(number) => UnitPart { value: Some(Scalar::Number(*number)), ..part },
        Plain::Text(value) => text(value),
        Plain::Texts(values) => text(&values.join(" ")),
    }
}

fn microseconds(at: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(at / 1000).unwrap_or(i64::MAX))
}

/// Tells the files of a unit: its own, and those that are put on top of it.
async fn show_files(properties: &Properties, teller: &mut Teller<UnitShow>) -> Result<(), Stop> {
    let own = ["FragmentPath", "SourcePath"].into_iter().filter_map(|name| properties.text(name));
    let paths = own.chain(properties.texts("DropInPaths").iter().map(String::as_str));
    for (number, path) in (1..).zip(paths.take(MAX_FILES)) {
        let part = UnitPart { file: Some(number), ..UnitPart::new(Part::File, path) };
        let content = match files::read_public(Path::new(path), MAX_FILE) {
            Ok(content) => content,
            Err(error) => {
                let why = Text::<1024>::of(format_args!("not shown: {}", chain(&error)));
                teller.item(&UnitPart { value: Some(Scalar::Text(Text::of(why))), ..part }).await?;
                continue;
            }
        };
        let mut truncated = false;
        let lines = String::from_utf8_lossy(&content);
        let line = |line: &str| {
            let told: Text<MAX_LINE> = Text::of(line);
            truncated |= told.len() < line.len();
            Text::of(told)
        };
        let lines: Vec<Line> = lines.lines().map(line).collect();
        if lines.is_empty() {
            teller.item(&part).await?;
        }
        for (from, lines) in portions(lines) {
            teller.item(&UnitPart { lines, from: Some(from), truncated, ..part.clone() }).await?;
        }
    }
    Ok(())
}

/// Parts of a list that fit into an item each, with the number of the first of them, from 1.
fn portions<const MAX: usize>(all: Vec<Text<MAX>>) -> Vec<(u32, Vec<Text<MAX>>)> {
    let (mut portions, mut size) = (Vec::<(u32, Vec<Text<MAX>>)>::new(), 0);
    for (number, text) in (1..).zip(all) {
        // Quotation marks, a comma, and a backslash before what needs one.
        let more = 3 + text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        size += more;
        match portions.last_mut() {
            Some((_, last)) if size <= MAX_LIST => last.push(text),
            _ => {
                portions.push((number, vec![text]));
                size = more;
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::query::MAX_ITEM;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever stands in a file: no line is lost, each item fits.
        #[test]
        fn what_is_long_is_told_in_portions(lines in prop::collection::vec("[a\"\\\\]{0,2400}|.{0,90}", 0..12)) {
            let lines: Vec<Line> = lines.iter().map(|line| Text::of(Text::<MAX_LINE>::of(line))).collect();
            let mut all = Vec::new();
            for (from, lines) in portions(lines.clone()) {
                prop_assert_eq!(from as usize, all.len() + 1);
                all.extend(lines.iter().cloned());
                let name = "\"".repeat(1000);
                let part = UnitPart { lines, from: Some(from), file: Some(64), ..UnitPart::new(Part::File, name) };
                prop_assert!(serde_json::to_string(&part).unwrap().len() <= MAX_ITEM);
            }
            prop_assert_eq!(all, lines);
        }
    }

    #[test]
    fn values_are_told_by_the_names_that_lists_have() {
        let properties = Properties(
            [
                ("StateChangeTimestamp", Plain::Number(1_700_000_000_000_000)),
                ("CPUUsageNSec", Plain::Number(2_500_000)),
                ("MainPID", Plain::Number(0)),
                ("ActiveState", Plain::Text("active".to_owned())),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        );
        let told = |name, property| about(name, property, &properties);
        assert_eq!(
            told("since", "StateChangeTimestamp").unwrap().at,
            Some(Timestamp::from_millis(1_700_000_000_000))
        );
        assert_eq!(told("cpu_ms", "CPUUsageNSec").unwrap().value, Some(Scalar::Number(2)));
        assert_eq!((told("main_pid", "MainPID"), told("memory", "MemoryCurrent")), (None, None));
        let long = property("Environment", &Plain::Texts(vec!["x".repeat(3000); 2]));
        assert!(long.truncated && matches!(&long.value, Some(Scalar::Text(text)) if text.len() == 3800));
    }
}
