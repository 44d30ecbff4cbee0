//! `repo`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fleetward_api::page::PageQuery;
use fleetward_api::repo::{CredentialKind, Credentials, Problem, Repo, RepoUpdate, Sync, SyncStatus};
use hyper::Method;

use crate::app::App;
use crate::client::Patience;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::prompt;
use crate::render::table::{Cell, Sheet, Table, Tone};
use crate::render::time::{parse_span, span};
use crate::render::{Out, neutral, words};

/// How many synchronisations `repo history` shows when nothing else is asked.
const HISTORY: u32 = 20;
/// How long to wait between two looks at a synchronisation that has not ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The inventory repository: set, sync, status, history
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Name the git repository that holds hosts and scripts
    Set(Set),
    /// Fetch it now and take what it says
    Sync,
    /// Show which commit is in force and how the last synchronisation went
    Status,
    /// List past synchronisations
    History(History),
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

/// List past synchronisations
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Synchronisations at most
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// `fleetward repo …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::Set(command) => set(command, app).await,
        Command::Sync => sync(app).await,
        Command::Status => {
            let answer = app.client.get("repo").await?;
            app.show::<Repo>(&answer, |repo| status(repo, &app.out))
        }
        Command::History(command) => history(&command, app).await,
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

async fn sync(app: &App) -> Result<Exit, Failure> {
    let mut answer = app.client.act(Method::POST, "repo/sync", Patience::Long).await?;
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
        Format::Table => app.out.print(outcome(&sync, &app.out))?,
    }
    Ok(if sync.status == SyncStatus::Succeeded { Exit::Success } else { Exit::Failed })
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
    sheet.row("In force", repo.commit.as_deref().unwrap_or("nothing yet"));
    sheet.row("Since", repo.synced_at.map(|time| out.clock.at_and_ago(time)).unwrap_or_default());
    let mut text = sheet.finish();
    if let Some(last) = &repo.last_sync {
        let (word, tone) = sync_status(last);
        let when = out.clock.at_and_ago(last.started_at);
        text.push_str(&format!("\nLast synchronisation {} on {when}\n", tone.paint(word, out.colour)));
        text.push_str(&details(last, out));
    }
    text
}

fn outcome(sync: &Sync, out: &Out) -> String {
    let (word, tone) = sync_status(sync);
    let commit = match short_commit(sync.commit.as_deref()) {
        commit if commit.is_empty() => String::new(),
        commit => format!(" at commit {commit}"),
    };
    format!("Synchronisation {}{commit}\n{}", tone.paint(word, out.colour), details(sync, out))
}

/// What went wrong, what is odd, and what changed.
fn details(sync: &Sync, out: &Out) -> String {
    let mut text = String::new();
    if let Some(error) = &sync.error {
        text.push_str(&format!("  {}\n", Tone::Bad.paint(&neutral::text(error), out.colour)));
    }
    for problem in &sync.problems {
        text.push_str(&format!("  {} {}\n", Tone::Bad.paint("error:", out.colour), place(problem)));
    }
    for warning in &sync.warnings {
        text.push_str(&format!("  {} {}\n", Tone::Warn.paint("warning:", out.colour), place(warning)));
    }
    if sync.status == SyncStatus::Failed {
        text.push_str("  The inventory that was in force before stays in force.\n");
    } else if sync.status == SyncStatus::Succeeded {
        text.push_str(&format!("  {}\n", what(sync)));
    }
    text
}

fn place(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    let field = problem.field.as_ref().map(|field| format!(" {field}:")).unwrap_or_default();
    neutral::text(&format!("{}{line}:{field} {}", problem.file, problem.message))
}

/// What a synchronisation changed, or why it did not.
fn what(sync: &Sync) -> String {
    if let Some(error) = &sync.error {
        return error.clone();
    }
    if !sync.problems.is_empty() {
        return format!("{} in the files", words::count(sync.problems.len(), "problem"));
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
