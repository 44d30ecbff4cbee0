//! What a kind answers with as columns of a table: the fields of its schema, objects in them taken apart.

use std::collections::BTreeSet;

use fleetward_api::time::Time;
use fleetward_protocol::time::Timestamp;
use serde_json::{Map, Value};

use crate::render::time::Clock;
use crate::render::value;
use fleetward_api::work::kind::schema::{Field, Shape};

/// The most columns of a table: a host may answer with any fields, and as many as it likes.
const MAX_COLUMNS: usize = 64;
/// What an action found, and what it left: two objects of the same fields are one column for each field.
const BEFORE: &str = "before";
const AFTER: &str = "after";

/// Where a value stands in a row: the names that lead to it.
type Path = Vec<String>;

/// How times stand in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// By how long ago they were: of what is so now.
    Ago,
    /// By date and time: of what was so once.
    At,
}

/// The columns of a table.
#[derive(Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    times: Times,
}

#[derive(Debug)]
struct Column {
    title: String,
    path: Path,
    /// Where the same stands as it was before.
    before: Option<Path>,
    is_time: bool,
}

impl Columns {
    /// The columns that at least one of `rows` fills: in the order of the schema, then others by name.
    pub(crate) fn of<'a>(
        fields: &[Field],
        rows: impl IntoIterator<Item = &'a Map<String, Value>>,
        times: Times,
    ) -> Self {
        let mut filled = BTreeSet::new();
        for row in rows {
            fill(fields, row, &mut Vec::new(), &mut filled);
        }
        if has_both(fields) {
            let later: Vec<Path> =
                filled.iter().filter_map(|path| twin(fields, path, BEFORE, AFTER)).collect();
            filled.extend(later);
        }
        let mut declared = Vec::new();
        leaves(fields, &mut Vec::new(), &mut declared);
        let others: Vec<Path> =
            filled.iter().filter(|path| declared.iter().all(|(known, _)| known != *path)).cloned().collect();
        let all = declared.into_iter().filter(|(path, _)| filled.contains(path));
        let all: Vec<(Path, bool)> =
            all.chain(others.into_iter().map(|path| (path, false))).take(MAX_COLUMNS).collect();
        Self { columns: merged(fields, all), times }
    }

    /// Their titles.
    pub(crate) fn titles(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(|column| column.title.to_uppercase())
    }

    /// Without those that have a list in one of `rows` that is more than a word or two; their names.
    pub(crate) fn without_lists<'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a Map<String, Value>> + Clone,
        is_list: impl Fn(&Value) -> bool,
    ) -> Vec<String> {
        let has_list = |column: &Column| {
            rows.clone().into_iter().any(|row| find(row, &column.path).is_some_and(&is_list))
        };
        let (lists, others): (Vec<Column>, Vec<Column>) = self.columns.drain(..).partition(has_list);
        self.columns = others;
        lists.into_iter().map(|column| column.title).collect()
    }

    /// The values of a row that are there: by name, as they are, and as they are shown.
    pub(crate) fn values<'a>(
        &self,
        row: &'a Map<String, Value>,
        clock: &Clock,
    ) -> Vec<(String, &'a Value, String)> {
        let shown = self.columns.iter().zip(self.cells(row, clock));
        let value = |column: &Column| {
            find(row, &column.path).or_else(|| find(row, column.before.as_ref()?)).unwrap_or(&Value::Null)
        };
        shown.map(|(column, text)| (column.title.clone(), value(column), text)).collect()
    }

    /// What a row has in each of them.
    pub(crate) fn cells(&self, row: &Map<String, Value>, clock: &Clock) -> Vec<String> {
        let text = |column: &Column, path: &Path| {
            find(row, path).map(|value| self.text(value, column.is_time, clock)).unwrap_or_default()
        };
        let cell = |column: &Column| {
            let now = text(column, &column.path);
            match column.before.as_ref().map(|path| text(column, path)) {
                // Of two times only the later one tells something.
                Some(before) if before != now && !column.is_time => {
                    let shown = |text: String| if text.is_empty() { "–".to_owned() } else { text };
                    format!("{} → {}", shown(before), shown(now))
                }
                _ => now,
            }
        };
        self.columns.iter().map(cell).collect()
    }

    fn text(&self, value: &Value, is_time: bool, clock: &Clock) -> String {
        match time(value).filter(|_| is_time) {
            Some(time) if self.times == Times::Ago => clock.ago(time),
            Some(time) => clock.at(time),
            None => value::plain(value),
        }
    }
}

/// Each value of a row by its name (`before.active` in an object), as text; times by the clock.
pub(crate) fn flat(fields: &[Field], row: &Map<String, Value>, clock: &Clock) -> Vec<(String, String)> {
    let columns = Columns::of(fields, [row], Times::At);
    let named = |column: &Column| {
        let each = column.before.iter().chain([&column.path]);
        let text = |path: &Path| {
            let value = find(row, path)?;
            Some((path.join("."), columns.text(value, column.is_time, clock)))
        };
        each.filter_map(text).collect::<Vec<_>>()
    };
    columns.columns.iter().flat_map(named).collect()
}

/// The values that are declared, with what leads to them, and whether they are times.
fn leaves(fields: &[Field], path: &mut Path, found: &mut Vec<(Path, bool)>) {
    for field in fields {
        path.push(field.name.clone());
        match &field.shape {
            Shape::Object(inner) => leaves(inner, path, found),
            shape => found.push((path.clone(), *shape == Shape::Time)),
        }
        path.pop();
    }
}

/// What leads to the values of a row that say something.
fn fill(fields: &[Field], row: &Map<String, Value>, path: &mut Path, filled: &mut BTreeSet<Path>) {
    for (name, value) in row {
        path.push(name.clone());
        let declared = fields.iter().find(|field| field.name == *name).map(|field| &field.shape);
        match (declared, value) {
            (Some(Shape::Object(inner)), Value::Object(entries)) => fill(inner, entries, path, filled),
            (_, value) if !value::plain(value).is_empty() => drop(filled.insert(path.clone())),
            _ => {}
        }
        path.pop();
    }
}

/// Whether there are two objects, of what was before and of what is after.
fn has_both(fields: &[Field]) -> bool {
    let is_object =
        |name: &str| fields.iter().any(|field| field.name == name && matches!(field.shape, Shape::Object(_)));
    is_object(BEFORE) && is_object(AFTER)
}

/// Where in `to` the same stands as at `path` in `from`, unless a field of that name stands beside them.
fn twin(fields: &[Field], path: &Path, from: &str, to: &str) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    let title = rest.join(".");
    let is_one = first == from && !rest.is_empty() && fields.iter().all(|field| field.name != title);
    is_one.then(|| std::iter::once(to.to_owned()).chain(rest.iter().cloned()).collect())
}

/// With one column for what stands in `before` and in `after`.
fn merged(fields: &[Field], all: Vec<(Path, bool)>) -> Vec<Column> {
    let both = has_both(fields);
    let mut columns: Vec<Column> = Vec::new();
    for (path, is_time) in all {
        let (after, before) = (twin(fields, &path, BEFORE, AFTER), twin(fields, &path, AFTER, BEFORE));
        let (path, before) = match (after, before) {
            (Some(after), _) if both => (after, Some(path)),
            (_, Some(before)) if both => (path, Some(before)),
            _ => (path, None),
        };
        if columns.iter().all(|column| column.path != path) {
            let title = if before.is_some() { path[1..].join(".") } else { path.join(".") };
            columns.push(Column { title, path, before, is_time });
        }
    }
    columns
}

fn find<'a>(row: &'a Map<String, Value>, path: &Path) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(row.get(first)?, |value, name| value.get(name))
}

/// A value of a field that holds times.
fn time(value: &Value) -> Option<Time> {
    Some(Timestamp::from_millis(value.as_i64()?).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use fleetward_api::testing::object;
    use fleetward_api::work::kind::schema::fields;

    fn schema() -> Vec<Field> {
        let state = json!({ "type": "object", "required": ["active"], "properties": {
            "active": { "type": "string" }, "pid": { "type": "integer" },
            "since": { "type": "integer", "format": "unix-ms" },
        } });
        fields(&object(json!({ "required": ["changed"], "properties": {
            "after": state, "before": state, "changed": { "type": "boolean" }, "note": { "type": "string" },
        } })))
    }

    fn shown(rows: &[Value]) -> (Vec<String>, Vec<Vec<String>>) {
        let rows: Vec<Map<String, Value>> = rows.iter().cloned().map(object).collect();
        let columns = Columns::of(&schema(), &rows, Times::At);
        let cells = rows.iter().map(|row| columns.cells(row, &Clock::utc())).collect();
        (columns.titles().collect(), cells)
    }

    #[test]
    fn what_was_before_and_what_is_after_is_one_column() {
        let (titles, cells) = shown(&[
            json!({ "changed": true, "before": { "active": "active", "pid": 7, "since": 1_767_323_045_000_i64 },
                "after": { "active": "inactive", "since": 1_767_323_046_000_i64 } }),
            json!({ "changed": false, "before": { "active": "active" }, "after": { "active": "active" } }),
        ]);
        assert_eq!(titles, ["CHANGED", "ACTIVE", "PID", "SINCE"]);
        assert_eq!(cells[0], ["true", "active → inactive", "7 → –", "2026-01-02 03:04:06 UTC"]);
        assert_eq!(cells[1], ["false", "active", "", ""]);
    }

    #[test]
    fn what_nobody_declared_is_shown_behind_it() {
        let (titles, cells) = shown(&[
            json!({ "more": { "a": 1, "b": { "c": [2, 3] } }, "after": { "new": "x" }, "note": null, "at": 5 }),
        ]);
        assert_eq!(titles, ["NEW", "AT", "MORE"]);
        assert_eq!(cells[0], ["– → x", "5", "a 1, b (c 2, 3)"]);
    }

    #[test]
    fn a_row_alone_names_everything_by_where_it_stands() {
        let row =
            object(json!({ "changed": true, "after": { "since": 1_767_323_045_000_i64, "pid": 1 }, "z": 2 }));
        let expected =
            [("changed", "true"), ("after.pid", "1"), ("after.since", "2026-01-02 03:04:05 UTC"), ("z", "2")];
        let flat = flat(&schema(), &row, &Clock::utc());
        assert_eq!(flat, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn what_is_no_time_is_shown_as_it_is() {
        let (_, cells) =
            shown(&[json!({ "after": { "since": "yesterday" } }), json!({ "after": { "since": 1e300 } })]);
        assert_eq!(cells[0], ["yesterday"]);
        assert!(cells[1][0].starts_with("1e"), "{cells:?}");
        let (_, cells) = shown(&[json!({ "after": { "since": i64::MAX } })]);
        assert!(!cells[0][0].is_empty());
    }
}
