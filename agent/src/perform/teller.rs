//! Tells what happens: to the supervisor in frames, to a person in lines.

use std::fs::File;
use std::io::{self, Write};

use fleetward_protocol::event::Event;
use fleetward_protocol::output::MAX_RECORD;

use crate::platform::descriptor;
use crate::run::told::{Kind, TOLD, frame};

/// Where it is told.
#[derive(Debug)]
pub(super) struct Teller {
    /// The supervisor's pipe; `None` where there is no supervisor.
    pipe: Option<File>,
}

impl Teller {
    /// Takes the supervisor's pipe, so that no process that is started inherits it.
    pub(super) fn take() -> Self {
        Self { pipe: descriptor::take_pipe(TOLD) }
    }

    /// Tells people a line.
    pub(super) fn say(&mut self, words: &str) {
        self.line(Kind::Words, words);
    }

    /// Tells people a line about what is wrong.
    pub(super) fn complain(&mut self, words: &str) {
        self.line(Kind::Trouble, words);
    }

    /// Tells programs of a step.
    pub(super) fn event(&mut self, event: &Event) {
        if let Ok(payload) = event.encode() {
            self.tell(Kind::Event, &payload);
        }
    }

    /// Tells programs how it ended. Whether that fits.
    pub(super) fn report(&mut self, report: &[u8]) -> bool {
        let fits = report.len() <= MAX_RECORD;
        if fits {
            self.tell(Kind::Report, report);
        }
        fits
    }

    fn line(&mut self, kind: Kind, words: &str) {
        let line = format!("{words}\n");
        for piece in line.as_bytes().chunks(MAX_RECORD) {
            self.tell(kind, piece);
        }
    }

    /// Nobody who does not listen stops an action half-way: what cannot be told is not told.
    fn tell(&mut self, kind: Kind, payload: &[u8]) {
        let told = match (&mut self.pipe, kind) {
            (Some(pipe), kind) => pipe.write_all(&frame(kind, payload)),
            (None, Kind::Trouble) => io::stderr().lock().write_all(payload),
            (None, Kind::Words) => write(&mut io::stdout().lock(), payload, b""),
            (None, Kind::Event | Kind::Report) => write(&mut io::stdout().lock(), payload, b"\n"),
        };
        drop(told);
    }
}

fn write(out: &mut impl Write, payload: &[u8], end: &[u8]) -> io::Result<()> {
    out.write_all(payload)?;
    out.write_all(end)?;
    out.flush()
}
