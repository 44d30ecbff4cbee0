//! `script`.

use clap::{Args, Subcommand};
use fleetward_api::fleet::script::{Flag, Script, ScriptDetail, ScriptVariable};
use fleetward_api::page::PageQuery;
use fleetward_protocol::name::{ResourceName, ScriptName, Tag};

use crate::app::App;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::render::table::{Cell, Sheet, Table, Tone};
use crate::render::{Out, neutral, size};

/// Scripts of the inventory repository: list, show
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the scripts
    List(List),
    /// Show a script: what it does, what it takes, its text
    Show(Show),
}

/// List the scripts
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward script list
  fleetward script list --tag maintenance
  fleetward script list --output json | jq -r '.[].name'")]
pub(crate) struct List {
    /// Only scripts with this label; given several times, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Only scripts whose name, title or description contains this
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Scripts at most; all when absent
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// Show a script: what it does, what it takes, its text
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward script show baseline
  fleetward script show baseline --content > baseline.sh")]
pub(crate) struct Show {
    /// The script's name
    name: ScriptName,
    /// Only its text
    #[arg(long)]
    content: bool,
}

/// `fleetward script …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(command) => list(command, app).await,
        Command::Show(command) => show(command, app).await,
    }
}

async fn list(command: List, app: &App) -> Result<Exit, Failure> {
    let query = PageQuery { limit: None, cursor: None };
    let search = command.search.map(|text| text.to_lowercase());
    // The API has no filter on scripts: a repository holds dozens of them.
    let wanted = |script: &Script| {
        let contains = |text: &str| search.as_ref().is_none_or(|part| text.to_lowercase().contains(part));
        command.tags.iter().all(|tag| script.tags.contains(tag))
            && (contains(script.name.as_str()) || contains(&script.title) || contains(&script.description))
    };
    if app.out.format == Format::Json {
        let mut array = app.out.array();
        let mut left = command.limit.unwrap_or(u32::MAX);
        let take = |item: &serde_json::value::RawValue| {
            if left > 0 && wanted(&app.client.read(item.get().as_bytes())?) {
                left -= 1;
                array.push(item)?;
            }
            Ok(())
        };
        app.client.pages("scripts", &query, None, take).await?;
        array.end()?;
        return Ok(Exit::Success);
    }
    let all = app.collect::<Script>("scripts", &query, None).await?;
    let limit = command.limit.unwrap_or(u32::MAX) as usize;
    let scripts: Vec<&Script> = all.iter().filter(|script| wanted(script)).take(limit).collect();
    if scripts.is_empty() {
        app.out.note(match all.is_empty() {
            true => {
                "There are no scripts yet. Name the repository that holds them with `fleetward repo set URL`."
            }
            false => "No script is like that.",
        });
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&app.out, ["NAME", "DESCRIPTION", "TAGS", "DIGEST"]);
    for script in scripts {
        let tags: Vec<&str> = script.tags.iter().map(Tag::as_str).collect();
        table.row([
            script.name.as_str().into(),
            script.description.as_str().into(),
            Cell::new(tags.join(" ")).tone(Tone::Dim),
            Cell::new(script.digest.short()).tone(Tone::Dim),
        ]);
    }
    app.out.print(table.finish())?;
    Ok(Exit::Success)
}

async fn show(command: Show, app: &App) -> Result<Exit, Failure> {
    let answer = app.client.get(&format!("scripts/{}", command.name)).await?;
    if command.content {
        let detail: ScriptDetail = app.client.read(&answer)?;
        // On a terminal it must be harmless; in a file it must be what runs.
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let text = if terminal { neutral::block(&detail.content) } else { detail.content };
        app.out.print(text)?;
        return Ok(Exit::Success);
    }
    app.show::<ScriptDetail>(&answer, |detail| {
        format!("{}\n{}", sheet(&detail.script, &app.out), neutral::block(&detail.content))
    })
}

fn sheet(script: &Script, out: &Out) -> String {
    let mut sheet = Sheet::default();
    let tags: Vec<&str> = script.tags.iter().map(Tag::as_str).collect();
    let resources: Vec<&str> = script.resources.iter().map(ResourceName::as_str).collect();
    sheet.row("Name", script.name.as_str());
    sheet.row("Title", format!("{} {}", script.emoji, script.title).trim());
    sheet.row("Description", &script.description);
    for flag in &script.flags {
        sheet.row("Flag", self::flag(flag));
    }
    let takes = match (script.flags.is_empty(), script.free_arguments) {
        (true, true) => "any",
        (true, false) => "none",
        (false, true) => "these flags, and others that are no flags",
        (false, false) => "these flags alone",
    };
    sheet.row("Arguments", takes);
    for variable in &script.environment {
        sheet.row("Variable", self::variable(variable));
    }
    sheet.row("Usage", usage(script));
    sheet.row("Takes about", seconds(script.estimated_duration_s));
    sheet.row("Time limit", seconds(script.timeout_s));
    sheet.row("Runs as", script.user.as_ref().map_or("root", |user| user.as_str()));
    let users: Vec<&str> = script.users.iter().map(|user| user.as_str()).collect();
    sheet.row("May run as", users.join(" "));
    sheet.row("Holds", resources.join(" "));
    sheet.row("Tags", tags.join(" "));
    sheet.row("File", format!("{} ({})", script.path, size::bytes(script.size)));
    sheet.row("Digest", script.digest.to_string());
    sheet.row("Commit", &script.commit);
    sheet.row("Synced", out.clock.at_and_ago(script.synced_at));
    sheet.finish()
}

/// How it is run, with what has to be given and what may be.
fn usage(script: &Script) -> String {
    let mut usage = format!("fleetward run {} --on EXPR", script.name);
    for variable in &script.environment {
        let option = format!("--env {}=VALUE", variable.name);
        usage.push_str(&if variable.required { format!(" {option}") } else { format!(" [{option}]") });
    }
    let mut arguments: Vec<String> = script
        .flags
        .iter()
        .map(|flag| match (flag.requires_value, &flag.default) {
            (true, _) => format!("{}=VALUE", flag.flag),
            (false, Some(_)) => format!("[{}=VALUE]", flag.flag),
            (false, None) => format!("[{}]", flag.flag),
        })
        .collect();
    if script.free_arguments {
        arguments.push("[ARGUMENTS…]".to_owned());
    }
    if !arguments.is_empty() {
        usage.push_str(&format!(" -- {}", arguments.join(" ")));
    }
    usage
}

fn flag(flag: &Flag) -> String {
    match (&flag.default, flag.requires_value) {
        (_, true) => format!("{}=VALUE (required)", flag.flag),
        (Some(default), false) => format!("{}={default}", flag.flag),
        (None, false) => flag.flag.clone(),
    }
}

fn variable(variable: &ScriptVariable) -> String {
    let ScriptVariable { name, description, required, secret } = variable;
    let remarks = [(*required, "required"), (*secret, "secret")];
    let remarks: Vec<&str> = remarks.into_iter().filter(|(is, _)| *is).map(|(_, remark)| remark).collect();
    let remarks = if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) };
    format!("{name}{remarks} {description}").trim_end().to_owned()
}

fn seconds(seconds: Option<u32>) -> String {
    seconds.map(|seconds| crate::render::time::span(u64::from(seconds) * 1000)).unwrap_or_default()
}
