//! JSON values for people: what an action was given, reported, or what a query found.

use fleetward_protocol::digest::Digest;
use serde_json::{Map, Value};

use super::words;

/// The longest text of a value that is made of several.
const MAX_COMPACT: usize = 200;

/// A value in a cell of a table: text as it is, lists item by item, objects as their names and values.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            cut(&items.iter().map(inner).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", "))
        }
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| match inner(value) {
                text if text.is_empty() => None,
                text => Some(format!("{name} {text}")),
            };
            cut(&entries.iter().filter_map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A value within another one.
fn inner(value: &Value) -> String {
    match plain(value) {
        text if text.is_empty() || is_scalar(value) || value.is_array() => text,
        text => format!("({text})"),
    }
}

/// Parameters as names and values, as one would type them: `KEY`, and `KEY.NAME` for names with values.
///
/// An object with a `digest` stands for a value that is not shown.
pub(crate) fn rows(params: &Map<String, Value>) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (name, value) in params {
        match value {
            Value::Object(entries) if !entries.is_empty() && hidden(entries).is_none() => {
                for (entry, value) in entries {
                    rows.push((format!("{name}.{entry}"), typed(value)));
                }
            }
            value => rows.push((name.clone(), typed(value))),
        }
    }
    rows
}

fn typed(value: &Value) -> String {
    match value {
        Value::Object(entries) => hidden(entries).unwrap_or_else(|| cut(&value.to_string())),
        Value::Array(items) if items.iter().all(is_scalar) => {
            cut(&words::typed(&items.iter().map(plain).collect::<Vec<_>>()))
        }
        Value::String(text) => text
            .parse::<Digest>()
            .map_or_else(|_| words::typed(std::slice::from_ref(text)), |digest| digest.short()),
        Value::Array(_) => cut(&value.to_string()),
        value => plain(value),
    }
}

/// What is said of a value that is not shown.
fn hidden(entries: &Map<String, Value>) -> Option<String> {
    let digest: Digest = entries.get("digest")?.as_str()?.parse().ok()?;
    let mut text = format!("(digest {}", digest.short());
    for (name, value) in entries.iter().filter(|(name, _)| *name != "digest") {
        text.push_str(&format!(", {name} {}", plain(value)));
    }
    text.push(')');
    Some(text)
}

const fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_COMPACT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_shown_as_they_are_typed_and_what_is_hidden_by_its_digest() {
        let digest = "ab".repeat(32);
        let params = json!({
            "name": "deploy it", "digest": digest, "arguments": ["--now", "a b"], "count": 3, "on": true,
            "environment": { "A": "x", "TOKEN": { "digest": digest, "bytes": 12 } },
            "content": { "digest": digest }, "none": {}, "deep": [{ "a": [1] }],
        });
        let mut rows = rows(params.as_object().unwrap());
        rows.sort();
        let expected = [
            ("arguments", "--now 'a b'"),
            ("content", "(digest abababababab)"),
            ("count", "3"),
            ("deep", r#"[{"a":[1]}]"#),
            ("digest", "abababababab"),
            ("environment.A", "x"),
            ("environment.TOKEN", "(digest abababababab, bytes 12)"),
            ("name", "'deploy it'"),
            ("none", "{}"),
            ("on", "true"),
        ];
        assert_eq!(rows, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let text = plain(&json!([["ü".repeat(1000)]]));
        assert_eq!((text.chars().count(), text.ends_with('…')), (MAX_COMPACT + 1, true));
    }

    #[test]
    fn what_is_nested_is_told_in_words() {
        let value = json!({ "a": 1, "b": null, "c": { "d": [true, { "e": "x y" }], "f": {} }, "g": [] });
        assert_eq!(plain(&value), "a 1, c (d true, (e x y))");
    }
}
