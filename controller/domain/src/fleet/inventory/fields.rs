//! Takes typed fields out of a YAML map, and reports what is missing, wrong or unknown.

use std::fmt::Display;
use std::str::FromStr;

use super::problem::{Position, Report};
use super::yaml::{Entry, Node, Value, shorten};

/// The longest list of tags, flags and the like.
const MAX_LIST: usize = 1000;

/// How a field without a value is corrected, by what it has to be.
pub(super) const SCALAR: &str = "give it one, or remove the field";
const LIST: &str = "write `[]` for none, or remove the field";
pub(super) const MAP: &str = "write `{}` for none, or remove the field";

/// The fields of one map, each taken at most once.
pub(super) struct Fields<'n> {
    /// The map's own path, such as `links.web-1`.
    path: String,
    /// Where a person looks for the map: its key.
    at: Position,
    entries: Vec<Option<&'n Entry>>,
}

impl<'n> Fields<'n> {
    /// The fields of `node`; `None`, reported, if it is not a map.
    pub(super) fn of(report: &mut Report, path: &str, at: Position, node: &'n Node) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => {
                Some(Self { path: path.to_owned(), at, entries: entries.iter().map(Some).collect() })
            }
            _ => {
                report.error(at, path, format!("has to be a map of fields, but is {}", node.describe()));
                None
            }
        }
    }

    /// As [`Self::take`], for a field that may be absent but not be there without a value: where the value decides
    /// what is in force, a person who wrote the key meant something, and nothing is not the same as none.
    pub(super) fn given(&mut self, report: &mut Report, names: &[&str], none: &str) -> Option<&'n Entry> {
        for slot in &mut self.entries {
            if let Some(entry) =
                slot.take_if(|entry| names.contains(&entry.key.as_str()) && entry.value.is_null())
            {
                let field = format!("{}.{}", self.path, shorten(&entry.key));
                report.error(entry.at, &field, format!("is there, but has no value; {none}"));
            }
        }
        self.take(names)
    }

    /// The entry called by the first of `names` that is there and not null.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<&'n Entry> {
        let mut taken = None;
        for name in names {
            let slot = self.entries.iter_mut().find(|slot| slot.is_some_and(|entry| entry.key == *name));
            let entry = slot.and_then(Option::take);
            taken = taken.or(entry.filter(|entry| !entry.value.is_null()));
        }
        taken
    }

    /// As [`Self::take`], but it stays.
    pub(super) fn peek(&self, names: &[&str]) -> Option<&'n Entry> {
        let found = |name: &&str| {
            self.entries.iter().flatten().find(|entry| entry.key == **name && !entry.value.is_null()).copied()
        };
        names.iter().find_map(found)
    }

    /// A text that has to be there.
    pub(super) fn required_text(
        &mut self,
        report: &mut Report,
        names: &[&str],
    ) -> Option<(&'n Entry, String)> {
        let Some(entry) = self.take(names) else {
            self.missing(report, names);
            return None;
        };
        let text = text(report, &self.child(&entry.key), &entry.value)?;
        if text.trim().is_empty() {
            report.error(entry.at, &self.child(&entry.key), "is required, but is empty");
            return None;
        }
        Some((entry, text))
    }

    /// A text that may be absent.
    pub(super) fn text(&mut self, report: &mut Report, names: &[&str]) -> Option<String> {
        let entry = self.take(names)?;
        text(report, &self.child(&entry.key), &entry.value)
    }

    /// A text that may be absent, parsed; null is told from absent.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        report: &mut Report,
        names: &[&str],
    ) -> Option<T> {
        let entry = self.given(report, names, SCALAR)?;
        self.parse(report, entry)
    }

    /// A text that may be absent or null, which is the same, parsed.
    pub(super) fn parsed_or_null<T: FromStr<Err: Display>>(
        &mut self,
        report: &mut Report,
        names: &[&str],
    ) -> Option<T> {
        let entry = self.take(names)?;
        self.parse(report, entry)
    }

    fn parse<T: FromStr<Err: Display>>(&self, report: &mut Report, entry: &Entry) -> Option<T> {
        let field = self.child(&entry.key);
        let text = text(report, &field, &entry.value)?;
        parse_or_report(report, entry.value.at, &field, &text)
    }

    /// A list of values that may be absent; a single value counts as a list of one.
    pub(super) fn list(&mut self, report: &mut Report, name: &str) -> Vec<(Position, String)> {
        let Some(entry) = self.given(report, &[name], LIST) else { return Vec::new() };
        let field = self.child(name);
        let items = match &entry.value.value {
            Value::List(items) => items.as_slice(),
            Value::Plain(_) | Value::Quoted(_) => std::slice::from_ref(&entry.value),
            Value::Map(_) => {
                report.error(entry.at, &field, "has to be a list, but is a map");
                &[]
            }
        };
        if items.len() > MAX_LIST {
            let message = format!("has {} entries, but {MAX_LIST} are allowed", items.len());
            report.error(entry.at, &field, message);
            return Vec::new();
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match &item.value {
                Value::Plain(text) | Value::Quoted(text) if !item.is_null() => {
                    texts.push((item.at, text.clone()))
                }
                _ => report.error(
                    item.at,
                    &format!("{field}[{index}]"),
                    format!("has to be text, but is {}", item.describe()),
                ),
            }
        }
        texts
    }

    /// A list of values that may be absent, each parsed, repetitions removed.
    pub(super) fn parsed_list<T>(&mut self, report: &mut Report, name: &str) -> Vec<T>
    where
        T: FromStr<Err: Display> + PartialEq,
    {
        let field = self.child(name);
        let mut values = Vec::new();
        for (index, (at, text)) in self.list(report, name).into_iter().enumerate() {
            if let Some(value) = parse_or_report(report, at, &format!("{field}[{index}]"), &text)
                && !values.contains(&value)
            {
                values.push(value);
            }
        }
        values
    }

    /// A boolean that may be absent.
    pub(super) fn boolean(&mut self, report: &mut Report, name: &str) -> Option<bool> {
        let entry = self.given(report, &[name], SCALAR)?;
        let word = match &entry.value.value {
            Value::Plain(text) => text.to_ascii_lowercase(),
            _ => String::new(),
        };
        // `yes`, `no`, `on` and `off` are booleans in YAML 1.1, which the files we take over were written for.
        match word.as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                let message = format!("has to be true or false, but is {}", entry.value.describe());
                report.error(entry.value.at, &self.child(name), message);
                None
            }
        }
    }

    /// The fields of a map inside this one, if it is there.
    pub(super) fn map(&mut self, report: &mut Report, name: &str) -> Option<Fields<'n>> {
        let entry = self.given(report, &[name], MAP)?;
        Fields::of(report, &self.child(name), entry.at, &entry.value)
    }

    /// Reports that none of `names` is there.
    pub(super) fn missing(&self, report: &mut Report, names: &[&str]) {
        if let Some(name) = names.first() {
            report.error(self.at, &self.child(name), "is required, but is missing");
        }
    }

    /// Warns of what nobody took.
    pub(super) fn finish(self, report: &mut Report) {
        for entry in self.entries.iter().flatten() {
            let field = self.child(&entry.key);
            report.warning(entry.at, &field, "is not a field known here; it is ignored");
        }
    }

    /// The path of a field in this map.
    pub(super) fn child(&self, name: &str) -> String {
        format!("{}.{}", self.path, shorten(name))
    }

    /// Where a person looks for the map.
    pub(super) fn at(&self) -> Position {
        self.at
    }
}

/// A text; a number or boolean without quotes is refused, because it may have lost something (`1.10`, `010`).
pub(super) fn text(report: &mut Report, field: &str, node: &Node) -> Option<String> {
    match &node.value {
        Value::Quoted(text) => Some(text.clone()),
        Value::Plain(text) if !looks_typed(text) => Some(text.clone()),
        Value::Plain(_) => {
            let message = format!("has to be text, but is {}; put it in quotes", node.describe());
            report.error(node.at, field, message);
            None
        }
        Value::List(_) | Value::Map(_) => {
            report.error(node.at, field, format!("has to be text, but is {}", node.describe()));
            None
        }
    }
}

/// A whole number within `range`.
pub(super) fn whole(
    report: &mut Report,
    field: &str,
    node: &Node,
    range: std::ops::RangeInclusive<u64>,
) -> Option<u64> {
    if let Value::Plain(text) = &node.value
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = text.parse()
        && range.contains(&number)
    {
        return Some(number);
    }
    let (low, high) = range.into_inner();
    let mut message = format!("has to be a whole number from {low} to {high}, but is {}", node.describe());
    if matches!(&node.value, Value::Quoted(text) if text.parse::<u64>().is_ok()) {
        message.push_str("; remove the quotes");
    }
    report.error(node.at, field, message);
    None
}

/// Parses `text`, or reports why not.
pub(super) fn parse_or_report<T: FromStr<Err: Display>>(
    report: &mut Report,
    at: Position,
    field: &str,
    text: &str,
) -> Option<T> {
    text.parse().map_err(|error: T::Err| report.error(at, field, shorten_message(&error.to_string()))).ok()
}

/// A value of any kind as JSON, typed by the rules of YAML's core schema.
pub(super) fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        _ if node.is_null() => serde_json::Value::Null,
        Value::Quoted(text) => text.clone().into(),
        Value::Plain(text) => plain_json(text),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}

fn plain_json(text: &str) -> serde_json::Value {
    match text {
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>()
        && !text.starts_with('+')
    {
        return number.into();
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && looks_typed(text) => number.into(),
        _ => text.into(),
    }
}

fn looks_typed(text: &str) -> bool {
    let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.parse::<f64>().is_ok();
    number
        || matches!(
            text,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | "" | "~" | "null" | "Null" | "NULL"
        )
}

/// Messages quote hostile text: no control characters reach a terminal or a log.
fn shorten_message(message: &str) -> String {
    message
        .chars()
        .take(400)
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}
