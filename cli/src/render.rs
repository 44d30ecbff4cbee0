//! Writing answers for people and for programs.

pub(crate) mod neutral;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod value;
pub(crate) mod words;

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};

use serde_json::value::RawValue;

use self::time::Clock;
use crate::config::{self, ColorChoice, Format, Globals, refuses_colour};
use crate::failure::{Failure, output};

/// How a command talks to whoever started it.
#[derive(Debug)]
pub(crate) struct Out {
    /// For people or for programs.
    pub(crate) format: Format,
    /// Whether standard output takes colours.
    pub(crate) colour: bool,
    /// Whether standard error takes colours.
    pub(crate) colour_notes: bool,
    /// Whether notes are left out.
    pub(crate) quiet: bool,
    /// How times are shown.
    pub(crate) clock: Clock,
}

impl Out {
    /// As the options, the environment and the terminal say.
    pub(crate) fn new(globals: &Globals) -> Self {
        let wanted = |terminal: bool| match globals.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !refuses_colour(),
        };
        let (zone, unknown) = time::zone(config::time_zone().as_deref());
        let out = Self {
            format: globals.output,
            colour: wanted(io::stdout().is_terminal()),
            colour_notes: wanted(io::stderr().is_terminal()),
            quiet: globals.quiet,
            clock: if globals.utc { Clock::utc() } else { Clock::of_zone(zone) },
        };
        // A program reads the API's own times, which are in UTC.
        if let Some(name) = unknown.filter(|_| !globals.utc && globals.output == Format::Table) {
            out.note(format_args!(
                "warning: TZ names no time zone that is known here: `{}`; times are in UTC. Zones are named like Europe/Berlin",
                neutral::text(&name)
            ));
        }
        out
    }

    /// Writes the API's answer as it is, on a line of its own.
    pub(crate) fn json(&self, answer: &[u8]) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(answer);
        self.print(format_args!("{}\n", neutral::json(text.trim_end())))
    }

    /// Writes text to standard output.
    pub(crate) fn print(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        write!(out, "{text}").and_then(|()| out.flush()).map_err(output)
    }

    /// Tells the user something that is not the answer itself, on standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Tells the user which columns of a table had no room.
    pub(crate) fn note_left_out(&self, titles: &[String]) {
        if !titles.is_empty() {
            let titles = titles.join(", ");
            self.note(format_args!("No room for {titles}: a wider terminal shows more, --output json all."));
        }
    }

    /// Tells the user something that `--quiet` does not silence, on standard error.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        let colours = if self.colour_notes { neutral::Colours::Keep } else { neutral::Colours::Strip };
        // Nobody is left to tell that standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{}", neutral::lines(&text.to_string(), colours));
    }

    /// A JSON array whose items are written as they come.
    pub(crate) fn array(&self) -> Array<'static> {
        Array { out: BufWriter::new(io::stdout().lock()), empty: true }
    }
}

/// A JSON array in the making.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    out: BufWriter<StdoutLock<'a>>,
    empty: bool,
}

impl Array<'_> {
    /// Writes the next item as the API wrote it.
    pub(crate) fn push(&mut self, item: &RawValue) -> Result<(), Failure> {
        let before = if self.empty { "[" } else { ",\n " };
        self.empty = false;
        write!(self.out, "{before}{}", neutral::json(item.get())).map_err(output)
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        let end = if self.empty { "[]\n" } else { "]\n" };
        self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush()).map_err(output)
    }
}
