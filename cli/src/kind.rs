//! `kind`: what can be done to a host, or asked of one; and how that is written on a command line.

pub(crate) mod columns;
pub(crate) mod detail;
mod usage;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use fleetward_api::work::kind::params::{self, Assignment};
use fleetward_api::work::kind::schema::{Field, Shape, description, fields};
use fleetward_api::work::kind::{Family, Kind};
use fleetward_protocol::suggest::nearest;
use serde_json::{Map, Value};

use self::usage::{meant, usage};
use crate::app::App;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::input;
use crate::render::table::{Sheet, Table};
use crate::render::time::span;
use crate::render::{Out, neutral, value, words};

/// The longest file of parameters, in bytes: no request is longer.
const MAX_FILE: usize = 4 << 20;

/// Kinds of actions and queries: list, show
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what can be done to hosts, and asked of them
    List(List),
    /// Show what a kind takes and what it answers
    Show(Show),
}

/// List what can be done to hosts, and asked of them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward kind list
  fleetward kind list --family query
  fleetward kind list --output json | jq -r '.[].name'")]
pub(crate) struct List {
    /// Only kinds of this family
    #[arg(long)]
    family: Option<FamilyChoice>,
}

/// Show what a kind takes and what it answers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward kind show unit
  fleetward kind show unit --output json | jq .parameters")]
pub(crate) struct Show {
    /// The kind's name
    #[arg(value_name = "KIND")]
    kind: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FamilyChoice {
    /// What changes a host: `fleetward do`
    Action,
    /// What looks at one: `fleetward ask`
    Query,
}

/// A kind and its parameters, as they are typed.
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The kind; `fleetward kind list` lists them
    #[arg(value_name = "KIND")]
    pub(crate) kind: String,
    /// Its parameters, as below; `fleetward kind show KIND` lists them
    #[arg(value_name = "KEY=VALUE")]
    params: Vec<String>,
    /// Read parameters from a file with a JSON object, or from standard input with `-`; those on the command line go
    /// before them
    #[arg(long = "params", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What help texts say of parameters.
pub(crate) const FORMS: &str = "\
Parameters: KEY=VALUE, with values of the type that the kind declares. A list is given value by value, with the key \
repeated; names with values as KEY.NAME=VALUE; whatever is deeper as KEY:=JSON. What stands on a command line can be \
read by others on the same machine: give secrets with --params.";

impl Call {
    /// The parameters that it gives to a kind.
    ///
    /// # Errors
    /// If they are not as the kind declares them; the text says all that is wrong, and how it is written.
    pub(crate) fn params(&self, known: &Known) -> Result<Map<String, Value>, Failure> {
        let base = self.file.as_deref().map(read).transpose()?.unwrap_or_default();
        let kind = &known.kind;
        let fields = fields(&kind.parameters);
        self.build(&fields, base, known).map_err(|problems| {
            Failure::Usage(format!(
                "{}\nUsage: {}\nExample: {}\n`fleetward kind show {}` tells what each means.",
                problems.join("\n"),
                line(kind, &usage(&fields)),
                line(kind, &example(&fields)),
                kind.name
            ))
        })
    }

    fn build(
        &self,
        fields: &[Field],
        base: Map<String, Value>,
        known: &Known,
    ) -> Result<Map<String, Value>, Vec<String>> {
        let (mut given, mut problems) = (Vec::new(), Vec::new());
        for word in &self.params {
            match word.parse::<Assignment>() {
                Ok(assignment) => given.push(assignment),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            let elsewhere = given.iter().filter_map(|given| known.elsewhere(fields, given));
            let elsewhere: Vec<String> = elsewhere.collect();
            return params::build(fields, base, &given)
                .map_err(|problems| problems.into_iter().chain(elsewhere).collect());
        }
        if let Some(words) = meant(fields, &self.params) {
            problems.push(format!("Did you mean: {}", line(&known.kind, &words::typed(&words))));
        }
        Err(problems)
    }
}

/// A kind, and the others of its family.
#[derive(Debug)]
pub(crate) struct Known {
    /// The kind.
    pub(crate) kind: Kind,
    others: Vec<Kind>,
}

impl Known {
    /// Which other kind takes what is given, where this one knows the name and not the word.
    fn elsewhere(&self, own: &[Field], given: &Assignment) -> Option<String> {
        let (name, word) = given.text()?;
        let takes = |fields: &[Field]| {
            let field = fields.iter().find(|field| field.name == name)?;
            let Shape::Choice(choices) = &field.shape else { return None };
            Some(choices.iter().any(|choice| choice == word))
        };
        if takes(own)? {
            return None;
        }
        let other = self.others.iter().find(|other| takes(&fields(&other.parameters)) == Some(true))?;
        let command = format!("fleetward {} {}", verb(other.family), other.name);
        Some(format!("`{name}={word}` is for another kind: `{command}`"))
    }
}

/// The kind of `family` that is called `name`.
///
/// # Errors
/// If there is none; the text says what was perhaps meant.
pub(crate) async fn get(app: &App, name: &str, family: Family) -> Result<Known, Failure> {
    let kinds = app.collect::<Kind>("kinds", &(), None).await?;
    let others = kinds.iter().filter(|kind| kind.family == family && kind.name != name).cloned().collect();
    Ok(Known { kind: find(kinds, name, Some(family))?, others })
}

fn find(kinds: Vec<Kind>, name: &str, family: Option<Family>) -> Result<Kind, Failure> {
    let is_wanted = |kind: &Kind| family.is_none_or(|family| kind.family == family);
    let what = family.map_or("kind", noun);
    if let Some(at) = kinds.iter().position(|kind| kind.name == name && is_wanted(kind)) {
        return kinds
            .into_iter()
            .nth(at)
            .ok_or_else(|| Failure::Usage(format!("there is no {what} `{name}`")));
    }
    if let Some(other) = kinds.iter().find(|kind| kind.name == name) {
        let article = if other.family == Family::Action { "an" } else { "a" };
        let command = format!("fleetward {} {name}", verb(other.family));
        let text = format!("`{name}` is {article} {}: use `{command}`", noun(other.family));
        return Err(Failure::Usage(text));
    }
    let meant = nearest(name, kinds.iter().filter(|kind| is_wanted(kind)).map(|kind| kind.name.as_str()));
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    let text =
        format!("the controller knows no {what} `{name}`{meant}\n`fleetward kind list` lists them all.");
    Err(Failure::Usage(text))
}

/// The JSON object in a file, or on standard input.
fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = input::read_text(path, MAX_FILE)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::Usage(format!("{} does not hold a JSON object: {error}", input::name(path)))
    })
}

/// `fleetward kind …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(command) => list(&command, app).await,
        Command::Show(command) => show(&command, app).await,
    }
}

async fn list(command: &List, app: &App) -> Result<Exit, Failure> {
    let family = command.family.map(|family| match family {
        FamilyChoice::Action => Family::Action,
        FamilyChoice::Query => Family::Query,
    });
    let is_wanted = |kind: &Kind| family.is_none_or(|family| kind.family == family);
    if app.out.format == Format::Json {
        let mut array = app.out.array();
        let take = |item: &serde_json::value::RawValue| {
            if is_wanted(&app.client.read(item.get().as_bytes())?) {
                array.push(item)?;
            }
            Ok(())
        };
        app.client.pages("kinds", &(), None, take).await?;
        array.end()?;
        return Ok(Exit::Success);
    }
    let kinds = app.collect::<Kind>("kinds", &(), None).await?;
    let mut table = Table::new(&app.out, ["NAME", "FAMILY", "PERMISSION", "DRY RUN", "SUMMARY"]);
    for kind in kinds.iter().filter(|kind| is_wanted(kind)) {
        table.row([
            kind.name.as_str().into(),
            noun(kind.family).into(),
            kind.permission.as_str().into(),
            if kind.dry_run { "yes" } else { "" }.into(),
            kind.summary.as_str().into(),
        ]);
    }
    app.out.print(table.finish())?;
    Ok(Exit::Success)
}

async fn show(command: &Show, app: &App) -> Result<Exit, Failure> {
    if app.out.format == Format::Json {
        let mut text = None;
        let take = |item: &serde_json::value::RawValue| {
            if app.client.read::<Kind>(item.get().as_bytes())?.name == command.kind {
                text = Some(item.get().to_owned());
            }
            Ok(())
        };
        app.client.pages("kinds", &(), None, take).await?;
        if let Some(text) = text {
            app.out.json(text.as_bytes())?;
            return Ok(Exit::Success);
        }
    }
    let kind = find(app.collect::<Kind>("kinds", &(), None).await?, &command.kind, None)?;
    app.out.print(described(&kind, &app.out))?;
    Ok(Exit::Success)
}

fn described(kind: &Kind, out: &Out) -> String {
    let takes = fields(&kind.parameters);
    let mut sheet = Sheet::default();
    sheet.row("Kind", &kind.name);
    sheet.row("Family", noun(kind.family));
    sheet.row("Does", &kind.summary);
    sheet.row("Permission", &kind.permission);
    if kind.family == Family::Action {
        let again = match kind.idempotent {
            true => "doing it again changes nothing more",
            false => "doing it again may change something again",
        };
        sheet.row("Again", again);
        let dry_run = match kind.dry_run {
            true => "yes: --dry-run tells what would change, and changes nothing",
            false => "no",
        };
        sheet.row("Dry run", dry_run);
    }
    if kind.follows {
        sheet.row("Follows", "--follow tells what changes");
    }
    sheet.row("Time limit", span(u64::from(kind.timeout_s) * 1000));
    sheet.row("Usage", line(kind, &usage(&takes)));
    sheet.row("Example", line(kind, &example(&takes)));
    let mut text = sheet.finish();
    if !takes.is_empty() {
        text.push_str(&headed("Parameters", &description(&kind.parameters)));
        let mut table = Table::new(out, ["NAME", "TYPE", "REQUIRED", "DESCRIPTION"]);
        for (path, field) in all(&takes) {
            table.row([
                indented(&path).into(),
                field.shape.words().into(),
                if field.required { "yes" } else { "" }.into(),
                meaning(field).into(),
            ]);
        }
        text.push_str(&table.finish());
        text.push_str(&meanings(&takes));
    }
    let answers = fields(&kind.answer);
    if !answers.is_empty() {
        let heading = match kind.family {
            Family::Action => "Its report",
            Family::Query => "Each item of its answer",
        };
        text.push_str(&headed(heading, &description(&kind.answer)));
        let mut table = Table::new(out, ["NAME", "TYPE", "DESCRIPTION"]);
        for (path, field) in all(&answers) {
            table.row([indented(&path).into(), field.shape.words().into(), meaning(field).into()]);
        }
        text.push_str(&table.finish());
        text.push_str(&meanings(&answers));
    }
    text
}

/// What stands above a table of fields.
fn headed(heading: &str, words: &str) -> String {
    let words = if words.is_empty() { String::new() } else { format!("{}\n\n", neutral::text(words)) };
    format!("\n{heading}:\n{words}")
}

/// Fields and those within them, by the names that lead to them.
fn all(fields: &[Field]) -> Vec<(Vec<&str>, &Field)> {
    let mut found = Vec::new();
    for field in fields {
        found.push((vec![field.name.as_str()], field));
        for (path, inner) in all(field.shape.inner()) {
            found.push(([vec![field.name.as_str()], path].concat(), inner));
        }
    }
    found
}

/// A name below what it is within.
fn indented(path: &[&str]) -> String {
    format!("{}{}", "  ".repeat(path.len().saturating_sub(1)), path.last().unwrap_or(&""))
}

/// What the words of each choice mean.
fn meanings(fields: &[Field]) -> String {
    let mut text = String::new();
    for (path, field) in all(fields).into_iter().filter(|(_, field)| !field.meanings.is_empty()) {
        let mut sheet = Sheet::default();
        for (word, meaning) in &field.meanings {
            sheet.row(format!("  {word}"), meaning);
        }
        text.push_str(&format!("\n{}:\n{}", neutral::text(&path.join(".")), sheet.finish()));
    }
    text
}

/// What a field means, and what it is where it is not given.
fn meaning(field: &Field) -> String {
    match &field.default {
        Some(default) => {
            format!("{} ({} when absent)", field.description, value::plain(default)).trim().to_owned()
        }
        None => field.description.clone(),
    }
}

/// What has to be given, with values that may be.
fn example(fields: &[Field]) -> String {
    let words = fields.iter().filter(|field| field.required).map(|field| {
        let value = match (&field.example, &field.shape) {
            (Some(example), shape) if shape.takes_json() => return format!("{}:='{example}'", field.name),
            (Some(example), _) => value::plain(example),
            (None, Shape::Choice(choices)) => choices.first().cloned().unwrap_or_default(),
            (None, shape) if shape.takes_json() => return format!("{}:=JSON", field.name),
            (None, shape) => shape.placeholder(),
        };
        words::typed(&[format!("{}={value}", field.name)])
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A command line with these parameters.
fn line(kind: &Kind, params: &str) -> String {
    let params = if params.is_empty() { String::new() } else { format!(" {params}") };
    format!("fleetward {} {}{params} --on EXPR", verb(kind.family), kind.name)
}

/// What a kind of this family is.
const fn noun(family: Family) -> &'static str {
    match family {
        Family::Action => "action",
        Family::Query => "query",
    }
}

/// The command for kinds of this family.
const fn verb(family: Family) -> &'static str {
    match family {
        Family::Action => "do",
        Family::Query => "ask",
    }
}

#[cfg(test)]
mod tests;
