//! Questions to the user, on the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;

use crate::failure::Failure;
use crate::render::neutral::{self, Colours};

/// Whether somebody is there to answer.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks `question`; anything but yes is no.
///
/// # Errors
/// `Usage` where nobody can answer, `Declined` where the answer is no.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    if !is_possible() {
        return Err(Failure::Usage(format!(
            "{question} Nobody is at a terminal to answer; pass --yes to go ahead"
        )));
    }
    match line(&format!("{question} [y/N] "))?.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Declined),
    }
}

/// Asks for a line of text.
///
/// # Errors
/// If the terminal cannot be read, or is closed.
pub(crate) fn line(prompt: &str) -> Result<String, Failure> {
    let ask = || -> anyhow::Result<String> {
        let mut err = io::stderr().lock();
        write!(err, "{}", neutral::lines(prompt, Colours::Strip))?;
        err.flush()?;
        let mut answer = String::new();
        anyhow::ensure!(io::stdin().read_line(&mut answer)? > 0, "there was no answer");
        Ok(answer.trim().to_owned())
    };
    ask().context("cannot ask on the terminal").map_err(Failure::Other)
}

/// Asks for a password without showing it.
///
/// # Errors
/// If there is no terminal.
pub(crate) fn password(prompt: &str) -> Result<String, Failure> {
    rpassword::prompt_password(prompt)
        .context("cannot ask for the password on the terminal; use --password-stdin")
        .map_err(Failure::Other)
}

/// Asks for a new password twice, until both answers are the same and long enough.
///
/// # Errors
/// If there is no terminal.
pub(crate) fn new_password() -> Result<String, Failure> {
    loop {
        let fresh = password("New password: ")?;
        let length = fresh.chars().count();
        let problem = if length < 12 {
            "It needs at least 12 characters."
        } else if length > 1024 {
            "It may have at most 1024 characters."
        } else if fresh == password("New password again: ")? {
            return Ok(fresh);
        } else {
            "The two are not the same."
        };
        line_out(problem);
    }
}

/// Reads one line of standard input, without its end.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn stdin_line() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().read_line(&mut text).context("cannot read standard input").map_err(Failure::Other)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn line_out(text: &str) {
    // The next question shows whether the terminal is still there.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
