//! The live view for people: output line by line, prefixed by its host; a progress line below.
//!
//! Output of hosts goes to standard output; what is said about it goes to standard error. `|` stands between a
//! host and its standard output, `!` between it and its standard error, `+` before the rest of a line of
//! which a part was shown already.

mod absence;

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_api::fleet::host::Host;
use fleetward_api::time::Time;
use fleetward_api::work::event::{OutputEvent, OutputPiece};
use fleetward_api::work::operation::Operation;
use fleetward_api::work::run::{OutputStream, Run, RunState};
use fleetward_protocol::id::RunId;
use fleetward_protocol::name::HostName;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::View;
use super::lines::{Assembler, Line, Part};
use super::tally::Tally;
use crate::client::sse::ServerEvent;
use crate::failure::{Failure, output};
use crate::render::neutral::{self, Colours};
use crate::render::table::{Cell, Table, Tone};
use crate::render::time::span;
use crate::render::{Out, words};

/// Names longer than this are not aligned to.
const MAX_ALIGNED: usize = 28;
/// Colours for hosts (256-colour palette): readable on light and on dark.
const HOST_COLOURS: [u8; 12] = [33, 36, 64, 68, 71, 97, 130, 133, 136, 161, 166, 172];
/// How long an unfinished line waits for its end before its part is shown to a person, who may be waiting too.
const UNFINISHED: Duration = Duration::from_millis(500);
/// The same for a file or a program, which would rather have it whole.
const UNFINISHED_IN_FILE: Duration = Duration::from_secs(10);
/// The most failures listed at the end.
const MAX_FAILURES: usize = 50;

type Source = (RunId, OutputStream);

/// The live view for people.
#[derive(Debug)]
pub(crate) struct Screen<'a> {
    out: &'a Out,
    options: Options,
    width: usize,
    lines: Assembler<Source, Time>,
    prefixes: HashMap<RunId, String>,
    tally: Tally,
    operation: Option<Operation>,
    bar: Option<ProgressBar>,
    pending: Pending,
    unfinished: Duration,
    begun: Instant,
    /// When a run last changed.
    changed: Instant,
    /// The hosts that were said to be away.
    away: HashSet<HostName>,
}

/// What is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Only output of this host.
    pub(crate) host: Option<HostName>,
    /// Only this stream.
    pub(crate) stream: Option<OutputStream>,
    /// The host's time of each line, or nothing.
    pub(crate) times: Times,
}

/// Whether lines carry their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Times {
    /// They do.
    Shown,
    /// They do not.
    #[default]
    Hidden,
}

/// Text on its way to the two outputs, in order.
#[derive(Debug, Default)]
struct Pending {
    parts: Vec<(Target, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Output,
    Notes,
}

impl Pending {
    fn at(&mut self, target: Target) -> &mut String {
        if self.parts.last().is_none_or(|(last, _)| *last != target) {
            self.parts.push((target, String::new()));
        }
        // The last part was just made to be for `target`.
        let last = self.parts.len() - 1;
        &mut self.parts[last].1
    }

    fn write(&mut self) -> io::Result<()> {
        for (target, text) in self.parts.drain(..) {
            match target {
                Target::Output => {
                    let mut out = io::stdout().lock();
                    out.write_all(text.as_bytes())?;
                    out.flush()?;
                }
                // Nobody is left to tell that standard error is gone.
                Target::Notes => drop(io::stderr().lock().write_all(text.as_bytes())),
            }
        }
        Ok(())
    }
}

impl<'a> Screen<'a> {
    /// A view of an operation on `hosts`, as far as they are known.
    pub(crate) fn new<'h>(
        out: &'a Out,
        options: Options,
        hosts: impl Iterator<Item = &'h str>,
        begun: Instant,
    ) -> Self {
        let width = hosts.map(str::len).filter(|length| *length <= MAX_ALIGNED).max().unwrap_or(0);
        let bar = (io::stderr().is_terminal() && !out.quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style(out.colour_notes));
            bar
        });
        Self {
            out,
            options,
            width,
            lines: Assembler::new(),
            prefixes: HashMap::new(),
            tally: Tally::default(),
            operation: None,
            bar,
            pending: Pending::default(),
            unfinished: if io::stdout().is_terminal() { UNFINISHED } else { UNFINISHED_IN_FILE },
            begun,
            changed: begun,
            away: HashSet::new(),
        }
    }

    /// The same, of an operation that is known already: its events come behind those of its runs.
    pub(crate) fn of(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// The operation as it was last heard of.
    pub(crate) const fn operation(&self) -> Option<&Operation> {
        self.operation.as_ref()
    }

    /// Takes the progress line away and says how the operation ended.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let (lines, pending) = (&mut self.lines, &mut self.pending);
        let (out, prefixes, options) = (self.out, &self.prefixes, &self.options);
        lines.finish(|_| true, &mut |line| print_line(out, prefixes, options, line, pending));
        self.flush()?;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(operation) = &self.operation
            && words::operation_ended(operation.status)
        {
            self.summary(operation);
        }
        Ok(())
    }

    /// Takes the progress line away, and says nothing.
    pub(crate) fn leave(mut self) -> Result<(), Failure> {
        self.flush()?;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        Ok(())
    }

    fn summary(&self, operation: &Operation) {
        let mut failures = self.tally.failures();
        if let Some(only) = &self.options.host {
            failures.retain(|run| run.host == *only);
        }
        if !failures.is_empty() {
            let mut table = Table::for_notes(self.out, ["HOST", "SUBJECT", "STATE", "TOOK", ""]).right(3);
            for run in failures.iter().take(MAX_FAILURES) {
                table.row([
                    run.host.as_str().into(),
                    run.subject.as_str().into(),
                    Cell::new(words::run_in_short(run)).tone(words::run_tone(run.state)),
                    run.duration_ms.map(span).unwrap_or_default().into(),
                    Cell::new(words::run_remarks(run)).tone(Tone::Dim),
                ]);
            }
            self.out.warn(format_args!("\n{}", table.finish().trim_end()));
            if failures.len() > MAX_FAILURES {
                self.out.warn(format_args!(
                    "and {} more: fleetward op show {}",
                    failures.len() - MAX_FAILURES,
                    operation.number
                ));
            }
        }
        self.out.note(self.last_line(operation));
    }

    /// How an operation ended.
    fn last_line(&self, operation: &Operation) -> String {
        let took = match (operation.started_at, operation.ended_at) {
            (Some(start), Some(end)) => end.timestamp().since(start.timestamp()),
            _ => self.begun.elapsed(),
        };
        let status = words::operation_tone(operation.status)
            .paint(words::operation_status(operation.status), self.out.colour_notes);
        let left_out = match operation.left_out as usize {
            0 => String::new(),
            hosts => format!("; {} not enrolled, left out", words::count(hosts, "host")),
        };
        let detail = operation.status_detail.as_ref().map(|text| format!("; {}", neutral::text(text)));
        format!(
            "{} {status}: {} of {} succeeded in {}{left_out}{}",
            operation.number,
            self.tally.succeeded(),
            words::count(self.tally.known(), "run"),
            span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            detail.unwrap_or_default()
        )
    }

    fn take_output(&mut self, event: &OutputEvent) {
        if self.options.host.as_ref().is_some_and(|host| *host != event.host) {
            return;
        }
        self.prefix(event.run, &event.host);
        let now = Instant::now();
        for piece in &event.pieces {
            match (piece.stream, piece.dropped) {
                (Some(stream), _) => self.take_piece(event.run, stream, piece, now),
                (None, Some(bytes)) => self.take_gap(event.run, bytes),
                (None, None) => {}
            }
        }
    }

    fn take_piece(&mut self, run: RunId, stream: OutputStream, piece: &OutputPiece, now: Instant) {
        if self.options.stream.is_some_and(|wanted| wanted != stream) {
            return;
        }
        let decoded;
        let bytes = match (&piece.text, &piece.base64) {
            (Some(text), _) => text.as_bytes(),
            (None, Some(base64)) => {
                decoded = STANDARD.decode(base64).unwrap_or_default();
                &decoded
            }
            (None, None) => return,
        };
        let (lines, pending) = (&mut self.lines, &mut self.pending);
        let (out, prefixes, options) = (self.out, &self.prefixes, &self.options);
        lines.push(&(run, stream), piece.at, bytes, now, &mut |line| {
            print_line(out, prefixes, options, line, pending);
        });
    }

    fn take_gap(&mut self, run: RunId, bytes: u64) {
        self.finish_lines(run);
        let prefix = self.prefixes.get(&run).map_or("", String::as_str);
        let marker = Tone::Warn.paint(&words::dropped(bytes), self.out.colour);
        let text = self.pending.at(Target::Output);
        text.push_str(prefix);
        text.push_str("  ");
        text.push_str(&marker);
        text.push('\n');
    }

    fn finish_lines(&mut self, run: RunId) {
        let (lines, pending) = (&mut self.lines, &mut self.pending);
        let (out, prefixes, options) = (self.out, &self.prefixes, &self.options);
        lines.finish(|source| source.0 == run, &mut |line| print_line(out, prefixes, options, line, pending));
    }

    fn take_run(&mut self, mut run: Run) {
        run.report = None;
        let shown = self.options.host.as_ref().is_none_or(|host| *host == run.host);
        let ended = words::run_ended(run.state);
        if ended {
            self.finish_lines(run.id);
        }
        self.prefix(run.id, &run.host);
        self.changed = Instant::now();
        let before = self.tally.take(run.clone());
        if !shown || self.out.quiet {
            return;
        }
        let known = before.as_ref().map_or(0, |run| run.reattached);
        if run.reattached > known && !ended {
            self.announce(&run, Tone::Warn, "↻", "re-attached");
        }
        if !ended || before.is_some_and(|before| words::run_ended(before.state)) {
            return;
        }
        let mut text = words::run(&run);
        if let Some(took) = run.duration_ms {
            text.push_str(&format!(" ({})", span(took)));
        }
        let remarks = words::run_remarks(&run);
        if !remarks.is_empty() {
            text.push_str(&format!(", {remarks}"));
        }
        let mark = match run.state {
            RunState::Succeeded => "✓",
            RunState::Cancelled => "–",
            _ => "✗",
        };
        self.announce(&run, words::run_tone(run.state), mark, &text);
    }

    fn announce(&mut self, run: &Run, tone: Tone, mark: &str, text: &str) {
        let several = self.operation.as_ref().is_some_and(|operation| operation.steps.len() > 1);
        let subject = if several { format!("{}: ", run.subject) } else { String::new() };
        let colour = self.out.colour_notes;
        let line = format!(
            "{} {} {}\n",
            paint_host(run.host.as_str(), self.width, colour),
            tone.paint(mark, colour),
            tone.paint(&neutral::text(&format!("{subject}{text}")), colour)
        );
        self.pending.at(Target::Notes).push_str(&line);
    }

    fn prefix(&mut self, run: RunId, host: &HostName) {
        let (width, colour) = (self.width, self.out.colour);
        self.prefixes.entry(run).or_insert_with(|| paint_host(host.as_str(), width, colour));
    }

    fn read<T: serde::de::DeserializeOwned>(event: &ServerEvent) -> Result<T, Failure> {
        serde_json::from_str(&event.data).map_err(|error| {
            let what = format!("cannot read the controller's `{}` event", neutral::text(&event.name));
            Failure::Other(anyhow::Error::new(error).context(what))
        })
    }

    fn progress(&self) {
        let (Some(bar), Some(operation)) = (&self.bar, &self.operation) else { return };
        let runs = u64::from(operation.hosts) * operation.steps.len() as u64;
        bar.set_length(runs.max(self.tally.known() as u64));
        bar.set_position(self.tally.ended() as u64);
        bar.set_prefix(neutral::text(&operation.number));
        bar.set_message(self.tally.words());
    }
}

impl View for Screen<'_> {
    fn event(&mut self, event: &ServerEvent) -> Result<(), Failure> {
        match event.name.as_str() {
            "output" => self.take_output(&Self::read(event)?),
            "run" => self.take_run(Self::read(event)?),
            "operation" | "end" => self.operation = Some(Self::read(event)?),
            // A newer controller may say more.
            _ => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.progress();
        let pending = &mut self.pending;
        if pending.parts.is_empty() {
            return Ok(());
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| pending.write()),
            None => pending.write(),
        }
        .map_err(output)
    }

    fn tick(&mut self, now: Instant) -> Result<(), Failure> {
        let (lines, pending) = (&mut self.lines, &mut self.pending);
        let (out, prefixes, options) = (self.out, &self.prefixes, &self.options);
        if let Some(before) = now.checked_sub(self.unfinished) {
            lines.flush_idle(before, &mut |line| print_line(out, prefixes, options, line, pending));
        }
        self.flush()?;
        if let Some(bar) = self.bar.as_ref().filter(|_| self.operation.is_some()) {
            bar.tick();
        }
        Ok(())
    }

    fn waits_for(&self, now: Instant) -> Vec<HostName> {
        self.unspoken(now)
    }

    fn hosts(&mut self, hosts: &[Host]) -> Result<(), Failure> {
        self.take_hosts(hosts);
        self.flush()
    }

    fn remark(&mut self, text: &str) -> Result<(), Failure> {
        let text = Tone::Warn.paint(text, self.out.colour_notes);
        self.pending.at(Target::Notes).push_str(&format!("{text}\n"));
        self.flush()
    }
}

fn print_line(
    out: &Out,
    prefixes: &HashMap<RunId, String>,
    options: &Options,
    line: Line<'_, Source, Time>,
    pending: &mut Pending,
) {
    let (run, stream) = line.source;
    let text = pending.at(Target::Output);
    if options.times == Times::Shown {
        text.push_str(&Tone::Dim.paint(&out.clock.of_day(line.tag), out.colour));
        text.push(' ');
    }
    text.push_str(prefixes.get(run).map_or("", String::as_str));
    let (mark, tone) = match (line.part, stream) {
        (Part::Continued, OutputStream::Stdout) => ("+", Tone::Dim),
        (Part::Continued, OutputStream::Stderr) => ("+", Tone::Bad),
        (Part::First, OutputStream::Stdout) => ("|", Tone::Dim),
        (Part::First, OutputStream::Stderr) => ("!", Tone::Bad),
    };
    text.push(' ');
    text.push_str(&tone.paint(mark, out.colour));
    if !line.bytes.is_empty() {
        text.push(' ');
    }
    neutral::line(line.bytes, if out.colour { Colours::Keep } else { Colours::Strip }, text);
    text.push('\n');
}

/// A host's name, padded, in a colour of its own.
fn paint_host(host: &str, width: usize, colour: bool) -> String {
    let padded = format!("{host:width$}");
    if !colour {
        return padded;
    }
    // FNV-1a: the same host has the same colour every day.
    let hash = host
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let index = (hash >> 7) as usize % HOST_COLOURS.len();
    format!("\x1b[38;5;{}m{padded}\x1b[0m", HOST_COLOURS[index])
}

fn style(colour: bool) -> ProgressStyle {
    let template = match colour {
        true => "{spinner:.cyan} {prefix:.bold} [{bar:24.cyan/dim}] {pos}/{len} {elapsed:.dim} {wide_msg}",
        false => "{spinner} {prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}",
    };
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

#[cfg(test)]
mod tests;
