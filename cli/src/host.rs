//! `host` and `enrol-token`.

mod detail;

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use fleetward_api::fleet::host::{
    EnrolToken as Token, Enrolment, Host, HostCreate, HostCreated, HostQuery, HostUpdate, Lifecycle, Status,
    TokenCreate, Verification,
};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::name::{HostName, Tag};
use hyper::Method;

use crate::app::App;
use crate::client::Patience;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::prompt;
use crate::render::Out;
use crate::render::table::{Cell, Sheet, Table, Tone};
use crate::render::time::parse_span;
use crate::render::words;

/// Hosts: add, list, show, update, retire, delete, token, approve, revoke, verify
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a host to the inventory and print the command that enrols it
    Add(Add),
    /// List hosts
    List(List),
    /// Show everything known of a host
    Show(Name),
    /// Change a host's type, provider or tags
    Update(Update),
    /// Take a host out of the inventory; its history stays
    Retire(Sure),
    /// Delete a retired host; its runs stay
    Delete(Delete),
    /// Make a new enrolment token for a host
    Token(TokenFor),
    /// Let a quarantined host take part
    Approve(Name),
    /// Revoke a host's certificates: it is cut off at once
    Revoke(Sure),
    /// Compare the client ID on a host with the inventory's
    Verify(Name),
}

/// A host.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The host's name, or its id
    name: HostName,
}

/// A host, and no question.
#[derive(Debug, Args)]
pub(crate) struct Sure {
    /// The host's name
    name: HostName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Delete a retired host; its runs stay
#[derive(Debug, Args)]
#[command(after_help = "\
What the inventory said of the host and what it reported are gone, and its certificates are revoked. Its runs, their \
output and the audit log stay, under its name. It cannot be taken back: with the same client ID it would be a new host. \
Its name is free without this, as soon as it is retired.

Examples:
  fleetward host list --lifecycle retired
  fleetward host delete web-1")]
pub(crate) struct Delete {
    /// The host's name, or its id where several had the name
    name: HostName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Add a host to the inventory and print the command that enrols it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward host add web-1 --type VPS --provider Example --tag prod --tag web
  fleetward host add old-7 --type VM --client-id LINKOPS-00000000-0000-4000-8000-000000000007
  ssh root@web-1 \"$(fleetward host add web-1 --type VPS --quiet)\"")]
pub(crate) struct Add {
    /// The host's name
    name: HostName,
    /// VPS, VM, LXC, Proxmox, Metal or any other word
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// Who runs the machine
    #[arg(long, default_value = "", hide_default_value = true)]
    provider: String,
    /// A label; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// The client ID that the host has already; a new one is issued when absent
    #[arg(long, value_name = "ID")]
    client_id: Option<ClientId>,
}

/// List hosts
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward host list
  fleetward host list --tag prod --tag web --status online
  fleetward host list --type VM --sort -last-seen
  fleetward host list --on 'tag:prod & os:debian'
  fleetward host list --output json | jq -r '.[].name'")]
pub(crate) struct List {
    /// Only hosts with this label; given several times, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Only hosts of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only hosts in this status
    #[arg(long)]
    status: Option<StatusChoice>,
    /// Only hosts in this state of enrolment
    #[arg(long)]
    enrolment: Option<EnrolmentChoice>,
    /// Only hosts whose name, address, system or provider contains this
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only hosts that this target expression selects
    #[arg(long, value_name = "EXPR")]
    on: Option<String>,
    /// Hosts that left the inventory instead, or as well
    #[arg(long, value_name = "WHICH", default_value = "active")]
    lifecycle: LifecycleChoice,
    /// name, type, status, last-seen, latency, enrolment, provider, os or created; descending with a leading -
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Hosts at most; all when absent
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// Change a host's type, provider or tags
#[derive(Debug, Args)]
#[command(after_help = "\
Hosts that come from the inventory repository are changed there.

Examples:
  fleetward host update web-1 --provider Example
  fleetward host update web-1 --tag prod --tag web
  fleetward host update web-1 --add-tag canary --remove-tag web")]
#[command(group(ArgGroup::new("change").required(true).multiple(true)))]
pub(crate) struct Update {
    /// The host's name
    name: HostName,
    /// The new type
    #[arg(long = "type", value_name = "TYPE", group = "change")]
    kind: Option<String>,
    /// The new provider
    #[arg(long, group = "change")]
    provider: Option<String>,
    /// The new labels, in place of all it has; may be given several times
    #[arg(long = "tag", value_name = "TAG", group = "change", conflicts_with_all = ["add_tag", "remove_tag"])]
    tags: Vec<Tag>,
    /// A label more
    #[arg(long, value_name = "TAG", group = "change")]
    add_tag: Vec<Tag>,
    /// A label less
    #[arg(long, value_name = "TAG", group = "change")]
    remove_tag: Vec<Tag>,
}

/// Make a new enrolment token for a host
#[derive(Debug, Args)]
#[command(after_help = "\
The token works once, for this host only.

Examples:
  fleetward host token web-1
  fleetward host token web-1 --lifetime 10m")]
pub(crate) struct TokenFor {
    /// The host's name
    name: HostName,
    #[command(flatten)]
    lifetime: Lifetime,
}

/// Make an enrolment token for a host that is not in the inventory yet
#[derive(Debug, Args)]
#[command(after_help = "\
A host that enrols with it appears as quarantined, until `fleetward host approve NAME` lets it take part.

Examples:
  fleetward enrol-token --lifetime 1h")]
pub(crate) struct EnrolToken {
    #[command(flatten)]
    lifetime: Lifetime,
}

#[derive(Debug, Args)]
struct Lifetime {
    /// How long it can be used, such as 30m or 7d; a day when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    lifetime: Option<Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StatusChoice {
    Online,
    Offline,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EnrolmentChoice {
    Pending,
    Enrolled,
    Quarantined,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LifecycleChoice {
    Active,
    Retired,
    All,
}

/// `fleetward host …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::Add(command) => add(command, app).await,
        Command::List(command) => list(command, app).await,
        Command::Show(Name { name }) => {
            let answer = app.client.get(&format!("hosts/{name}")).await?;
            app.show::<Host>(&answer, |host| detail::sheet(host, &app.out))
        }
        Command::Update(command) => update(command, app).await,
        Command::Retire(Sure { name, yes }) => {
            if !yes {
                prompt::confirm(&format!(
                    "Take {name} out of the inventory? It is cut off at once; its history stays."
                ))?;
            }
            change(app, Method::POST, format!("hosts/{name}/retire"), "retired").await
        }
        Command::Delete(Delete { name, yes }) => {
            if !yes {
                prompt::confirm(&format!(
                    "Delete {name} for good? Its entry and what it reported are gone; its runs stay. It cannot be taken \
                     back."
                ))?;
            }
            app.client.act(Method::DELETE, &format!("hosts/{name}"), Patience::Usual).await?;
            app.out.note(format_args!("{name} is deleted."));
            Ok(Exit::Success)
        }
        Command::Token(TokenFor { name, lifetime }) => {
            let exit = token(app, &format!("hosts/{name}/token"), &lifetime, &format!("on {name}")).await?;
            warn_of_enrolled(app, &name).await;
            Ok(exit)
        }
        Command::Approve(Name { name }) => {
            change(app, Method::POST, format!("hosts/{name}/approve"), "approved").await
        }
        Command::Revoke(Sure { name, yes }) => {
            if !yes {
                prompt::confirm(&format!("Revoke the certificates of {name}? It is cut off at once."))?;
            }
            change(app, Method::POST, format!("hosts/{name}/revoke"), "revoked").await
        }
        Command::Verify(Name { name }) => verify(app, &name).await,
    }
}

/// `fleetward enrol-token`.
pub(crate) async fn enrol_token(command: &EnrolToken, app: &App) -> Result<Exit, Failure> {
    token(app, "enrolment-tokens", &command.lifetime, "on the host").await
}

async fn add(command: Add, app: &App) -> Result<Exit, Failure> {
    let body = HostCreate {
        name: command.name,
        client_id: command.client_id,
        kind: command.kind,
        provider: command.provider,
        tags: command.tags,
    };
    let answer = app.client.send(Method::POST, "hosts", &body).await?;
    if app.out.format == Format::Json {
        app.out.json(&answer)?;
        return Ok(Exit::Success);
    }
    let created: HostCreated = app.client.read(&answer)?;
    app.out.note(format_args!("Added {} with client ID {}.", created.host.name, created.host.client_id));
    show_token(&app.out, &created.token, &format!("on {}", created.host.name))
}

async fn list(command: List, app: &App) -> Result<Exit, Failure> {
    let tags: Vec<&str> = command.tags.iter().map(Tag::as_str).collect();
    let query = HostQuery {
        kind: command.kind,
        status: command.status.map(|status| match status {
            StatusChoice::Online => Status::Online,
            StatusChoice::Offline => Status::Offline,
        }),
        enrolment: command.enrolment.map(|enrolment| match enrolment {
            EnrolmentChoice::Pending => Enrolment::Pending,
            EnrolmentChoice::Enrolled => Enrolment::Enrolled,
            EnrolmentChoice::Quarantined => Enrolment::Quarantined,
            EnrolmentChoice::Revoked => Enrolment::Revoked,
        }),
        tag: (!tags.is_empty()).then(|| tags.join(",")),
        search: command.search,
        on: command.on,
        lifecycle: match command.lifecycle {
            LifecycleChoice::Active => None,
            LifecycleChoice::Retired => Some("retired".to_owned()),
            LifecycleChoice::All => Some("all".to_owned()),
        },
        sort: command.sort,
        limit: None,
        cursor: None,
    };
    let empty = query == HostQuery::default();
    let exit = app.list::<Host>("hosts", &query, command.limit, |hosts| {
        if hosts.is_empty() {
            app.out.note(match empty {
                true => "There are no hosts yet. Add one with `fleetward host add NAME --type VPS`, or set a repository.",
                false => "No host is like that.",
            });
            return String::new();
        }
        table(hosts, &app.out)
    });
    exit.await
}

fn table(hosts: &[Host], out: &Out) -> String {
    // Several that are retired may have had one name, which an active one may have now.
    let name = |host: &Host| match host.lifecycle {
        Lifecycle::Active => host.name.to_string(),
        Lifecycle::Retired => format!("{} (id {})", host.name, host.id),
    };
    let header = ["NAME", "STATUS", "TYPE", "PROVIDER", "OS", "LATENCY", "LAST SEEN", "TAGS"];
    let mut table = Table::new(out, header).right(5);
    for host in hosts {
        let (status, tone) = words::host_status(host);
        let os = host.facts.as_ref().map(|facts| format!("{} {}", facts.os, facts.os_version));
        let tags: Vec<&str> = host.tags.iter().map(Tag::as_str).collect();
        table.row([
            name(host).into(),
            Cell::new(status).tone(tone),
            host.kind.as_str().into(),
            host.provider.as_str().into(),
            os.unwrap_or_default().trim().into(),
            host.latency_ms.map(latency).unwrap_or_default().into(),
            host.last_seen.map_or_else(|| "never".to_owned(), |time| out.clock.ago(time)).into(),
            Cell::new(tags.join(" ")).tone(Tone::Dim),
        ]);
    }
    table.finish()
}

/// A round-trip time.
fn latency(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

async fn update(command: Update, app: &App) -> Result<Exit, Failure> {
    let path = format!("hosts/{}", command.name);
    let tags = if !command.add_tag.is_empty() || !command.remove_tag.is_empty() {
        let host: Host = app.client.read(&app.client.get(&path).await?)?;
        let mut tags: Vec<Tag> =
            host.tags.into_iter().filter(|tag| !command.remove_tag.contains(tag)).collect();
        for tag in command.add_tag {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Some(tags)
    } else {
        (!command.tags.is_empty()).then_some(command.tags)
    };
    let body = HostUpdate { kind: command.kind, provider: command.provider, tags };
    let answer = app.client.send(Method::PATCH, &path, &body).await?;
    app.show::<Host>(&answer, |host| table(std::slice::from_ref(host), &app.out))
}

async fn change(app: &App, method: Method, path: String, done: &str) -> Result<Exit, Failure> {
    let answer = app.client.act(method, &path, Patience::Usual).await?;
    app.show::<Host>(&answer, |host| {
        app.out.note(format_args!("{} is {done}.", host.name));
        String::new()
    })
}

async fn token(app: &App, path: &str, lifetime: &Lifetime, place: &str) -> Result<Exit, Failure> {
    let seconds = lifetime.lifetime.map(|span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX));
    let answer = app.client.send(Method::POST, path, &TokenCreate { lifetime_s: seconds }).await?;
    if app.out.format == Format::Json {
        app.out.json(&answer)?;
        return Ok(Exit::Success);
    }
    show_token(&app.out, &app.client.read(&answer)?, place)
}

/// Says so if the host is enrolled: a machine that has keys keeps them unless it is told otherwise.
async fn warn_of_enrolled(app: &App, name: &HostName) {
    // The token is shown already, whatever became of this look.
    let Ok(answer) = app.client.get(&format!("hosts/{name}")).await else { return };
    let Ok(host) = app.client.read::<Host>(&answer) else { return };
    if host.enrolment == Enrolment::Enrolled {
        app.out.note(format_args!(
            "{name} is enrolled already: a machine that has its keys refuses this command without `--force`, which makes new ones."
        ));
    }
}

/// The command goes to standard output, alone on its line, so that it can be piped.
fn show_token(out: &Out, token: &Token, place: &str) -> Result<Exit, Failure> {
    out.note(format_args!(
        "Run this {place}, as root, after the fleetward-agent package is installed (it works once, until {}):\n",
        out.clock.at(token.expires_at)
    ));
    out.print(format_args!("{}\n", crate::render::neutral::text(&token.command)))?;
    Ok(Exit::Success)
}

async fn verify(app: &App, name: &HostName) -> Result<Exit, Failure> {
    let answer = app.client.act(Method::POST, &format!("hosts/{name}/verify"), Patience::Usual).await?;
    let verification: Verification = app.client.read(&answer)?;
    app.show::<Verification>(&answer, |found| {
        let mut sheet = Sheet::default();
        let (word, tone) = if found.enrolled { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
        sheet.toned(&app.out, "Enrolled", word, tone);
        sheet.row("Client ID found", if found.client_id_found { "yes" } else { "no" });
        sheet.row("Client ID matches", if found.client_id_matches { "yes" } else { "no" });
        sheet.row("Reason", found.error.as_deref().unwrap_or_default());
        sheet.row("Looked at", app.out.clock.at(found.verified_at));
        sheet.finish()
    })?;
    Ok(if verification.enrolled { Exit::Success } else { Exit::Failed })
}
