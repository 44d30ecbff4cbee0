//! What a script declares that it takes: `flags`, `arguments` and `environment`.

use std::collections::HashSet;

use fleetward_protocol::action::script::{MAX_ARGUMENT, MAX_ARGUMENTS, MAX_VARIABLES, check_variable};
use fleetward_protocol::printable::is_line;

use super::Flag;
use super::fields::{Fields, MAP, SCALAR, text};
use super::problem::{Position, Report};
use super::yaml::{Value, shorten};
use crate::fleet::contract::{FreeArguments, Variable};

/// The longest description of a variable, in bytes.
const MAX_DESCRIPTION: usize = 1000;

/// Reads `flags`: arguments as they are passed, `--option=default`, or `--option=REQUIRED`.
pub(super) fn read_flags(report: &mut Report, fields: &mut Fields<'_>) -> Vec<Flag> {
    let field = fields.child("flags");
    let listed = fields.list(report, "flags");
    if listed.len() > MAX_ARGUMENTS {
        let message = format!("has {} entries, but {MAX_ARGUMENTS} are allowed", listed.len());
        report.error(fields.at(), &field, message);
        return Vec::new();
    }
    let mut flags: Vec<Flag> = Vec::with_capacity(listed.len());
    for (index, (at, text)) in listed.into_iter().enumerate() {
        if text.is_empty() || text.len() > MAX_ARGUMENT || !is_line(&text) {
            let message = format!("has to be one line of 1 to {MAX_ARGUMENT} bytes");
            report.error(at, &format!("{field}[{index}]"), message);
            continue;
        }
        if text.starts_with('=') || text == "--" {
            let message = "has to begin with the flag's name, such as `--dry-run` or `--keep=REQUIRED`";
            report.error(at, &format!("{field}[{index}]"), message);
            continue;
        }
        if text.strip_suffix("=REQUIRED").is_some_and(|flag| flag.contains('=')) {
            let message = "has two `=`; a value to be given is written `--option=REQUIRED`";
            report.error(at, &format!("{field}[{index}]"), message);
            continue;
        }
        let flag = match text.strip_suffix("=REQUIRED") {
            Some(flag) => Flag { flag: flag.to_owned(), requires_value: true },
            None => Flag { flag: text, requires_value: false },
        };
        if !flags.contains(&flag) {
            flags.push(flag);
        }
    }
    flags
}

/// Reads `arguments`: `any` or `none`. When absent, a script that declares flags takes these alone, and one that
/// declares none takes anything.
pub(super) fn read_free_arguments(
    report: &mut Report,
    fields: &mut Fields<'_>,
    flags: &[Flag],
) -> FreeArguments {
    let absent = if flags.is_empty() { FreeArguments::Any } else { FreeArguments::None };
    let Some(entry) = fields.given(report, &["arguments"], SCALAR) else { return absent };
    match &entry.value.value {
        Value::Plain(text) | Value::Quoted(text) if text == "any" => FreeArguments::Any,
        Value::Plain(text) | Value::Quoted(text) if text == "none" => FreeArguments::None,
        _ => {
            let message = format!(
                "has to be `any` (arguments beside the flags) or `none`, but is {}",
                entry.value.describe()
            );
            report.error(entry.value.at, &fields.child("arguments"), message);
            absent
        }
    }
}

/// Reads `environment`: a map from name to `{description, required, secret}`, or a list of names.
pub(super) fn read_environment(report: &mut Report, fields: &mut Fields<'_>) -> Vec<Variable> {
    let field = fields.child("environment");
    let Some(entry) = fields.given(report, &["environment"], MAP) else { return Vec::new() };
    let plain = |name: &str| Variable {
        name: name.to_owned(),
        description: String::new(),
        required: false,
        secret: false,
    };
    let mut variables = Vec::new();
    let mut names = HashSet::new();
    let mut declare = |report: &mut Report, at: Position, field: &str, variable: Variable| {
        match check_variable(&variable.name) {
            // Refused here and not only in a request: a declaration is no way around it.
            Err(message) => report.error(at, field, message),
            Ok(()) if !names.insert(variable.name.clone()) => {
                report.error(at, field, format!("`{}` is declared twice; remove one", variable.name));
            }
            Ok(()) => variables.push(variable),
        }
    };
    match &entry.value.value {
        Value::Map(entries) if entries.len() <= MAX_VARIABLES => {
            for variable in entries {
                let path = format!("{field}.{}", shorten(&variable.key));
                let declared = match &variable.value.value {
                    _ if variable.value.is_null() => Some(plain(&variable.key)),
                    _ => read_variable(report, &path, variable.at, &variable.key, &variable.value),
                };
                if let Some(declared) = declared {
                    declare(report, variable.at, &path, declared);
                }
            }
        }
        Value::List(items) if items.len() <= MAX_VARIABLES => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{field}[{index}]");
                if let Some(name) = text(report, &path, item) {
                    declare(report, item.at, &path, plain(&name));
                }
            }
        }
        Value::Map(_) | Value::List(_) => {
            report.error(entry.at, &field, format!("declares more than {MAX_VARIABLES} variables"));
        }
        Value::Plain(_) | Value::Quoted(_) => {
            let message = format!(
                "has to be a map from name to what it is, or a list of names, but is {}",
                entry.value.describe()
            );
            report.error(entry.value.at, &field, message);
        }
    }
    variables
}

fn read_variable(
    report: &mut Report,
    path: &str,
    at: Position,
    name: &str,
    node: &super::yaml::Node,
) -> Option<Variable> {
    let mut fields = Fields::of(report, path, at, node)?;
    let description = fields.text(report, &["description"]).unwrap_or_default();
    if description.len() > MAX_DESCRIPTION || !is_line(&description) {
        let message = format!("has to be one line of at most {MAX_DESCRIPTION} bytes");
        report.error(at, &fields.child("description"), message);
    }
    let required = fields.boolean(report, "required").unwrap_or(false);
    let secret = fields.boolean(report, "secret").unwrap_or(false);
    fields.finish(report);
    Some(Variable { name: name.to_owned(), description, required, secret })
}
