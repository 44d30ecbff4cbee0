//! Tables for people: aligned columns, no lines; what came from a host is made harmless first.

use std::io::IsTerminal as _;

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, presets};

use super::{Out, neutral};

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
    colour: bool,
    one_line: bool,
}

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What a cell's colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    Plain,
    /// All is well.
    Good,
    /// Something failed.
    Bad,
    /// Something waits, or wants attention.
    Warn,
    /// It matters less.
    Dim,
}

impl Cell {
    /// A cell of any text; control characters become visible.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: neutral::text(text.as_ref()), tone: Tone::Plain }
    }

    /// The same in a tone.
    pub(crate) const fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl Tone {
    /// `text` in this tone, where colours are wanted.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Dim => "2",
            Self::Plain => return text.to_owned(),
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Table {
    /// An empty table for standard output.
    pub(crate) fn new<const N: usize>(out: &Out, header: [&str; N]) -> Self {
        Self::build(header, out.colour, std::io::stdout().is_terminal().then(width))
    }

    /// An empty table for standard output, of as many columns as there are titles.
    pub(crate) fn of_columns(out: &Out, header: &[String]) -> Self {
        let header = header.iter().map(|title| neutral::text(title));
        Self::build(header, out.colour, std::io::stdout().is_terminal().then(width))
    }

    /// An empty table for standard error.
    pub(crate) fn for_notes<const N: usize>(out: &Out, header: [&str; N]) -> Self {
        Self::build(header, out.colour_notes, std::io::stderr().is_terminal().then(width))
    }

    fn build(header: impl IntoIterator<Item = impl ToString>, colour: bool, width: Option<u16>) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_preset(presets::NOTHING);
        match width {
            Some(width) => inner.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => inner.set_content_arrangement(ContentArrangement::Disabled),
        };
        if colour {
            inner.enforce_styling();
        }
        inner.set_header(header.into_iter().map(|title| {
            let cell = comfy_table::Cell::new(title.to_string());
            if colour { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        Self { inner, colour, one_line: false }
    }

    /// On a terminal, each row takes one line: the last column is cut where the others leave no more room.
    pub(crate) fn one_line_rows(mut self) -> Self {
        self.one_line = self.inner.width().is_some();
        self
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.push(cells);
    }

    /// Adds a row of any number of cells.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let colour = self.colour;
        let mut row = comfy_table::Row::from(cells.into_iter().map(|cell| {
            let styled = comfy_table::Cell::new(cell.text);
            if !colour {
                return styled;
            }
            match cell.tone {
                Tone::Plain => styled,
                Tone::Good => styled.fg(Color::Green),
                Tone::Bad => styled.fg(Color::Red),
                Tone::Warn => styled.fg(Color::Yellow),
                Tone::Dim => styled.add_attribute(Attribute::Dim),
            }
        }));
        if self.one_line {
            row.max_height(1);
        }
        self.inner.add_row(row);
    }

    /// Sets a column of numbers flush right.
    pub(crate) fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.inner.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// The finished text; every line ends with a line feed, none with blanks.
    pub(crate) fn finish(mut self) -> String {
        let last = self.inner.column_count().saturating_sub(1);
        for (index, column) in self.inner.column_iter_mut().enumerate() {
            column.set_padding((0, if index == last { 0 } else { 2 }));
            if self.one_line && index != last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let mut text = String::new();
        for line in self.inner.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values, one pair a line.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    rows: Vec<(String, String)>,
}

impl Sheet {
    /// Adds a value; an empty one is left out.
    pub(crate) fn row(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        if !value.as_ref().is_empty() {
            self.rows.push((neutral::text(name.as_ref()), neutral::text(value.as_ref())));
        }
    }

    /// Adds a value in a tone.
    pub(crate) fn toned(&mut self, out: &Out, name: &'static str, value: impl AsRef<str>, tone: Tone) {
        self.rows.push((name.to_owned(), tone.paint(&neutral::text(value.as_ref()), out.colour)));
    }

    /// The finished text.
    pub(crate) fn finish(self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        self.rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }
}

/// The terminal's width.
fn width() -> u16 {
    console::Term::stdout()
        .size_checked()
        .or_else(|| console::Term::stderr().size_checked())
        .map_or(100, |size| size.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: Option<u16>) -> String {
        let mut table = Table::build(["TIME", "WHO", "DETAILS"], false, width).one_line_rows();
        table.row(["2026-01-02 03:04:05 UTC".into(), "ann".into(), "x y ".repeat(100).into()]);
        table.row(["2026-01-02 03:04:06 UTC".into(), "bob".into(), "short".into()]);
        table.finish()
    }

    #[test]
    fn a_row_of_one_line_is_cut_on_a_terminal_alone() {
        let cut = table(Some(60));
        let lines: Vec<&str> = cut.lines().collect();
        assert_eq!(lines.len(), 3, "{cut}");
        assert!(lines.iter().all(|line| line.chars().count() <= 60), "{cut}");
        assert!(lines[1].starts_with("2026-01-02 03:04:05 UTC  ann  x y"), "{cut}");
        let whole = table(None);
        assert!(whole.lines().nth(1).unwrap().len() > 400, "{whole}");
    }
}
