//! One answer, or one report, whole: a value a line, and what is a list below.

use fleetward_api::work::kind::schema::Field;
use serde_json::{Map, Value};

use super::columns::{Columns, Times};
use crate::render::table::{Cell, Sheet, WideTable};
use crate::render::{Out, neutral, value};

/// A list of texts that is no longer than this stands on the line of its name.
const MAX_LINE: usize = 60;

/// What `row` holds: below `head`, its values by their names; then each list that is more than a line, objects in it as a table.
/// With it the columns of such tables for which there was no room.
pub(crate) fn detail(
    head: Sheet,
    fields: &[Field],
    row: &Map<String, Value>,
    (times, out): (Times, &Out),
) -> (String, Vec<String>) {
    let columns = Columns::of(fields, [row], times);
    let mut sheet = head;
    let (mut lists, mut left_out) = (String::new(), Vec::new());
    for (name, found, text) in columns.values(row, &out.clock) {
        match found.as_array().filter(|items| is_long(items)) {
            None => sheet.row(name, text),
            Some(items) => {
                let inner = fields.iter().find(|field| field.name == name).map(|field| field.shape.inner());
                let (text, without) = list(inner.unwrap_or_default(), items, (times, out));
                lists.push_str(&format!("\n{}:\n{text}", neutral::text(&name)));
                left_out.extend(without);
            }
        }
    }
    (sheet.finish() + &lists, left_out)
}

/// Whether a value has no place in a cell of a table of many.
pub(crate) fn is_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| is_long(items))
}

fn is_long(items: &[Value]) -> bool {
    let is_deep = items.iter().any(|item| item.is_object() || item.is_array());
    let length = || items.iter().map(|item| value::plain(item).chars().count() + 2).sum::<usize>();
    is_deep || (items.len() > 1 && length() > MAX_LINE)
}

fn list(fields: &[Field], items: &[Value], (times, out): (Times, &Out)) -> (String, Vec<String>) {
    let rows: Vec<&Map<String, Value>> = items.iter().filter_map(Value::as_object).collect();
    if rows.len() < items.len() {
        let lines = items.iter().map(|item| format!("  {}\n", neutral::text(&value::plain(item))));
        return (lines.collect(), Vec::new());
    }
    let columns = Columns::of(fields, rows.iter().copied(), times);
    let mut table = WideTable::new(out, columns.titles());
    for row in rows {
        table.push(columns.cells(row, &out.clock).iter().map(Cell::new));
    }
    let (text, left_out) = table.finish();
    (text.lines().map(|line| format!("  {line}\n")).collect(), left_out)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use expect_test::expect;
    use fleetward_api::testing::object;
    use fleetward_api::work::kind::schema::fields;
    use serde_json::json;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn lists_stand_below_and_are_not_squeezed_into_a_line() {
        let change = json!({ "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string" }, "before": { "type": "string" }, "after": { "type": "string" },
        } });
        let schema = object(json!({ "required": ["changed", "log"], "properties": {
            "changed": { "type": "boolean" }, "log": { "type": "array", "items": { "type": "string" } },
            "changes": { "type": "array", "items": change }, "short": { "type": "array", "items": { "type": "string" } },
        } }));
        let row = object(json!({
            "changed": true, "log": ["Started.", "It had nothing \u{1b}[2J to do, and did that for a long while."],
            "changes": [{ "name": "nginx", "before": "1.2", "after": "1.3" }, { "name": "curl", "after": "8" }],
            "short": ["a", "b"], "unknown": { "x": 1 },
        }));
        let out = Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never", "--utc"]).globals);
        let mut head = Sheet::default();
        head.row("HOST", "web-1");
        let (text, left_out) = detail(head, &fields(&schema), &row, (Times::At, &out));
        assert!(left_out.is_empty());
        expect![[r#"
            HOST     web-1
            changed  true
            short    a, b
            unknown  x 1

            log:
              Started.
              It had nothing ␛[2J to do, and did that for a long while.

            changes:
              NAME   AFTER  BEFORE
              nginx  1.3    1.2
              curl   8
        "#]]
        .assert_eq(&text);
    }
}
