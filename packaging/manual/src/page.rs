//! A manual page: the order of sections that man-pages(7) gives, each from the definition of its command.

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::notes::{self, Body, Note};
use crate::program::Program;

/// A page, ready to be written.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its file's name, such as `fleetward-host-add.1`.
    pub(crate) file: String,
    /// Its text, in the language of groff.
    pub(crate) text: String,
}

/// The pages of a program: its own, and one for each of its commands.
pub(crate) fn pages(program: &Program, date: &str) -> Result<Vec<Page>> {
    let mut definition = program.definition.clone().disable_help_subcommand(true);
    // Gives every command its full name and the options that hold for all.
    definition.build();
    let version = definition.get_version().context("a program without a version")?.to_owned();
    let mut pages = Vec::new();
    let context = Context { program, date, version: &version };
    context.walk(&definition, &[], &mut pages)?;
    Ok(pages)
}

struct Context<'a> {
    program: &'a Program,
    date: &'a str,
    version: &'a str,
}

impl Context<'_> {
    fn walk(&self, command: &Command, above: &[String], pages: &mut Vec<Page>) -> Result<()> {
        pages.push(self.page(command, above)?);
        let above: Vec<String> = above.iter().cloned().chain([name(command)]).collect();
        for subcommand in visible(command) {
            self.walk(subcommand, &above, pages)?;
        }
        Ok(())
    }

    fn page(&self, command: &Command, above: &[String]) -> Result<Page> {
        let name = name(command);
        let section = self.program.section;
        let notes = command.get_after_long_help().or_else(|| command.get_after_help());
        let notes = notes.map(|notes| notes::parse(&notes.to_string())).unwrap_or_default();

        let man = Man::new(shown(command, !above.is_empty()))
            .title(name.to_uppercase())
            .section(section)
            .date(self.date)
            .source(format!("Fleetward {}", self.version))
            .manual("Fleetward");
        let mut text = Vec::new();
        man.render_title(&mut text)?;
        // Names of commands and options are copied from here: none is broken, and no line is stretched.
        text.extend_from_slice(b".nh\n.ad l\n");
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        let mut roff = Roff::new();
        description(&mut roff, command, &notes);
        self.commands(&mut roff, command);
        append(&mut text, &roff);
        man.render_options_section(&mut text)?;

        let mut roff = Roff::new();
        if !above.is_empty() && command.get_arguments().any(|argument| argument.is_global_set()) {
            let root = above.first().map(String::as_str).unwrap_or_default();
            let others = roman("The options that every command takes are described in ");
            roff.control("PP", []).text([others, bold(root), roman(format!("({section})."))]);
        }
        sections(&mut roff, &notes);
        if above.is_empty() {
            roff.control("SH", ["FILES"]);
            for (path, meaning) in self.program.files {
                roff.control("TP", []).text([bold(*path)]).text(prose(meaning));
            }
        }
        self.see_also(&mut roff, command, above);
        append(&mut text, &roff);
        let text = String::from_utf8(text).context("a page that is not UTF-8")?;
        Ok(Page { file: format!("{name}.{section}"), text: quoted_in_bold(&text) })
    }

    fn commands(&self, roff: &mut Roff, command: &Command) {
        let mut subcommands = visible(command).peekable();
        if subcommands.peek().is_none() {
            return;
        }
        roff.control("SH", ["COMMANDS"]);
        for subcommand in subcommands {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            let reference = [bold(name(subcommand)), roman(format!("({})", self.program.section))];
            roff.control("TP", []).text(reference).text([roman(sentence(&about))]);
        }
    }

    fn see_also(&self, roff: &mut Roff, command: &Command, above: &[String]) {
        let section = self.program.section;
        let own = |name: &String| format!("{name}({section})");
        let mut pages: Vec<String> = above.iter().map(own).collect();
        if above.is_empty() {
            pages.extend(self.program.see_also.iter().map(|page| (*page).to_owned()));
        }
        pages.extend(visible(command).map(|subcommand| own(&name(subcommand))));
        let mut line: Vec<Inline> = Vec::new();
        for page in pages {
            let (name, section) = page.split_once('(').unwrap_or((&page, ""));
            if !line.is_empty() {
                line.push(roman(", "));
            }
            line.extend([bold(name), roman(format!("({section}"))]);
        }
        roff.control("SH", ["SEE ALSO"]).text(line);
    }
}

/// The command as its page shows it: the usage that `--help` shows, and options of every command on the first page only.
fn shown(command: &Command, is_below: bool) -> Command {
    let mut shown = command.clone();
    let usage = shown.render_usage().to_string();
    let usage = usage.strip_prefix("Usage:").unwrap_or(&usage).trim().to_owned();
    let about = shown.get_about().map(|about| about.to_string()).unwrap_or_default();
    // man-pages(7): the line of NAME is a phrase.
    let shown = shown.override_usage(usage).about(about.trim_end_matches('.').to_owned());
    shown.mut_args(
        |argument| {
            if is_below && argument.is_global_set() { argument.hide(true) } else { argument }
        },
    )
}

fn description(roff: &mut Roff, command: &Command, notes: &[Note]) {
    roff.control("SH", ["DESCRIPTION"]);
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    roff.text([roman(sentence(&about))]);
    for note in notes {
        match note {
            Note::Prose(paragraph) => drop(roff.control("PP", []).text(prose(paragraph))),
            Note::Verbatim(lines) => {
                roff.control("PP", []);
                verbatim(roff, lines);
            }
            Note::Section { .. } => {}
        }
    }
}

/// The sections of the notes in the order of man-pages(7), under its names for them.
fn sections(roff: &mut Roff, notes: &[Note]) {
    let heading = |heading: &str| match heading {
        "Exit codes" => "EXIT STATUS".to_owned(),
        "Example" => "EXAMPLES".to_owned(),
        other => other.to_uppercase(),
    };
    let place = |heading: &str| match heading {
        "EXIT STATUS" => 0,
        "ENVIRONMENT" => 1,
        "EXAMPLES" => 3,
        _ => 2,
    };
    let mut found: Vec<(String, &Body)> = notes
        .iter()
        .filter_map(|note| match note {
            Note::Section { heading: words, body } => Some((heading(words), body)),
            Note::Prose(_) | Note::Verbatim(_) => None,
        })
        .collect();
    found.sort_by_key(|(heading, _)| place(heading));
    for (heading, body) in found {
        roff.control("SH", [heading.as_str()]);
        match body {
            Body::Terms(terms) => {
                for (term, meaning) in terms {
                    roff.control("TP", []).text([bold(term)]).text(prose(meaning));
                }
            }
            Body::Lines(lines) => verbatim(roff, lines),
        }
    }
}

/// Lines as they are: neither filled nor broken.
fn verbatim(roff: &mut Roff, lines: &[String]) {
    roff.control("RS", ["4"]).control("nf", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("fi", []).control("RE", []);
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

/// The name of a command's page, such as `fleetward-host-add`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

fn prose(text: &str) -> Vec<Inline> {
    vec![roman(text)]
}

/// Without the preamble, which the title has written already.
fn append(text: &mut Vec<u8>, roff: &Roff) {
    let whole = roff.render();
    let preamble = Roff::new().render();
    text.extend_from_slice(whole.strip_prefix(preamble.as_str()).unwrap_or(&whole).as_bytes());
}

/// Words between backquotes in bold type: a help text has no other way to say that something is typed. Commands of
/// examples keep theirs: to a shell they mean something.
fn quoted_in_bold(text: &str) -> String {
    let mut is_verbatim = false;
    let mut whole = String::with_capacity(text.len());
    for line in text.lines() {
        match line {
            ".nf" => is_verbatim = true,
            ".fi" => is_verbatim = false,
            _ => {}
        }
        let parts: Vec<&str> = line.split('`').collect();
        if is_verbatim || line.starts_with('.') || parts.len().is_multiple_of(2) {
            whole.push_str(line);
        } else {
            for (index, part) in parts.iter().enumerate() {
                match index % 2 {
                    0 => whole.push_str(part),
                    _ => whole.extend(["\\fB", part, "\\fR"]),
                }
            }
        }
        whole.push('\n');
    }
    whole
}

#[cfg(test)]
mod tests;
