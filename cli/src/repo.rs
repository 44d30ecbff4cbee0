//! `repo`.

mod check;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fleetward_api::fleet::repo::{
    CredentialKind, Credentials, Departures, Problem, Repo, RepoUpdate, Sync, SyncChanges, SyncRequest,
    SyncStatus,
};
use fleetward_api::page::PageQuery;
use hyper::Method;

use crate::app::App;
use crate::config::{Format, Globals};
use crate::failure::{Exit, Failure};
use crate::prompt;
use crate::render::table::{Cell, Sheet, Table, Tone};
use crate::render::time::{parse_span, span};
use crate::render::{Out, neutral, words};

/// How many synchronisations `repo history` shows when nothing else is asked.
const HISTORY: u32 = 20;
/// How long to wait between two looks at a synchronisation that has not ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The inventory repository: set, sync, status, history, check
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Name the git repository that holds hosts and scripts
    Set(Set),
    /// Fetch it now and take what it says
    Sync(SyncNow),
    /// Show which commit is in force and how the last synchronisation went
    Status,
    /// List past synchronisations
    History(History),
    /// Check an inventory in a directory, without a controller
    Check(check::Check),
}

/// Name the git repository that holds hosts and scripts
#[derive(Debug, Args)]
#[command(after_help = "\
Credentials are kept encrypted at the controller and never shown again. Those it has stay in use while the \
repository's host stays the same.

Examples:
  fleetward repo set https://git.example.com/ops/fleet.git --branch main
  fleetward repo set https://git.example.com/ops/fleet.git --username deploy
  fleetward repo set git@git.example.com:ops/fleet.git --ssh-key ~/.ssh/fleet_ed25519
  fleetward repo set file:///srv/git/fleet.git --interval never")]
pub(crate) struct Set {
    /// https://…, ssh://…, user@host:path or file:///…
    url: String,
    /// The branch to follow; main when absent
    #[arg(long)]
    branch: Option<String>,
    /// How often it is synchronised, such as 5m or 1h, or `never` for on demand only; 15m when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_interval)]
    interval: Option<u32>,
    /// User name for https; the password or token is asked for
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ssh_key", "no_credentials"])]
    username: Option<String>,
    /// Read the password or token (or the key's passphrase) from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The private key for ssh
    #[arg(long, value_name = "FILE", conflicts_with = "no_credentials")]
    ssh_key: Option<PathBuf>,
    /// The ssh server's key, as a known_hosts line or a SHA256: fingerprint; the first one seen when absent
    #[arg(long, value_name = "KEY", requires = "ssh_key")]
    host_key: Option<String>,
    /// Forget the credentials kept
    #[arg(long)]
    no_credentials: bool,
}

/// Fetch it now and take what it says
#[derive(Debug, Args)]
#[command(after_help = "\
A commit that takes away more than a fifth of the hosts or scripts, and three at least, is not put in force at once: it \
waits, and what it takes away is listed. --accept shows the list again, asks, and puts that very commit in force; if the \
branch has moved on meanwhile, the new commit needs an acceptance of its own.

Exits with 0 if the commit is in force, and with 1 if it failed or waits.

Examples:
  fleetward repo sync
  fleetward repo sync --accept")]
pub(crate) struct SyncNow {
    /// Put the commit in force that waits, with all that it takes away
    #[arg(long)]
    accept: bool,
    /// Do not ask
    #[arg(long, short, requires = "accept")]
    yes: bool,
}

/// List past synchronisations
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Synchronisations at most; 20 when absent, all in JSON
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// `fleetward repo …`.
pub(crate) async fn execute(command: Command, globals: &Globals) -> Result<Exit, Failure> {
    let app = || App::new(globals);
    match command {
        // It needs no controller.
        Command::Check(command) => check::execute(&command, &Out::new(globals)),
        Command::Set(command) => set(command, &app()?).await,
        Command::Sync(command) => sync(&command, &app()?).await,
        Command::Status => {
            let app = app()?;
            let answer = app.client.get("repo").await?;
            app.show::<Repo>(&answer, |repo| status(repo, &app.out))
        }
        Command::History(command) => history(&command, &app()?).await,
    }
}

async fn set(command: Set, app: &App) -> Result<Exit, Failure> {
    let credentials = credentials(&command)?;
    let body = RepoUpdate {
        url: command.url,
        branch: command.branch,
        interval_minutes: command.interval,
        credentials,
    };
    let answer = app.client.send(Method::PUT, "repo", &body).await?;
    app.show::<Repo>(&answer, |repo| {
        app.out
            .note("Set. It is read in a moment; `fleetward repo sync` reads it now and says what it holds.");
        status(repo, &app.out)
    })
}

fn credentials(command: &Set) -> Result<Option<Credentials>, Failure> {
    if command.no_credentials {
        return Ok(Some(Credentials::None));
    }
    if let Some(username) = &command.username {
        let password = match command.password_stdin {
            true => prompt::stdin_line()?,
            false => prompt::password(&format!("Password or token of {username}: "))?,
        };
        return Ok(Some(Credentials::Password { username: username.clone(), password }));
    }
    if let Some(path) = &command.ssh_key {
        let private_key = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))
            .map_err(Failure::Other)?;
        let passphrase = command.password_stdin.then(prompt::stdin_line).transpose()?;
        return Ok(Some(Credentials::SshKey { private_key, passphrase, host_key: command.host_key.clone() }));
    }
    if command.password_stdin {
        return Err(Failure::Usage("--password-stdin needs --username or --ssh-key".to_owned()));
    }
    Ok(None)
}

async fn sync(command: &SyncNow, app: &App) -> Result<Exit, Failure> {
    let accept = if command.accept { Some(accepted(command, app).await?) } else { None };
    let mut answer = app.client.send_patiently("repo/sync", &SyncRequest { accept }).await?;
    let mut sync: Sync = app.client.read(&answer)?;
    while sync.status == SyncStatus::Running {
        tokio::time::sleep(LOOK_AGAIN).await;
        let recent =
            app.collect::<Box<serde_json::value::RawValue>>("repo/syncs", &(), Some(HISTORY)).await?;
        for item in recent {
            let other: Sync = app.client.read(item.get().as_bytes())?;
            if other.id == sync.id {
                sync = other;
                answer = item.get().as_bytes().to_vec().into();
            }
        }
    }
    match app.out.format {
        Format::Json => app.out.json(&answer)?,
        Format::Table => {
            // Only a controller that has an inventory keeps it.
            let kept = match sync.status {
                SyncStatus::Failed | SyncStatus::Waiting => {
                    let repo: Repo = app.client.read(&app.client.get("repo").await?)?;
                    repo.in_force.is_some()
                }
                SyncStatus::Succeeded | SyncStatus::Running => false,
            };
            app.out.print(outcome(&sync, kept, &app.out))?;
            if sync.status == SyncStatus::Succeeded && sync.changes == SyncChanges::default() {
                app.out.print(brought_before(&sync, app).await?)?;
            }
        }
    }
    Ok(if sync.status == SyncStatus::Succeeded { Exit::Success } else { Exit::Failed })
}

/// The commit that waits, once its list was shown and, unless `--yes` says so, confirmed.
async fn accepted(command: &SyncNow, app: &App) -> Result<String, Failure> {
    let repo: Repo = app.client.read(&app.client.get("repo").await?)?;
    let waiting = repo.last_sync.filter(|last| last.status == SyncStatus::Waiting);
    let Some((commit, leaving)) = waiting.and_then(|last| last.commit.zip(last.departures)) else {
        return Err(Failure::Usage(
            "nothing waits to be accepted; `fleetward repo sync` reads the repository now".to_owned(),
        ));
    };
    app.out.note(format_args!(
        "Commit {} would take away:\n{}",
        neutral::text(&commit),
        departures(&leaving).trim_end()
    ));
    if !command.yes {
        prompt::confirm("Put it in force?")?;
    }
    Ok(commit)
}

/// What the commit brought when an earlier synchronisation, perhaps one that nobody watched, put it in force.
async fn brought_before(sync: &Sync, app: &App) -> Result<String, Failure> {
    let earlier = app.collect::<Sync>("repo/syncs", &(), Some(HISTORY)).await?;
    let same = |other: &&Sync| {
        other.id != sync.id
            && other.status == SyncStatus::Succeeded
            && (&other.url, &other.branch, &other.commit) == (&sync.url, &sync.branch, &sync.commit)
    };
    let brought = earlier.iter().filter(same).find(|other| other.changes != SyncChanges::default());
    Ok(brought.map_or_else(String::new, |brought| {
        format!(
            "  The commit came in on {}, asked by {}: {}\n",
            app.out.clock.at_and_ago(brought.started_at),
            neutral::text(&brought.triggered_by),
            what(brought)
        )
    }))
}

async fn history(command: &History, app: &App) -> Result<Exit, Failure> {
    let most = app.newest(command.limit, HISTORY);
    let query = PageQuery { limit: None, cursor: None };
    let exit = app.list::<Sync>("repo/syncs", &query, most, |syncs| {
        let header = ["STARTED", "STATUS", "COMMIT", "TOOK", "ASKED BY", "WHAT"];
        let mut table = Table::new(&app.out, header).right(3);
        for sync in syncs {
            let (word, tone) = sync_status(sync);
            let took = sync.ended_at.map(|end| end.timestamp().since(sync.started_at.timestamp()));
            table.row([
                app.out.clock.at(sync.started_at).into(),
                Cell::new(word).tone(tone),
                short_commit(sync.commit.as_deref()).into(),
                took.map(|took| span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)))
                    .unwrap_or_default()
                    .into(),
                sync.triggered_by.as_str().into(),
                what(sync).into(),
            ]);
        }
        app.note_newest(command.limit, HISTORY, syncs.len());
        table.finish()
    });
    exit.await
}

fn status(repo: &Repo, out: &Out) -> String {
    let mut sheet = Sheet::default();
    sheet.row("Repository", &repo.url);
    sheet.row("Branch", &repo.branch);
    sheet.row(
        "Credentials",
        match repo.credentials {
            CredentialKind::None => "none",
            CredentialKind::Password => "user and password",
            CredentialKind::SshKey => "ssh key",
        },
    );
    sheet.row(
        "Synchronised",
        match repo.interval_minutes {
            0 => "on demand".to_owned(),
            1 => "every minute".to_owned(),
            minutes => format!("every {minutes} minutes"),
        },
    );
    match &repo.in_force {
        None => sheet.row("In force", "nothing yet"),
        Some(now) => {
            sheet.row("In force", &now.commit);
            if (&now.url, &now.branch) != (&repo.url, &repo.branch) {
                sheet.row("From", format!("{} (branch {}), which was set before", now.url, now.branch));
            }
            sheet.row("Since", out.clock.at_and_ago(now.since));
        }
    }
    let mut text = sheet.finish();
    match &repo.last_sync {
        None => text.push_str("\nThis repository and branch were not synchronised yet.\n"),
        Some(last) => {
            let (word, tone) = sync_status(last);
            let commit = match short_commit(last.commit.as_deref()) {
                commit if commit.is_empty() => String::new(),
                commit => format!(" at commit {commit}"),
            };
            let when = out.clock.at_and_ago(last.started_at);
            let word = tone.paint(word, out.colour);
            text.push_str(&format!("\nLast synchronisation {word}{commit} on {when}\n"));
            text.push_str(&details(last, repo.in_force.is_some(), out));
        }
    }
    text
}

fn outcome(sync: &Sync, kept: bool, out: &Out) -> String {
    let (word, tone) = sync_status(sync);
    let commit = match short_commit(sync.commit.as_deref()) {
        commit if commit.is_empty() => String::new(),
        commit => format!(" at commit {commit}"),
    };
    format!("Synchronisation {}{commit}\n{}", tone.paint(word, out.colour), details(sync, kept, out))
}

/// What went wrong, what is odd, and what changed; `kept` says that an inventory was in force before.
fn details(sync: &Sync, kept: bool, out: &Out) -> String {
    let mut text = String::new();
    if let Some(error) = &sync.error {
        text.push_str(&format!("  {}\n", Tone::Bad.paint(&neutral::text(error), out.colour)));
    }
    text.push_str(&findings(&sync.problems, &sync.warnings, out));
    if let Some(leaving) = &sync.departures {
        text.push_str("  It would take away:\n");
        text.push_str(&departures(leaving));
        text.push_str("  It waits for you: `fleetward repo sync --accept` puts it in force.\n");
    }
    match sync.status {
        SyncStatus::Failed | SyncStatus::Waiting => {
            text.push_str(match kept {
                true => "  The inventory that was in force before stays in force.\n",
                false => "  Nothing is in force yet.\n",
            });
        }
        SyncStatus::Succeeded => {
            let (hosts, scripts) = (sync.hosts as usize, sync.scripts as usize);
            let holds = format!("{} and {}", words::count(hosts, "host"), words::count(scripts, "script"));
            text.push_str(&format!("  {}; the commit has {holds}\n", what(sync)));
        }
        SyncStatus::Running => {}
    }
    text
}

/// What stands in the way and what is odd, a line each.
fn findings(problems: &[Problem], warnings: &[Problem], out: &Out) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&format!("  {} {}\n", Tone::Bad.paint("error:", out.colour), place(problem)));
    }
    for warning in warnings {
        text.push_str(&format!("  {} {}\n", Tone::Warn.paint("warning:", out.colour), place(warning)));
    }
    text
}

/// What a commit takes away, a line each.
fn departures(leaving: &Departures) -> String {
    let mut text = String::new();
    for (what, leaving) in [("hosts", &leaving.hosts), ("scripts", &leaving.scripts)] {
        if leaving.count > 0 {
            let more = (leaving.count as usize).saturating_sub(leaving.names.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = neutral::text(&leaving.names.join(" "));
            text.push_str(&format!("    {} of {} {what}: {names}{more}\n", leaving.count, leaving.of));
        }
    }
    text
}

/// Where a problem is, and what it is; some are of the repository and not of a file.
fn place(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    let file = if problem.file.is_empty() { String::new() } else { format!("{}{line}: ", problem.file) };
    let field = problem.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    neutral::text(&format!("{file}{field}{}", problem.message))
}

/// What a synchronisation changed, or why it did not.
fn what(sync: &Sync) -> String {
    if let Some(error) = &sync.error {
        return error.clone();
    }
    if !sync.problems.is_empty() {
        return format!("{} in the files", words::count(sync.problems.len(), "problem"));
    }
    if let Some(leaving) = &sync.departures {
        let (hosts, scripts) = (leaving.hosts.count as usize, leaving.scripts.count as usize);
        let (hosts, scripts) = (words::count(hosts, "host"), words::count(scripts, "script"));
        return format!("takes away {hosts} and {scripts}, and waits to be accepted");
    }
    let changes = &sync.changes;
    let mut parts = Vec::new();
    for (count, word) in [
        (changes.hosts_added, "hosts added"),
        (changes.hosts_changed, "hosts changed"),
        (changes.hosts_retired, "hosts retired"),
        (changes.scripts_added, "scripts added"),
        (changes.scripts_changed, "scripts changed"),
        (changes.scripts_retired, "scripts retired"),
    ] {
        match count {
            0 => {}
            1 => parts.push(format!("1 {}", word.replacen("s ", " ", 1))),
            _ => parts.push(format!("{count} {word}")),
        }
    }
    if parts.is_empty() { "nothing changed".to_owned() } else { parts.join(", ") }
}

const fn sync_status(sync: &Sync) -> (&'static str, Tone) {
    match sync.status {
        SyncStatus::Running => ("running", Tone::Warn),
        SyncStatus::Succeeded => ("succeeded", Tone::Good),
        SyncStatus::Failed => ("failed", Tone::Bad),
        SyncStatus::Waiting => ("waits", Tone::Warn),
    }
}

fn short_commit(commit: Option<&str>) -> String {
    commit.unwrap_or_default().chars().take(12).collect()
}

fn parse_interval(text: &str) -> Result<u32, String> {
    if text == "never" {
        return Ok(0);
    }
    let seconds = parse_span(text)?.as_secs();
    if seconds % 60 != 0 {
        return Err("an interval is a whole number of minutes, such as 5m or 1h, or `never`".to_owned());
    }
    u32::try_from(seconds / 60).map_err(|_| "an interval is at most some years".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_the_repository_has_no_file() {
        let mut problem = Problem {
            file: String::new(),
            line: None,
            field: Some("refs/heads/main".to_owned()),
            message: "the history was rewritten".to_owned(),
        };
        assert_eq!(place(&problem), "refs/heads/main: the history was rewritten");
        problem = Problem { file: "links.yaml".to_owned(), line: Some(3), ..problem };
        assert_eq!(place(&problem), "links.yaml:3: refs/heads/main: the history was rewritten");
    }

    #[test]
    fn what_waits_says_what_it_would_take_away_and_what_stays() {
        let mut sync: Sync = serde_json::from_value(serde_json::json!({
            "id": "01890000-0000-7000-8000-000000000001", "url": "u", "branch": "main", "commit": "abc",
            "status": "waiting", "started_at": "2026-01-02T03:04:05.000Z", "ended_at": null, "triggered_by": "ann",
            "error": null, "problems": [], "warnings": [], "hosts": 3, "scripts": 0,
            "changes": SyncChanges::default(),
            "departures": {
                "hosts": { "count": 3, "of": 6, "names": ["app-4", "app-5", "app-6"] },
                "scripts": { "count": 0, "of": 2, "names": [] },
            },
        }))
        .unwrap();
        let out = Out::new(&<crate::args::Cli as clap::Parser>::parse_from(["fleetward", "version"]).globals);
        let text = details(&sync, true, &out);
        assert!(text.contains("It would take away:\n    3 of 6 hosts: app-4 app-5 app-6\n"), "{text}");
        assert!(text.contains("stays in force"), "{text}");
        sync.status = SyncStatus::Failed;
        let text = details(&sync, false, &out);
        assert!(text.contains("Nothing is in force yet") && !text.contains("stays in force"), "{text}");
    }
}
