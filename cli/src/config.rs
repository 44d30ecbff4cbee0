//! Settings that hold for every command: global options and the environment. Nothing else reads the environment.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Args, Command, ValueEnum};
use fleetward_protocol::variable;

use crate::client::address::Address;
use crate::client::trust::Fingerprint;

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The controller to talk to, such as `https://ctl.example.com:7444`; the one logged in to last when absent
    #[arg(long, global = true, value_name = "URL", env = "FLEETWARD_URL", hide_env_values = true)]
    pub(crate) controller: Option<Address>,
    /// The token to use instead of a login kept on disk
    #[arg(long, global = true, hide = true, env = "FLEETWARD_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Trust only the certificates in this PEM file to vouch for the controller
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FLEETWARD_CA_CERT",
        hide_env_values = true,
        conflicts_with = "fingerprint"
    )]
    pub(crate) ca_cert: Option<PathBuf>,
    /// Trust only the controller whose root or server certificate has this SHA-256
    #[arg(long, global = true, value_name = "SHA256", env = "FLEETWARD_FINGERPRINT", hide_env_values = true)]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// A table for people, or the API's own JSON for programs
    #[arg(long, short = 'o', global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Show times in UTC instead of the local time zone
    #[arg(long, global = true)]
    pub(crate) utc: bool,
    /// Say nothing but what was asked for and what failed
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// The API's JSON, unwrapped; one object per line where it streams
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The command without the variables that are set and empty: to a shell script that is how one says "unset".
pub(crate) fn without_empty_variables(command: Command) -> Command {
    without_variables(command, |name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
}

fn without_variables(command: Command, is_left_out: impl Fn(&OsStr) -> bool) -> Command {
    command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_left_out(name) => arg.env(Resettable::Reset),
        _ => arg,
    })
}

/// The time zone that the environment names (POSIX, Base Definitions, 8.3); `None` is the machine's own.
pub(crate) fn time_zone() -> Option<String> {
    std::env::var_os("TZ").map(|name| name.to_string_lossy().into_owned())
}

/// The variables that look like Fleetward's and are none, in words.
pub(crate) fn unknown_variables() -> Vec<String> {
    let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    variable::unknown(names.iter().map(String::as_str)).iter().map(ToString::to_string).collect()
}

/// Whether the environment asks for no colours: `NO_COLOR` is set and not empty (no-color.org), or the terminal
/// is `dumb`.
pub(crate) fn refuses_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}

/// Where logins are kept: `$XDG_CONFIG_HOME/fleetward`, or `~/.config/fleetward` (XDG Base Directory
/// Specification); `None` where neither variable is set.
pub(crate) fn directory() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("fleetward"))
}

/// The user's own name, offered as the login name.
pub(crate) fn user_name() -> Option<String> {
    std::env::var("USER").ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_variable_that_is_set_and_empty_is_not_asked() {
        let asked = |is_empty: &[&str]| {
            let command =
                without_variables(Cli::command(), |name| is_empty.iter().any(|&empty| name == empty));
            let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
            names.collect::<Vec<_>>()
        };
        let all = ["FLEETWARD_URL", "FLEETWARD_TOKEN", "FLEETWARD_CA_CERT", "FLEETWARD_FINGERPRINT"];
        assert_eq!(asked(&[]), all);
        assert!(all.iter().all(|name| variable::KNOWN.contains(name)));
        assert_eq!(asked(&["FLEETWARD_URL", "FLEETWARD_CA_CERT"]), [all[1], all[3]]);
        assert!(asked(&all).is_empty());
    }
}
