//! `site`: the sites of nginx on hosts.
//!
//! Thin: what is asked are kinds of query, as `fleetward ask` asks them, and what is done is the kind `site`, as `fleetward do`
//! does it; here a site is a file that a person keeps.

mod file;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleetward_protocol::action::site::{Site, SiteName, SiteVerb};
use fleetward_protocol::name::HostName;
use fleetward_protocol::query::certificates::Certificates;
use fleetward_protocol::query::site_errors::{MAX_LINES, SiteErrors, USUAL_LINES};
use fleetward_protocol::query::sites::Sites;
use fleetward_protocol::query::units::Pattern;
use serde_json::{Map, Value};

use crate::action::{self, How};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::query;
use crate::render::table::Tone;
use crate::render::{Out, neutral};
use crate::start::{TARGETS, Targets};

/// Sites of nginx: list, show, apply, test, enable, disable, rm, errors, certificates
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the sites that nginx has, whoever wrote them
    List(List),
    /// Show one site
    Show(Show),
    /// Have a site there as a file describes it, and see that nginx works with it
    Apply(Apply),
    /// Tell what `apply` would change, and change nothing
    Test(Apply),
    /// Have nginx use a site again
    Enable(Named),
    /// Have nginx not use a site, and leave its file
    Disable(Named),
    /// Remove a site
    Rm(Named),
    /// Show what nginx has logged as errors
    Errors(Errors),
    /// List the certificates that nginx uses, and for how long they hold
    Certificates(CertificateList),
}

/// List the sites that nginx has, whoever wrote them
#[derive(Debug, Args)]
#[command(after_help = format!("\
Sites that are written and not enabled are listed, too. `writer` is `ours` for those that Fleetward wrote, `edited` if somebody has \
changed one since, and `foreign` for all others.

{TARGETS}

Examples:
  fleetward site list --on 'web-*'
  fleetward site list '*.example.com' --on all --skip-not-enrolled --output json"))]
pub(crate) struct List {
    /// With such a name, or such a server name: `*` stands for any characters, `?` for one
    #[arg(value_name = "PATTERN")]
    pattern: Option<Pattern>,
    #[command(flatten)]
    targets: Targets,
}

/// Show one site
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward site show shop --on web-1
  fleetward site show shop.example.com --on 'web-*'"))]
pub(crate) struct Show {
    /// Its name, or a name that it answers to
    #[arg(value_name = "NAME")]
    name: Pattern,
    #[command(flatten)]
    targets: Targets,
}

/// Have a site there as a file describes it
#[derive(Debug, Args)]
#[command(after_help = format!("\
The file is YAML or JSON; `fleetward kind show site` tells all that it may hold:

  name: shop
  server_names: [shop.example.com]
  tls: {{ certificate: /etc/ssl/shop.pem, key: /etc/ssl/shop.key }}
  redirect_http: true
  locations:
    - path: /
      proxy: {{ upstreams: [{{ server: 127.0.0.1:3000 }}] }}
    - path: /static/
      static: {{ root: /srv/shop, expires: 30d }}
  probe: {{ path: /health }}

nginx has to take the whole configuration with the site in it before anything is in place. If its new workers do not come up with \
it, or the probe is not answered, what was there is put back. Files that somebody else wrote are not touched.

{TARGETS}

Examples:
  fleetward site test -f shop.yaml --on 'web-*'
  fleetward site apply -f shop.yaml --on 'web-*' --batch 1 --max-failures 0
  fleetward site apply -f shop.yaml --on web-1 --start --yes"))]
pub(crate) struct Apply {
    /// The file that describes it; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Start nginx where it does not run
    #[arg(long)]
    start: bool,
    /// Replace the site's file although somebody has changed it on the host
    #[arg(long)]
    replace_edited: bool,
    #[command(flatten)]
    how: How,
}

/// Enable, disable or remove a site
#[derive(Debug, Args)]
#[command(after_help = format!("\
Only sites that Fleetward wrote are touched.

{TARGETS}

Examples:
  fleetward site disable shop --on web-1
  fleetward site enable shop --on web-1
  fleetward site rm shop --on 'web-*' --dry-run"))]
pub(crate) struct Named {
    /// Its name
    #[arg(value_name = "NAME")]
    name: SiteName,
    /// Remove its file although somebody has changed it on the host
    #[arg(long)]
    replace_edited: bool,
    #[command(flatten)]
    how: How,
}

/// Show what nginx has logged as errors
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward site errors --on web-1
  fleetward site errors shop --on 'web-*' --lines 200"))]
pub(crate) struct Errors {
    /// Only of this site, if it has a log of its own (`error_log`)
    #[arg(value_name = "NAME")]
    name: Option<SiteName>,
    /// The last so many of each log, up to 1000
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = USUAL_LINES, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_LINES)))]
    lines: u16,
    #[command(flatten)]
    targets: Targets,
}

/// List the certificates that nginx uses, and for how long they hold
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward site certificates --on all --skip-not-enrolled
  fleetward site certificates --on all --days 21"))]
pub(crate) struct CertificateList {
    /// Only those that hold for fewer days than this, or that cannot be read
    #[arg(long, value_name = "DAYS")]
    days: Option<u16>,
    #[command(flatten)]
    targets: Targets,
}

/// `fleetward site …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(List { pattern, targets }) => query::ask(&Sites { pattern }, targets, app).await,
        Command::Show(Show { name, targets }) => {
            query::ask(&Sites { pattern: Some(name) }, targets, app).await
        }
        Command::Apply(Apply { file, start, replace_edited, how }) => {
            action::carry_out(&described(&file, start, replace_edited)?, how, app).await
        }
        Command::Test(Apply { file, start, replace_edited, how }) => {
            action::carry_out(&described(&file, start, replace_edited)?, how.dry(), app).await
        }
        Command::Enable(named) => change(SiteVerb::Enable, named, app).await,
        Command::Disable(named) => change(SiteVerb::Disable, named, app).await,
        Command::Rm(named) => change(SiteVerb::Remove, named, app).await,
        Command::Errors(Errors { name, lines, targets }) => {
            let write = |host: &HostName, item: &Map<String, Value>, text: &mut String| {
                text.push_str(&error_line(host, item, &app.out));
            };
            query::ask_entries(&SiteErrors { site: name, lines }, targets, write, app).await
        }
        Command::Certificates(CertificateList { days, targets }) => {
            query::ask(&Certificates { days }, targets, app).await
        }
    }
}

/// A line of an error log: when, how bad it is, and what it says; of which site, where that is known.
fn error_line(host: &HostName, item: &Map<String, Value>, out: &Out) -> String {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let tone = match text("level") {
        "emerg" | "alert" | "crit" | "error" => Tone::Bad,
        "warn" => Tone::Warn,
        _ => Tone::Plain,
    };
    let site = if text("site").is_empty() { String::new() } else { format!("{}:", text("site")) };
    let head = [host.as_str(), text("time"), text("level"), &site];
    let head: Vec<&str> = head.into_iter().filter(|word| !word.is_empty()).collect();
    let message = tone.paint(&neutral::text(text("message")), out.colour);
    format!("{} {message}\n", neutral::text(&head.join(" ")))
}

fn described(path: &std::path::Path, start: bool, replace_edited: bool) -> Result<Site, Failure> {
    let site = file::read(path)?;
    Ok(Site { start: site.start || start, replace_edited: site.replace_edited || replace_edited, ..site })
}

async fn change(verb: SiteVerb, named: Named, app: &App) -> Result<Exit, Failure> {
    let Named { name, replace_edited, how } = named;
    action::carry_out(&Site { verb, replace_edited, ..Site::new(name) }, how, app).await
}

#[cfg(test)]
mod tests;
