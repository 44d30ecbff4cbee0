//! `run`.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Args;
use fleetward_api::fleet::script::{Script, ScriptDetail};
use fleetward_api::work::operation::{self, OperationCreate, ScriptCall};
use fleetward_protocol::name::{LinuxUser, ScriptName};
use fleetward_protocol::suggest::nearest;

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::render::table::Tone;
use crate::render::{neutral, words};
use crate::rollout::Rollout;
use crate::start::{self, Making, Manner, TARGETS, Targets};

/// Run scripts on hosts and follow them live
#[derive(Debug, Args)]
#[command(after_help = format!("\
Shows the targets and asks before it starts, then shows output as it is written: `|` stands between a host and its \
standard output, `!` between it and its standard error, `+` before the rest of a line of which a part was shown \
already. Control characters from hosts are shown, not obeyed.

{TARGETS}

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
  fleetward run update-index upgrade --on 'type:VM' --timeout 30m --detach"))]
pub(crate) struct Run {
    /// The scripts, run on each host in this order
    #[arg(value_name = "SCRIPT", required = true)]
    scripts: Vec<ScriptName>,
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    rollout: Rollout,
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
    /// Why, in 1,000 characters at most; shown in history and audit
    #[arg(long, value_name = "TEXT", help_heading = "Runs")]
    reason: Option<String>,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    making: Making,
    /// Arguments for the script, passed as they are; with one script only
    #[arg(value_name = "ARGUMENTS", last = true)]
    arguments: Vec<String>,
}

/// `fleetward run`.
pub(crate) async fn execute(command: Run, app: &App) -> Result<Exit, Failure> {
    if command.scripts.len() > 1 && !command.arguments.is_empty() {
        return Err(Failure::Usage(
            "arguments after `--` go to one script; run several scripts without them".to_owned(),
        ));
    }
    command.making.check(&command.manner)?;
    let begun = Instant::now();
    let asked = operation(&command);
    let what: Vec<&str> = command.scripts.iter().map(ScriptName::as_str).collect();
    let what = format!("{} {}", what.join(", "), words::typed(&command.arguments));
    let preview = start::preview(app, &asked, Some(what.trim_end()), &command.manner).await?;
    if command.manner.shows(&app.out) {
        let odd = undeclared(&command, app).await;
        if !odd.is_empty() {
            let by = if command.scripts.len() == 1 { "the script" } else { "every script" };
            let text = format!("  not declared by {by}: {}", odd.join(", "));
            app.out.note(Tone::Warn.paint(&neutral::text(&text), app.out.colour_notes));
        }
    }
    start::carry_out(app, asked, preview, (&command.manner, &command.making), begun).await
}

fn operation(command: &Run) -> OperationCreate {
    let call = |name: &ScriptName| ScriptCall { name: name.clone(), arguments: command.arguments.clone() };
    OperationCreate {
        id: None,
        plan: None,
        steps: Vec::new(),
        scripts: command.scripts.iter().map(call).collect(),
        on: command.targets.on.clone(),
        dry_run: false,
        skip_not_enrolled: command.targets.skip_not_enrolled,
        rollout: operation::Rollout {
            continue_on_failure: command.continue_on_failure.then_some(true),
            ..command.rollout.clone().into()
        },
        environment: command.environment.iter().cloned().collect::<BTreeMap<_, _>>(),
        directory: command.dir.clone(),
        user: command.user.clone(),
        reason: command.reason.clone(),
    }
}

/// The variables and users that not every script declares: only somebody with the permission `override` gets here
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
    let declares =
        |script: &Script, name: &str| script.environment.iter().any(|variable| variable.name == name);
    let declared: Vec<&str> = scripts
        .iter()
        .flat_map(|script| script.environment.iter().map(|variable| variable.name.as_str()))
        .collect();
    let mut odd: Vec<String> = given
        .filter(|name| !scripts.iter().all(|script| declares(script, name)))
        .map(|name| match nearest(name, declared.iter().copied()) {
            // One of them has it.
            Some(meant) if meant == name => name.to_owned(),
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

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{}` is not KEY=VALUE", text.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
