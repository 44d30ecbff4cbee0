//! `run`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use fleetward_api::host::{Enrolment, Status};
use fleetward_api::operation::{Offline, Operation, OperationCreate, Rollout, ScriptCall};
use fleetward_api::script::{Script, ScriptDetail};
use fleetward_api::target::{Target, TargetPreview, TargetPreviewRequest};
use fleetward_protocol::id::OperationId;
use fleetward_protocol::name::{LinuxUser, ScriptName};
use fleetward_protocol::suggest::nearest;
use hyper::Method;
use uuid::Uuid;

use crate::app::App;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::live::json::JsonLines;
use crate::live::screen::{Options, Screen};
use crate::live::{self, Ending, Following, Interrupt, Until};
use crate::operation::{detached, exit_of};
use crate::prompt;
use crate::render::table::Tone;
use crate::render::time::parse_span;
use crate::render::{Out, neutral, words};

/// How many host names are shown before the rest is only counted.
const NAMES_SHOWN: usize = 10;

/// Run scripts on hosts and follow them live
#[derive(Debug, Args)]
#[command(after_help = "\
Shows the targets and asks before it starts, then shows output as it is written: `|` stands between a host and its \
standard output, `!` between it and its standard error, `+` before the rest of a line of which a part was shown \
already. Control characters from hosts are shown, not obeyed.

Targets: names (web-1), globs (web-*, web-[1-20], web-[01-20], {web,db}-1), all, tag:prod, type:VM, status:offline, \
enrolment:pending, os:debian and other facts, combined with & (and), | (or), ! (not) and parentheses. Quote them: the \
shell knows these characters too.

A script that declares flags takes these alone; `fleetward script show` lists its flags, variables and users. Other \
variables and users take the permission `override`.

A run is over when its script is and nobody holds its output open any more: 5 seconds of silence, 30 seconds in all or \
the time limit end that wait. What a script leaves running (`program &`) then goes on, its output unread. A service is \
better left to the service manager, which keeps its log and starts it again: install a unit, or use `systemd-run \
--unit=NAME program`.

Ctrl-C leaves; the operation goes on. --stop-on-interrupt stops it instead.

Exits with 0 only if every run succeeded, 1 if some did not, 5 if the operation was stopped.

Examples:
  fleetward run baseline --on 'tag:prod & web-*' --batch 25% -- --dry-run
  fleetward run baseline --on all --concurrency 20 --max-failures 3
  fleetward run reboot-if-needed --on os:debian --canary 1 --batch 10 --deadline 2h
  fleetward run collect --on all --offline skip --yes --output json
  fleetward run update-index upgrade --on 'type:VM' --timeout 30m --detach")]
pub(crate) struct Run {
    /// The scripts, run on each host in this order
    #[arg(value_name = "SCRIPT", required = true)]
    scripts: Vec<ScriptName>,
    /// Where: a target expression, as below; `fleetward host list --on EXPR` shows what it selects
    #[arg(long, value_name = "EXPR")]
    on: String,
    /// Leave out hosts that are not enrolled; without it, one of them is a refusal. Offline hosts stay
    #[arg(long)]
    skip_not_enrolled: bool,
    /// Hosts at the same time, 1 to 10000; 50 when absent
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Rollout")]
    concurrency: Option<u32>,
    /// Hosts per batch, as a count from 1 or a share from 1% to 100%; all at once when absent
    #[arg(long, value_name = "HOSTS", value_parser = parse_hosts, help_heading = "Rollout")]
    batch: Option<String>,
    /// Hosts that run first and must all succeed, as a count from 1 or a share from 1% to 100%
    #[arg(long, value_name = "HOSTS", value_parser = parse_hosts, help_heading = "Rollout")]
    canary: Option<String>,
    /// Hosts that may fail, as a count or a share; when one more has failed, nothing more is started, and hosts that
    /// are under way go on. 0 stops at the first failure; all may fail when absent
    #[arg(long, value_name = "HOSTS", value_parser = parse_share, help_heading = "Rollout")]
    max_failures: Option<String>,
    /// How long each run may take, such as 5m; the script's own limit or 5m when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_span, help_heading = "Rollout")]
    timeout: Option<Duration>,
    /// How long from now runs may still be started, such as 2h; a day when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_span, help_heading = "Rollout")]
    deadline: Option<Duration>,
    /// What to do with hosts that are offline: wait until the deadline (when absent), or skip them
    #[arg(long, value_name = "POLICY", help_heading = "Rollout")]
    offline: Option<OfflineChoice>,
    /// On each host, go on with the next script after one failed
    #[arg(long, help_heading = "Rollout")]
    continue_on_failure: bool,
    /// An environment variable that the scripts declare, for every run; may be given several times
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = parse_variable, help_heading = "Runs")]
    environment: Vec<(String, String)>,
    /// As whom the scripts run: one of the users they declare; the script's own user, or root, when absent
    #[arg(long, value_name = "USER", help_heading = "Runs")]
    user: Option<LinuxUser>,
    /// Where the scripts start; the user's home when absent
    #[arg(long, value_name = "DIRECTORY", help_heading = "Runs")]
    dir: Option<String>,
    /// Why; shown in history and audit
    #[arg(long, value_name = "TEXT", help_heading = "Runs")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Start it and do not wait
    #[arg(long)]
    detach: bool,
    /// Ctrl-C stops the operation; a second one leaves
    #[arg(long, conflicts_with = "detach")]
    stop_on_interrupt: bool,
    /// Arguments for the script, passed as they are; with one script only
    #[arg(value_name = "ARGUMENTS", last = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OfflineChoice {
    Wait,
    Skip,
}

/// `fleetward run`.
pub(crate) async fn execute(command: Run, app: &App) -> Result<Exit, Failure> {
    if command.scripts.len() > 1 && !command.arguments.is_empty() {
        return Err(Failure::Usage(
            "arguments after `--` go to one script; run several scripts without them".to_owned(),
        ));
    }
    if !command.yes && !prompt::is_possible() {
        return Err(Failure::Usage(
            "nobody is at a terminal to agree to the targets; pass --yes to run without asking".to_owned(),
        ));
    }
    let begun = Instant::now();
    // With its id it can be sent again, whatever became of the first answer.
    let asked = OperationCreate { id: Some(OperationId::from_uuid(Uuid::now_v7())), ..operation(&command) };
    let body = TargetPreviewRequest {
        on: asked.on.clone(),
        scripts: asked.scripts.clone(),
        environment: asked.environment.clone(),
        directory: asked.directory.clone(),
        user: asked.user.clone(),
    };
    let preview = app.client.send(Method::POST, "targets/preview", &body).await?;
    let preview: TargetPreview = app.client.read(&preview)?;
    if app.out.format == Format::Table || !command.yes {
        show_preview(&command, &preview, &app.out);
        let odd = undeclared(&command, app).await;
        if !odd.is_empty() {
            let text = format!("  not declared by the script: {}", odd.join(", "));
            app.out.note(Tone::Warn.paint(&neutral::text(&text), app.out.colour_notes));
        }
    }
    if !command.yes {
        prompt::confirm("Run it?")?;
    }
    let answer = app.client.send(Method::POST, "operations", &asked).await?;
    let operation: Operation = app.client.read(&answer)?;
    if command.detach {
        return app.show::<Operation>(&answer, |operation| {
            app.out.note(format_args!("Follow it with `fleetward op logs {} --follow`.", operation.number));
            format!("{}\n", neutral::text(&operation.number))
        });
    }
    let following = Following {
        operation: &operation.id.to_string(),
        host: None,
        until: Until::End,
        interrupt: if command.stop_on_interrupt { Interrupt::Stop } else { Interrupt::Detach },
    };
    match app.out.format {
        Format::Json => follow_json(app, &following, &operation).await,
        Format::Table => {
            let names = preview.hosts.iter().map(|target| target.name.as_str());
            let mut screen = Screen::new(&app.out, Options::default(), names, begun);
            let ending = live::follow(app, &following, &mut screen).await?;
            let status = screen.operation().map_or(operation.status, |operation| operation.status);
            if ending == Ending::Detached {
                screen.leave()?;
                detached(&app.out, &operation.number);
                return Ok(Exit::Interrupted);
            }
            screen.finish()?;
            Ok(exit_of(status))
        }
    }
}

async fn follow_json(app: &App, following: &Following<'_>, operation: &Operation) -> Result<Exit, Failure> {
    let mut lines = JsonLines::default();
    if live::follow(app, following, &mut lines).await? == Ending::Detached {
        detached(&app.out, &operation.number);
        return Ok(Exit::Interrupted);
    }
    let end: Option<Operation> = lines.end.map(|data| app.client.read(data.as_bytes())).transpose()?;
    Ok(exit_of(end.map_or(operation.status, |operation| operation.status)))
}

fn operation(command: &Run) -> OperationCreate {
    let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    let call = |name: &ScriptName| ScriptCall { name: name.clone(), arguments: command.arguments.clone() };
    OperationCreate {
        id: None,
        scripts: command.scripts.iter().map(call).collect(),
        on: command.on.clone(),
        skip_not_enrolled: command.skip_not_enrolled,
        rollout: Rollout {
            concurrency: command.concurrency,
            batch: command.batch.clone(),
            canary: command.canary.clone(),
            max_failures: command.max_failures.clone(),
            timeout_s: command.timeout.map(seconds),
            deadline_s: command.deadline.map(seconds),
            offline: command.offline.map(|offline| match offline {
                OfflineChoice::Wait => Offline::Wait,
                OfflineChoice::Skip => Offline::Skip,
            }),
            continue_on_failure: command.continue_on_failure.then_some(true),
        },
        environment: command.environment.iter().cloned().collect::<BTreeMap<_, _>>(),
        directory: command.dir.clone(),
        user: command.user.clone(),
        reason: command.reason.clone(),
    }
}

/// The variables and users that none of the scripts declares: only somebody with the permission `override` gets here
/// with them, perhaps by mistyping.
async fn undeclared(command: &Run, app: &App) -> Vec<String> {
    if command.environment.is_empty() && command.user.is_none() {
        return Vec::new();
    }
    let mut scripts = Vec::new();
    for name in &command.scripts {
        // Whatever is wrong with it is told by the request itself.
        let Ok(answer) = app.client.get(&format!("scripts/{name}")).await else { return Vec::new() };
        let Ok(detail) = app.client.read::<ScriptDetail>(&answer) else { return Vec::new() };
        scripts.push(detail.script);
    }
    let given = command.environment.iter().map(|(name, _)| name.as_str());
    odd(&scripts, given, command.user.as_ref())
}

fn odd<'a>(
    scripts: &[Script],
    given: impl Iterator<Item = &'a str>,
    user: Option<&LinuxUser>,
) -> Vec<String> {
    let declared: Vec<&str> = scripts
        .iter()
        .flat_map(|script| script.environment.iter().map(|variable| variable.name.as_str()))
        .collect();
    let mut odd: Vec<String> = given
        .filter(|name| !declared.contains(name))
        .map(|name| match nearest(name, declared.iter().copied()) {
            Some(meant) => format!("{name} (did you mean {meant}?)"),
            None => name.to_owned(),
        })
        .collect();
    if let Some(user) = user {
        let takes = |script: &Script| {
            script.users.contains(user)
                || script.user.as_ref().map_or("root", LinuxUser::as_str) == user.as_str()
        };
        if !scripts.iter().all(takes) {
            odd.push(format!("the user {user}"));
        }
    }
    odd
}

fn show_preview(command: &Run, preview: &TargetPreview, out: &Out) {
    let what: Vec<&str> = command.scripts.iter().map(ScriptName::as_str).collect();
    let arguments = words::typed(&command.arguments);
    out.note(format_args!(
        "{}{}{} on {}: {}",
        what.join(", "),
        if arguments.is_empty() { "" } else { " " },
        arguments,
        words::count(preview.hosts.len(), "host"),
        names(&preview.hosts.iter().collect::<Vec<_>>())
    ));
    let rollout = words::rollout(&operation(command).rollout);
    if !rollout.is_empty() {
        out.note(format_args!("  {rollout}"));
    }
    let offline: Vec<&Target> = preview
        .hosts
        .iter()
        .filter(|target| target.status == Status::Offline && target.enrolment == Enrolment::Enrolled)
        .collect();
    if !offline.is_empty() {
        let fate = match command.offline {
            Some(OfflineChoice::Skip) => "left out",
            _ => "waited for",
        };
        let text = format!("  {} offline ({fate}): {}", offline.len(), names(&offline));
        out.note(Tone::Warn.paint(&text, out.colour_notes));
    }
    let barred: Vec<&Target> =
        preview.hosts.iter().filter(|target| target.enrolment != Enrolment::Enrolled).collect();
    if !barred.is_empty() {
        let (fate, tone) = match command.skip_not_enrolled {
            true => ("left out", Tone::Warn),
            false => ("--skip-not-enrolled leaves them out", Tone::Bad),
        };
        let text = format!("  {} not enrolled ({fate}): {}", barred.len(), names(&barred));
        out.note(tone.paint(&text, out.colour_notes));
    }
}

fn names(targets: &[&Target]) -> String {
    let shown: Vec<&str> = targets.iter().take(NAMES_SHOWN).map(|target| target.name.as_str()).collect();
    match targets.len().saturating_sub(NAMES_SHOWN) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

/// A count of hosts or a share of them, as the API takes it.
fn parse_share(text: &str) -> Result<String, String> {
    share(text, 0)
}

/// As [`parse_share`], and at least one host.
fn parse_hosts(text: &str) -> Result<String, String> {
    share(text, 1)
}

fn share(text: &str, least: u32) -> Result<String, String> {
    let (digits, most) = match text.strip_suffix('%') {
        Some(digits) => (digits, 100),
        None => (text, u32::MAX),
    };
    let count = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match count {
        Some(count) if count >= least && count <= most => Ok(text.to_owned()),
        _ => Err(format!(
            "`{}` is neither a count of {least} or more, such as 10, nor a share from {least}% to 100%, such as 25%",
            text.escape_debug()
        )),
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{}` is not KEY=VALUE", text.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_the_ranges_of_the_api() {
        for text in ["0", "0%", "3", "100%", "4294967295"] {
            assert_eq!(parse_share(text), Ok(text.to_owned()));
        }
        for text in ["1", "1%", "100%"] {
            assert_eq!(parse_hosts(text), Ok(text.to_owned()));
        }
        for text in ["0", "0%", "150%", "", "%", "-1", "+1", "1.5", "4294967296"] {
            let refusal = parse_hosts(text).unwrap_err();
            assert!(
                refusal.contains("a count of 1 or more") && refusal.contains("from 1% to 100%"),
                "{refusal}"
            );
        }
        assert!(parse_share("150%").unwrap_err().contains("from 0% to 100%"));
    }

    fn script(change: serde_json::Value) -> Script {
        let mut value = serde_json::json!({
            "name": "deploy", "title": "", "description": "", "emoji": "", "path": "deploy.sh",
            "digest": "0".repeat(64), "size": 1, "flags": [], "free_arguments": true,
            "environment": [{ "name": "VERSION", "description": "", "required": true, "secret": false }],
            "estimated_duration_s": null, "timeout_s": null, "user": null, "users": ["www-data"],
            "resources": [], "tags": [], "commit": "abc", "synced_at": "2026-01-02T03:04:05.000Z",
        });
        for (key, changed) in change.as_object().unwrap() {
            value[key] = changed.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_no_script_declares_is_named_with_what_was_perhaps_meant() {
        let scripts = [script(serde_json::json!({}))];
        let named = |names: &[&str], user: Option<&str>| {
            odd(&scripts, names.iter().copied(), user.map(|user| user.parse().unwrap()).as_ref())
        };
        assert!(named(&["VERSION"], Some("www-data")).is_empty());
        assert!(named(&[], Some("root")).is_empty());
        assert_eq!(
            named(&["VERSON", "OTHER"], Some("nobody")),
            ["VERSON (did you mean VERSION?)", "OTHER", "the user nobody"]
        );
    }
}
