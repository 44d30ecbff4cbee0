//! Tables for people: aligned columns, no lines; what came from a host is made harmless first.

use std::io::IsTerminal as _;

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, presets};
use console::{measure_text_width, truncate_str};

use super::{Out, neutral};

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
    colour: bool,
    one_line: bool,
}

/// Rows under a header, of any number of columns; the first two say of what a row is. On a terminal each row takes one line: where
/// it is too narrow, columns without a value are left out, wide columns are cut, and then the last ones are left out.
#[derive(Debug)]
pub(crate) struct WideTable {
    titles: Vec<String>,
    rows: Vec<Vec<Cell>>,
    colour: bool,
    width: Option<usize>,
}

/// Columns of a wide table are not cut below this.
const MIN_COLUMN: usize = 12;
/// So many columns say of what a row is: a host, and what it has.
const NAMING: usize = 2;
/// Blanks between two columns.
const GAP: usize = 2;

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

impl WideTable {
    /// An empty table for standard output, of as many columns as there are titles.
    pub(crate) fn new(out: &Out, titles: impl IntoIterator<Item = String>) -> Self {
        let titles = titles.into_iter().map(|title| neutral::text(&title)).collect();
        let width = std::io::stdout().is_terminal().then(|| usize::from(width()));
        Self { titles, rows: Vec::new(), colour: out.colour, width }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().take(self.titles.len()).collect());
    }

    /// The finished text, and the titles of the columns with values for which there was no room.
    pub(crate) fn finish(mut self) -> (String, Vec<String>) {
        let whole =
            |table: &Self| table.widths().iter().sum::<usize>() + GAP * table.titles.len().saturating_sub(1);
        while self.width.is_some_and(|width| whole(&self) > width) && self.leave_out_an_empty_one() {}
        let mut widths = self.widths();
        fit(&mut widths, self.width.unwrap_or(usize::MAX));
        let left_out = self.titles[widths.len()..].to_vec();
        let cut = |text: &str, width: usize| truncate_str(text, width, "…").into_owned();
        let header = self.titles.iter().zip(&widths).map(|(title, width)| cut(title, *width));
        let mut table = Table::build(header, self.colour, None);
        for row in self.rows {
            let cells = row.into_iter().zip(&widths);
            table.push(cells.map(|(cell, width)| Cell { text: cut(&cell.text, *width), tone: cell.tone }));
        }
        (table.finish(), left_out)
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.titles.iter().map(|title| measure_text_width(title)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(&cell.text));
            }
        }
        widths
    }

    /// Leaves the last column out in which no row has anything; whether there was one.
    fn leave_out_an_empty_one(&mut self) -> bool {
        let is_empty = |column: &usize| {
            self.rows.iter().all(|row| row.get(*column).is_none_or(|cell| cell.text.is_empty()))
        };
        let Some(empty) = (NAMING..self.titles.len()).rev().find(is_empty) else { return false };
        self.titles.remove(empty);
        for row in self.rows.iter_mut().filter(|row| row.len() > empty) {
            row.remove(empty);
        }
        true
    }
}

/// Takes from the widest columns, and from the end, until all of them have room in `width`. Those that name stay, and are cut only
/// where they take more than their half of it.
fn fit(columns: &mut Vec<usize>, width: usize) {
    let total = |columns: &[usize]| columns.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
    let least = |at: usize| if at < NAMING { MIN_COLUMN.max(width / 2) } else { MIN_COLUMN };
    while total(columns) > width {
        let beyond = total(columns) - width;
        let cuttable = |(at, column): (usize, &usize)| (*column > least(at)).then_some(*column);
        let Some(widest) = columns.iter().enumerate().filter_map(cuttable).max() else {
            if columns.len() <= NAMING {
                return;
            }
            columns.pop();
            continue;
        };
        // Down to the next widest, all that are as wide: none is cut while another one has more.
        let next = columns.iter().copied().filter(|column| *column < widest).max().unwrap_or(0);
        let is_widest = |(at, column): &(usize, &mut usize)| **column == widest && **column > least(*at);
        let many = columns.iter_mut().enumerate().filter(is_widest).count().max(1);
        for (at, column) in columns.iter_mut().enumerate().filter(is_widest) {
            *column -= beyond.div_ceil(many).min(widest - next.max(least(at)));
        }
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
    fn a_wide_table_has_room_on_a_terminal() {
        let table = |width: Option<usize>| {
            let titles = ["HOST", "DESCRIPTION", "STATE", "MORE"].map(str::to_owned).to_vec();
            let mut table = WideTable { titles, rows: Vec::new(), colour: false, width };
            table.push(["web-1", &"ü".repeat(50), "running", &"x".repeat(30)].map(Cell::new));
            table.finish()
        };
        let (whole, left_out) = table(None);
        assert!(left_out.is_empty() && whole.lines().nth(1).unwrap().chars().count() > 90, "{whole}");
        for (width, titles) in [(80, 4), (60, 4), (46, 3), (41, 3), (20, 2)] {
            let (text, left_out) = table(Some(width));
            assert_eq!(4 - left_out.len(), titles, "{width}: {text}");
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= width.max(22)), "{width}: {text}");
        }
        let (text, _) = table(Some(80));
        assert!(text.contains(&format!("{}…", "ü".repeat(39))), "half of the width is for the name: {text}");
        let (text, _) = table(Some(60));
        assert!(text.lines().nth(1).unwrap().contains("ü…  running  x"), "{text}");
    }

    #[test]
    fn what_is_empty_goes_before_a_name_is_cut() {
        let table = |width: usize| {
            let titles = ["HOST", "UNIT", "CPU", "STATE", "TASKS"].map(str::to_owned).to_vec();
            let mut table = WideTable { titles, rows: Vec::new(), colour: false, width: Some(width) };
            table.push(["web-1", "systemd-networkd-wait-online.service", "", "inactive", ""].map(Cell::new));
            table.finish()
        };
        let (text, left_out) = table(80);
        assert!(text.starts_with("HOST") && text.contains("CPU") && left_out.is_empty(), "{text}");
        let (text, left_out) = table(56);
        assert!(text.contains("wait-online.service  inactive\n") && !text.contains("CPU"), "{text}");
        assert!(left_out.is_empty(), "nothing is missed that had no value: {left_out:?}");
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
