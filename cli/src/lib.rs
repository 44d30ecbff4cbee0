//! `fleetward`: the fleet from a terminal.
//!
//! **What for.** Everything that the API offers, for people (tables, live output, questions before anything
//! irreversible) and for scripts (`--output json`, exit codes).
//!
//! **What it promises.** Nothing that comes from a host reaches the terminal unless it is harmless there
//! (`render::neutral`). A command that fails says what to do next. Leaving a live view never stops what it shows.
//!
//! **Deliberately absent.** Rules: the controller decides everything; this program asks and shows.

mod action;
mod app;
mod args;
mod audit;
mod auth;
mod client;
mod config;
mod context;
mod failure;
mod file;
mod group;
mod host;
mod input;
mod kind;
mod live;
mod moment;
mod operation;
mod package;
mod plan;
mod prompt;
mod query;
mod reboot;
mod render;
mod repo;
mod rollout;
mod run;
mod script;
mod session;
mod site;
mod start;
mod unit;

use std::io::Write as _;
use std::process::ExitCode;

use crate::app::App;
use crate::args::{Cli, Command};
use crate::client::address::Address;
use crate::config::Format;
use crate::failure::{Exit, Failure};

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let cli = args::parse();
    let format = cli.globals.output;
    if !cli.globals.quiet {
        for unknown in config::unknown_variables() {
            // Nobody is left to tell that standard error is gone.
            let _ = writeln!(std::io::stderr().lock(), "warning: {unknown}");
        }
    }
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report(&failure, format);
            failure.exit_code().into()
        }
    }
}

/// The definition of the command line: what manual pages are written from, and what documents are compared with.
pub fn definition() -> clap::Command {
    args::definition()
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    // One thread: everything waits for one connection.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot start")))?;
    let exit = runtime.block_on(dispatch(cli));
    // A name look-up that nobody waits for any more must not hold the exit up.
    runtime.shutdown_background();
    exit
}

async fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let globals = cli.globals;
    match cli.command {
        Command::Completion(command) => command.write(),
        Command::Version => auth::version(&globals).await,
        Command::Login(command) => auth::login(command, &globals).await,
        Command::Logout => auth::logout(&globals).await,
        Command::Whoami => auth::whoami(&App::new(&globals)?).await,
        Command::Password(command) => auth::password(command, &App::new(&globals)?).await,
        Command::Host(command) => host::execute(command, &App::new(&globals)?).await,
        Command::Group(command) => group::execute(command, &App::new(&globals)?).await,
        Command::EnrolToken(command) => host::enrol_token(&command, &App::new(&globals)?).await,
        Command::Repo(command) => repo::execute(command, &globals).await,
        Command::Script(command) => script::execute(command, &App::new(&globals)?).await,
        Command::Run(command) => run::execute(command, &App::new(&globals)?).await,
        Command::Do(command) => action::execute(command, &App::new(&globals)?).await,
        Command::Submit(command) => plan::submit(command, &App::new(&globals)?).await,
        Command::File(command) => file::execute(command, &App::new(&globals)?).await,
        Command::Ask(command) => query::execute(command, &App::new(&globals)?).await,
        Command::Package(command) => package::execute(command, &App::new(&globals)?).await,
        Command::Reboot(command) => reboot::execute(command, &App::new(&globals)?).await,
        Command::Site(command) => site::execute(command, &App::new(&globals)?).await,
        Command::Unit(command) => unit::execute(command, &App::new(&globals)?).await,
        Command::Kind(command) => kind::execute(command, &App::new(&globals)?).await,
        Command::Op(command) => operation::execute(command, &App::new(&globals)?).await,
        Command::Session(command) => session::execute(command, &App::new(&globals)?).await,
        Command::Audit(command) => audit::execute(command, &App::new(&globals)?).await,
    }
}

/// Tells the user what failed, with its causes, once; a program gets the API's own error.
fn report(failure: &Failure, format: Format) {
    if matches!(failure, Failure::PipeClosed) {
        return;
    }
    if let (Format::Json, Failure::Refused { body, .. }) = (format, failure)
        && let Ok(text) = serde_json::to_string(body)
    {
        // Nobody is left to tell that standard error is gone.
        let _ = writeln!(std::io::stderr().lock(), "{}", render::neutral::json(&text));
        return;
    }
    // Nobody is left to tell that standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{}", told(failure));
}

/// A failure with its causes, harmless for a terminal: much of it was said by whoever answered.
fn told(failure: &Failure) -> String {
    // The answer to a question is no error.
    if let Failure::Declined = failure {
        return "Nothing was done.".to_owned();
    }
    let mut text = format!("error: {failure}");
    let mut said = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(cause) = source {
        let cause_text = render::neutral::quote(&cause.to_string());
        // Some libraries repeat their cause in their own words.
        if !said.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        said = cause_text;
        source = cause.source();
    }
    if let Failure::Unreachable { url, .. } = failure {
        text.push_str("\nIs it running (`systemctl status fleetward-controller`), and is the address right?");
        if let Some(usual) = url.parse::<Address>().ok().and_then(|address| address.at_usual_port()) {
            text.push_str(&format!(
                "\nA controller listens on port 7444 unless told otherwise, and this address means port 443: try `fleetward login {usual}`."
            ));
        }
    }
    render::neutral::lines(&text, render::neutral::Colours::Strip)
}

#[cfg(test)]
mod tests;
