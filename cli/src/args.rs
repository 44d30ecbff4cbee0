//! The command line: nouns, then verbs.

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Globals;
use crate::failure::{Exit, Failure};
use crate::{
    action, audit, auth, config, file, group, host, kind, operation, package, plan, query, reboot, repo, run,
    script, session, site, unit,
};

const EXAMPLES: &str = "\
Examples:
  fleetward login https://ctl.example.com:7444
  fleetward host add web-1 --type VPS --provider Example --tag prod --tag web
  fleetward host list --tag prod --status online --sort last-seen
  fleetward repo set https://git.example.com/ops/fleet.git --branch main
  fleetward repo sync
  fleetward run baseline --on 'tag:prod & web-*' --timeout 5m -- --dry-run
  fleetward do unit unit=nginx.service verb=restart --on 'web-*'
  fleetward op logs OP-17 --follow

Exit codes:
  0    all of it succeeded
  1    some run, host or synchronisation did not do as asked; or this program failed
  2    the command line or the request is wrong
  3    not logged in, or not allowed
  4    the controller cannot be reached, trusted or used
  5    the operation was stopped
  130  left with Ctrl-C; what was started goes on

Environment:
  FLEETWARD_URL, FLEETWARD_TOKEN    the controller and a token, instead of a kept login
  FLEETWARD_CA_CERT                 whom to trust, as --ca-cert
  FLEETWARD_FINGERPRINT             whom to trust, as --fingerprint
  NO_COLOR                          no colours";

/// Run scripts on a fleet of hosts, and see what happens
#[derive(Debug, Parser)]
#[command(
    name = "fleetward",
    version,
    after_help = EXAMPLES,
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The whole command line.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// The command line that this program was called with. Ends the program if it cannot be meant.
pub(crate) fn parse() -> Cli {
    let mut command = config::without_empty_variables(Cli::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os()).unwrap_or_else(|_| {
        // The same error once more, with usage lines that show what is needed, not what was given.
        with_plain_usage(config::without_empty_variables(Cli::command()))
            .try_get_matches()
            .unwrap_or_else(|error| without_idle_tips(error).exit())
    });
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Without the tip to put `--` before an unknown option, where nothing can come behind `--`.
fn without_idle_tips(mut error: clap::Error) -> clap::Error {
    let takes_more = |usage: &ContextValue| usage.to_string().contains("[-- <");
    if error.get(ContextKind::Usage).is_some_and(takes_more) {
        return error;
    }
    if let Some(ContextValue::StyledStrs(tips)) = error.remove(ContextKind::Suggested) {
        let useful = tips.into_iter().filter(|tip| !tip.to_string().contains("as a value, use"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(useful.collect()));
    }
    error
}

/// With usage lines as `--help` shows them. Those of an error also list every option that was given, or stands in the
/// environment, as if it were required.
fn with_plain_usage(mut command: clap::Command) -> clap::Command {
    fn plain(command: clap::Command) -> clap::Command {
        let mut command = command.mut_subcommands(plain);
        let usage = command.render_usage().to_string();
        command.override_usage(usage.trim_start_matches("Usage: ").to_owned())
    }
    command.build();
    plain(command)
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in to a controller and keep the login
    Login(auth::Login),
    /// End the login and forget it
    Logout,
    /// Show who is logged in where, and what they may do
    Whoami,
    /// Change your password
    Password(auth::Password),
    /// Hosts: add, list, show, update, retire, delete, token, approve, revoke, verify
    #[command(subcommand)]
    Host(host::Command),
    /// Groups of hosts, each a target expression under a name: list, show, set, delete
    #[command(subcommand)]
    Group(group::Command),
    /// Make an enrolment token for a host that is not in the inventory yet
    EnrolToken(host::EnrolToken),
    /// The inventory repository: set, sync, status, history, check
    #[command(subcommand)]
    Repo(repo::Command),
    /// Scripts of the inventory repository: list, show
    #[command(subcommand)]
    Script(script::Command),
    /// Run scripts on hosts and follow them live
    Run(run::Run),
    /// Do something of any kind on hosts and follow it live
    Do(action::Do),
    /// Start exactly what was planned, and follow it live
    Submit(plan::Submit),
    /// Files on hosts: ls, cat, stat, put, rm
    #[command(subcommand)]
    File(file::Command),
    /// Ask hosts what is there, now
    Ask(query::Ask),
    /// Packages of Debian and Ubuntu: list, refresh, install, upgrade, hold, unhold, remove, purge
    #[command(subcommand)]
    Package(package::Command),
    /// Reboot hosts and see that they come back with all that ran on them
    Reboot(reboot::Reboot),
    /// Sites of nginx: list, show, apply, test, enable, disable, rm, errors, certificates
    #[command(subcommand)]
    Site(site::Command),
    /// Units of systemd: list, failed, show, log, timers, start, stop, restart, reload, enable, mask, write, rm, …
    #[command(subcommand)]
    Unit(unit::Command),
    /// Kinds of actions and queries: list, show
    #[command(subcommand)]
    Kind(kind::Command),
    /// Operations: list, show, runs, logs, stop
    #[command(subcommand, visible_alias = "operation")]
    Op(operation::Command),
    /// Your own logins: list, end
    #[command(subcommand)]
    Session(session::Command),
    /// What was changed, by whom
    Audit(audit::Audit),
    /// Write the completion for a shell
    Completion(Completion),
    /// Show the versions of this program and of the controller
    Version,
}

/// Write the completion for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward completion bash > /etc/bash_completion.d/fleetward
  fleetward completion zsh > \"${fpath[1]}/_fleetward\"
  fleetward completion fish > ~/.config/fish/completions/fleetward.fish")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    /// Writes it to standard output.
    pub(crate) fn write(&self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "fleetward", &mut script);
        std::io::Write::write_all(&mut std::io::stdout().lock(), &script).map_err(crate::failure::output)?;
        Ok(Exit::Success)
    }
}

#[cfg(test)]
mod tests;
