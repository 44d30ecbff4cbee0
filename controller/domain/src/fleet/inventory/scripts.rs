//! `scripts.yaml`: the scripts and their content.
//!
//! Shapes: `scripts` as a map from id to entry, and as a list whose entries carry `id`. The content comes from
//! the file at `path`, or from an inline `command`.

use std::collections::HashMap;
use std::time::Duration;

use fleetward_protocol::action::script::MAX_CONTENT;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::ScriptName;

use super::content::shell_word;
use super::declaration;
use super::fields::{Fields, SCALAR, parse_or_report, whole};
use super::problem::{Position, Report};
use super::yaml::{Entry, Node, Value, shorten};
use super::{Found, InventoryScript, MAX_SCRIPTS, MAX_SCRIPTS_TOTAL, RepoPath};

/// The longest time a script may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The first line given to an inline `command` that has none.
const SHEBANG: &str = "#!/bin/bash\n";
/// The longest title or description, in bytes.
const MAX_TEXT: usize = 8192;

/// Reads the scripts; what is wrong is reported.
pub(super) fn read(
    report: &mut Report,
    document: &Node,
    files: &dyn Fn(&RepoPath, usize) -> Found,
) -> Vec<InventoryScript> {
    let Value::Map(top) = &document.value else {
        let message = format!("has to be a map with the key `scripts`, but is {}", document.describe());
        report.error(document.at, "", message);
        return Vec::new();
    };
    let mut reading = Reading { files, total: 0, names: HashMap::new(), scripts: Vec::new() };
    let mut known = false;
    for entry in top {
        match (entry.key.as_str(), &entry.value.value) {
            ("scripts", Value::Map(entries)) => {
                known = true;
                for script in entries {
                    let path = format!("scripts.{}", shorten(&script.key));
                    let name = parse_or_report(report, script.at, &path, &script.key);
                    if let Some(fields) = Fields::of(report, &path, script.at, &script.value) {
                        reading.add(report, fields, name);
                    }
                }
            }
            ("scripts", Value::List(items)) => {
                known = true;
                for (index, item) in items.iter().enumerate() {
                    let Some(mut fields) = Fields::of(report, &format!("scripts[{index}]"), item.at, item)
                    else {
                        continue;
                    };
                    let name = fields.required_text(report, &["id"]).and_then(|(id, text)| {
                        parse_or_report(report, id.value.at, &fields.child("id"), &text)
                    });
                    reading.add(report, fields, name);
                }
            }
            ("scripts", _) => {
                known = true;
                let mut message =
                    format!("has to be a map from id to script, but is {}", entry.value.describe());
                if entry.value.is_null() {
                    message.push_str("; no scripts are written `scripts: {}`");
                }
                report.error(entry.at, "scripts", message);
            }
            (key, _) => report.warning(entry.at, &shorten(key), "is not a field known here; it is ignored"),
        }
    }
    if !known {
        report.error(
            document.at,
            "scripts",
            "is required, but is missing; no scripts are written `scripts: {}`",
        );
    }
    let mut scripts = reading.scripts;
    if scripts.len() > MAX_SCRIPTS {
        let message = format!("holds {} scripts, but {MAX_SCRIPTS} are allowed", scripts.len());
        report.error(document.at, "scripts", message);
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    scripts
}

struct Reading<'f> {
    files: &'f dyn Fn(&RepoPath, usize) -> Found,
    total: usize,
    names: HashMap<ScriptName, u32>,
    scripts: Vec<InventoryScript>,
}

impl Reading<'_> {
    fn add(&mut self, report: &mut Report, mut fields: Fields<'_>, name: Option<ScriptName>) {
        let at = fields.at();
        if let Some(name) = &name
            && let Some(line) = self.names.insert(name.clone(), at.line)
        {
            report.error(at, &fields.child("id"), format!("`{name}` is already in line {line}; remove one"));
        }
        let title = long_text(report, &mut fields, "name");
        let description = long_text(report, &mut fields, "description");
        let content = self.read_content(report, &mut fields);
        let emoji = fields.text(report, &["emoji"]).unwrap_or_default().chars().take(16).collect();
        let flags = declaration::read_flags(report, &mut fields);
        let free_arguments = declaration::read_free_arguments(report, &mut fields, &flags);
        let environment = declaration::read_environment(report, &mut fields);
        let estimated = fields
            .given(report, &["estimatedDuration"], SCALAR)
            .and_then(|entry| read_duration(report, &fields.child("estimatedDuration"), entry));
        let timeout = fields
            .given(report, &["timeout"], SCALAR)
            .and_then(|entry| read_duration(report, &fields.child("timeout"), entry));
        let user = fields.parsed(report, &["user"]);
        let users = fields.parsed_list(report, "users");
        let resources = fields.parsed_list(report, "resources");
        let tags = fields.parsed_list(report, "tags");
        fields.finish(report);
        if let (Some(name), Some(title), Some(description), Some((path, content))) =
            (name, title, description, content)
        {
            let digest = Digest::of(&content);
            self.scripts.push(InventoryScript {
                name,
                title,
                description,
                path,
                emoji,
                flags,
                free_arguments,
                environment,
                estimated,
                timeout,
                user,
                users,
                resources,
                tags,
                digest,
                content,
                line: at.line,
            });
        }
    }

    fn read_content(
        &mut self,
        report: &mut Report,
        fields: &mut Fields<'_>,
    ) -> Option<(Option<RepoPath>, Vec<u8>)> {
        let command = fields.take(&["command"]);
        let path = match (fields.take(&["path"]), command) {
            (Some(path), None) => path,
            (Some(path), Some(_)) => {
                report.error(path.at, &fields.child("path"), "stands beside `command`; keep one of them");
                return None;
            }
            (None, Some(command)) => {
                let field = fields.child("command");
                let text = super::fields::text(report, &field, &command.value)?;
                let text = if text.starts_with("#!") { text } else { format!("{SHEBANG}{text}") };
                let content = self.check_content(report, command.value.at, &field, text.into_bytes())?;
                return Some((None, content));
            }
            (None, None) => {
                fields.missing(report, &["path"]);
                return None;
            }
        };
        let field = fields.child("path");
        let at = path.value.at;
        let text = super::fields::text(report, &field, &path.value)?;
        let path: RepoPath = match text.parse() {
            Ok(path) => path,
            Err(error) => {
                report.error(at, &field, format!("`{}` {error}", shorten(&text)));
                return None;
            }
        };
        let refusal = match (self.files)(&path, MAX_CONTENT) {
            Found::File { content, executable } => {
                let content = self.check_content(report, at, &field, content)?;
                if !executable {
                    let word = shell_word(path.as_str());
                    let message = format!(
                        "{path} is not executable in git (run: git update-index --chmod=+x -- {word})"
                    );
                    report.warning(at, &field, message);
                }
                return Some((Some(path), content));
            }
            Found::Missing => format!("{path} is not in the repository"),
            Found::TooLarge { size } => too_large(&path, size),
            Found::NotAFile(what) => format!("{path} is {what}, but a script has to be a regular file"),
            Found::Unreadable(detail) => format!("{path} cannot be read from the repository: {detail}"),
        };
        report.error(at, &field, refusal);
        None
    }

    fn check_content(
        &mut self,
        report: &mut Report,
        at: Position,
        field: &str,
        content: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let refusal = super::content::refuse(&content).or_else(|| {
            self.total = self.total.saturating_add(content.len());
            (self.total > MAX_SCRIPTS_TOTAL)
                .then(|| format!("brings all scripts together above {MAX_SCRIPTS_TOTAL} bytes"))
        });
        if let Some(refusal) = refusal {
            report.error(at, field, refusal);
            return None;
        }
        if let Some(doubt) = super::content::doubt(&content) {
            report.warning(at, field, doubt);
        }
        Some(content)
    }
}

fn too_large(path: &RepoPath, size: u64) -> String {
    format!("{path} is {size} bytes long, but {MAX_CONTENT} are allowed")
}

/// Whole seconds, or text with a unit: `90s`, `5m`, `2h`.
fn read_duration(report: &mut Report, field: &str, entry: &Entry) -> Option<Duration> {
    let (Value::Plain(text) | Value::Quoted(text)) = &entry.value.value else {
        report.error(entry.at, field, format!("has to be seconds, but is {}", entry.value.describe()));
        return None;
    };
    let unit = text.char_indices().last().filter(|(_, c)| c.is_ascii_alphabetic());
    let Some((split, unit)) = unit else {
        return whole(report, field, &entry.value, 1..=MAX_TIMEOUT.as_secs()).map(Duration::from_secs);
    };
    let seconds = match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let digits = &text[..split];
    let number = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let span =
        number.zip(seconds).and_then(|(number, unit)| number.checked_mul(unit)).map(Duration::from_secs);
    let valid = span.filter(|span| !span.is_zero() && *span <= MAX_TIMEOUT);
    if valid.is_none() {
        let message = format!(
            "has to be whole seconds or a span such as 90s, 5m or 2h, up to 30 days, but is {}",
            entry.value.describe()
        );
        report.error(entry.value.at, field, message);
    }
    valid
}

fn long_text(report: &mut Report, fields: &mut Fields<'_>, name: &str) -> Option<String> {
    let (entry, text) = fields.required_text(report, &[name])?;
    if text.len() > MAX_TEXT || text.contains(|c: char| c.is_control() && c != '\n') {
        let message = format!("has to be text of at most {MAX_TEXT} bytes without control characters");
        report.error(entry.value.at, &fields.child(name), message);
        return None;
    }
    Some(text.trim().to_owned())
}
