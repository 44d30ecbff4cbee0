//! Parameters as they are written in words: `KEY=VALUE`, given the types of a kind's schema. So they stand on a command
//! line, and in a query string.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::str::FromStr;

use fleetward_protocol::suggest::nearest;
use serde_json::{Map, Number, Value};

use super::schema::{Field, Shape};
use crate::time::Time;

/// One word: what is given to which parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    key: String,
    value: Given,
}

#[derive(Debug, Clone, PartialEq)]
enum Given {
    /// `KEY=VALUE`: of whatever type the schema says.
    Text(String),
    /// `KEY:=JSON`: as it is.
    Json(Value),
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("`{}` names no parameter: write KEY=VALUE", word.escape_debug()));
        };
        Self::new(key, value)
    }
}

impl Assignment {
    /// What stands before and behind the `=`. A key that ends with `:` is given JSON.
    ///
    /// # Errors
    /// If there is no key, or no JSON where there has to be some; in words.
    pub fn new(key: &str, given: &str) -> Result<Self, String> {
        let (key, value) = match key.strip_suffix(':') {
            Some(key) => match serde_json::from_str(given) {
                Ok(value) => (key, Given::Json(value)),
                Err(error) => {
                    return Err(format!("what follows `{}:=` is no JSON: {error}", key.escape_debug()));
                }
            },
            None => (key, Given::Text(given.to_owned())),
        };
        if key.is_empty() {
            return Err(format!("`={}` names no parameter before the `=`", given.escape_debug()));
        }
        Ok(Self { key: key.to_owned(), value })
    }

    /// The parameter and what it is given, where that is text.
    #[must_use]
    pub fn text(&self) -> Option<(&str, &str)> {
        match &self.value {
            Given::Text(text) => Some((&self.key, text)),
            Given::Json(_) => None,
        }
    }

    /// The field of `fields` that it is for: the one of its name, or the one in which it names something.
    #[must_use]
    pub fn field<'a>(&self, fields: &'a [Field]) -> Option<&'a Field> {
        let find = |name: &str| fields.iter().find(|field| field.name == name);
        find(&self.key).or_else(|| find(self.key.split_once('.')?.0))
    }
}

/// The parameters that `given` says, over those of `base`.
///
/// # Errors
/// Everything that is wrong with them, a line each: what the schema does not know, what has another type, what is
/// missing.
pub fn build(
    fields: &[Field],
    base: Map<String, Value>,
    given: &[Assignment],
) -> Result<Map<String, Value>, Vec<String>> {
    let mut building = Building { fields, params: base, seen: HashSet::new(), problems: Vec::new() };
    let unknown: Vec<String> = building
        .params
        .keys()
        .filter(|key| fields.iter().all(|field| field.name != **key))
        .map(|key| unknown(fields, key))
        .collect();
    building.problems.extend(unknown);
    for assignment in given {
        building.take(assignment);
    }
    let is_missing = |field: &&Field| field.required && !building.params.contains_key(&field.name);
    // What was given wrongly is not missing as well.
    let missing = fields.iter().filter(is_missing).filter(|field| !building.seen.contains(&field.name));
    let missing: Vec<String> =
        missing.map(|field| format!("`{}` is missing: {}", field.name, field.shape.words())).collect();
    building.problems.extend(missing);
    if building.problems.is_empty() { Ok(building.params) } else { Err(building.problems) }
}

struct Building<'a> {
    fields: &'a [Field],
    params: Map<String, Value>,
    /// What the words have named so far: it takes the place of what the base says.
    seen: HashSet<String>,
    problems: Vec<String>,
}

impl Building<'_> {
    fn take(&mut self, assignment: &Assignment) {
        let Assignment { key, value } = assignment;
        let done = match assignment.field(self.fields) {
            Some(field) => match key.strip_prefix(&*field.name).and_then(|rest| rest.strip_prefix('.')) {
                Some(entry) => self.put_entry(field, entry, value),
                None => self.put(field, value),
            },
            None => Err(unknown(self.fields, key)),
        };
        self.problems.extend(done.err());
    }

    fn put(&mut self, field: &Field, value: &Given) -> Result<(), String> {
        let name = &field.name;
        let is_first = self.seen.insert(name.clone());
        match (&field.shape, value) {
            (shape, Given::Text(_)) if shape.takes_json() => {
                return Err(format!("`{name}` takes JSON: write `{name}:=JSON`"));
            }
            (Shape::List(each), Given::Text(text)) => {
                let value = typed(name, each, text)?;
                let list = self.params.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                match list {
                    Value::Array(list) if !is_first => list.push(value),
                    other => *other = Value::Array(vec![value]),
                }
                return Ok(());
            }
            (Shape::Map(_), Given::Text(_)) => {
                return Err(format!("`{name}` takes names and their values: write `{name}.NAME=VALUE`"));
            }
            _ if !is_first => return Err(format!("`{name}` is given twice")),
            (shape, Given::Text(text)) => {
                let value = typed(name, shape, text)?;
                self.params.insert(name.clone(), value);
            }
            (_, Given::Json(value)) => {
                self.params.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn put_entry(&mut self, field: &Field, entry: &str, value: &Given) -> Result<(), String> {
        let name = &field.name;
        let is_first = self.seen.insert(name.clone());
        let Shape::Map(each) = &field.shape else {
            return Err(format!("`{name}` has no names in it: it takes {}", field.shape.words()));
        };
        let value = match value {
            Given::Text(text) => typed(&format!("{name}.{entry}"), each, text)?,
            Given::Json(value) => value.clone(),
        };
        let map = self.params.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        match map {
            Value::Object(map) if !is_first => {
                if map.insert(entry.to_owned(), value).is_some() {
                    return Err(format!("`{name}.{entry}` is given twice"));
                }
            }
            other => *other = Value::Object(Map::from_iter([(entry.to_owned(), value)])),
        }
        Ok(())
    }
}

/// A text as a value of the shape that it has to have.
fn typed(name: &str, shape: &Shape, text: &str) -> Result<Value, String> {
    match shape {
        Shape::Text => Ok(Value::String(text.to_owned())),
        Shape::Choice(choices) if choices.iter().any(|choice| choice == text) => {
            Ok(Value::String(text.to_owned()))
        }
        Shape::Choice(choices) => {
            let meant = nearest(text, choices.iter().map(String::as_str));
            let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
            Err(format!("`{name}` is one of {}, not `{text}`{meant}", choices.join(", ")))
        }
        Shape::Integer => {
            let number =
                text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
            number.map(Value::Number).map_err(|_| format!("`{name}` takes a whole number, not `{text}`"))
        }
        Shape::Number => {
            let number = text.parse::<f64>().ok().and_then(Number::from_f64);
            number.map(Value::Number).ok_or_else(|| format!("`{name}` takes a number, not `{text}`"))
        }
        Shape::Switch => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("`{name}` is true or false, not `{text}`")),
        },
        Shape::Time => {
            let time = text.parse::<Time>().map(|time| time.timestamp().as_millis());
            let time = time.ok().or_else(|| text.parse::<i64>().ok());
            time.map(Value::from).ok_or_else(|| {
                format!(
                    "`{name}` takes a time such as 2026-01-02T03:04:05Z, or milliseconds since 1970, not `{text}`"
                )
            })
        }
        Shape::List(_) | Shape::Map(_) | Shape::Object(_) | Shape::Json => {
            Err(format!("`{name}` takes JSON: write `{name}:=JSON`"))
        }
    }
}

fn unknown(fields: &[Field], key: &str) -> String {
    let mut text = format!("`{key}` is not known");
    let stem = key.split('.').next().unwrap_or(key);
    if let Some(meant) = nearest(stem, fields.iter().map(|field| field.name.as_str())) {
        // Writing to a string cannot fail.
        let _ = write!(text, "; did you mean `{meant}`?");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::schema::fields;
    use super::*;
    use crate::testing::{object, of_everything};

    fn params(base: Value, line: &[&str]) -> Result<Value, Vec<String>> {
        let given: Vec<Assignment> = line.iter().map(|word| word.parse().unwrap()).collect();
        build(&fields(&of_everything()), object(base), &given).map(Value::Object)
    }

    #[test]
    fn values_have_the_types_of_the_schema() {
        let line = [
            "what=a=b",
            "mode=slow",
            "count=-7",
            "share=0.5",
            "on=true",
            "names=a",
            "names=",
            "labels.a.b=1",
            "labels.c=x",
            "deep:={\"a\": \"b\"}",
            "at=2026-01-02T03:04:05Z",
        ];
        let expected = json!({
            "what": "a=b", "mode": "slow", "count": -7, "share": 0.5, "on": true, "names": ["a", ""],
            "labels": { "a.b": "1", "c": "x" }, "deep": { "a": "b" }, "at": 1_767_323_045_000_i64,
        });
        assert_eq!(params(json!({}), &line), Ok(expected));
    }

    #[test]
    fn the_words_go_before_the_base() {
        let base = json!({ "what": "x", "mode": "fast", "names": ["a", "b"], "labels": { "a": "1" } });
        let expected = json!({ "what": "y", "mode": "fast", "names": ["c"], "labels": { "b": "2" } });
        assert_eq!(params(base, &["what=y", "names=c", "labels.b=2"]), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told_at_once_with_what_was_perhaps_meant() {
        let line = [
            "waht=x",
            "mode=fats",
            "count=many",
            "on=yes",
            "labels=x",
            "deep=1",
            "share=NaN",
            "names.x=1",
            "at=soon",
        ];
        assert_eq!(
            params(json!({ "lables": 1 }), &line).unwrap_err(),
            [
                "`lables` is not known; did you mean `labels`?",
                "`waht` is not known; did you mean `what`?",
                "`mode` is one of fast, slow, not `fats`; did you mean `fast`?",
                "`count` takes a whole number, not `many`",
                "`on` is true or false, not `yes`",
                "`labels` takes names and their values: write `labels.NAME=VALUE`",
                "`deep` takes JSON: write `deep:=JSON`",
                "`share` takes a number, not `NaN`",
                "`names` has no names in it: it takes list of texts",
                "`at` takes a time such as 2026-01-02T03:04:05Z, or milliseconds since 1970, not `soon`",
                "`what` is missing: text",
            ]
        );
        assert_eq!(
            params(json!({}), &["what=a", "what=b", "mode=fast", "labels.a=1", "labels.a=2"]).unwrap_err(),
            ["`what` is given twice", "`labels.a` is given twice"]
        );
    }

    #[test]
    fn a_word_without_a_key_is_none() {
        for word in ["", "x", "=x", ":=1", "a:={", "a:="] {
            assert!(word.parse::<Assignment>().is_err(), "{word}");
        }
    }

    proptest! {
        #[test]
        fn what_is_typed_word_by_word_is_what_the_controller_gets(
            what in "\\PC{0,20}",
            slow in any::<bool>(),
            count in any::<Option<i64>>(),
            on in any::<Option<bool>>(),
            names in proptest::collection::vec("\\PC{0,8}", 0..4),
            labels in proptest::collection::btree_map("[^=:]{1,8}", "\\PC{0,8}", 0..4),
            deep in any::<Option<u32>>(),
        ) {
            let mut words = vec![format!("what={what}"), format!("mode={}", if slow { "slow" } else { "fast" })];
            let mut expected = json!({ "what": what, "mode": if slow { "slow" } else { "fast" } });
            if let Some(count) = count {
                words.push(format!("count={count}"));
                expected["count"] = json!(count);
            }
            if let Some(on) = on {
                words.push(format!("on={on}"));
                expected["on"] = json!(on);
            }
            if !names.is_empty() {
                words.extend(names.iter().map(|name| format!("names={name}")));
                expected["names"] = json!(names);
            }
            if !labels.is_empty() {
                words.extend(labels.iter().map(|(name, value)| format!("labels.{name}={value}")));
                expected["labels"] = json!(labels);
            }
            if let Some(deep) = deep {
                words.push(format!("deep:={{\"a\": {deep}}}"));
                expected["deep"] = json!({ "a": deep });
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(params(json!({}), &words), Ok(expected));
        }

        #[test]
        fn any_word_is_taken_or_refused_in_words(word in "\\PC{0,40}", base in "\\PC{0,10}") {
            if let Ok(assignment) = word.parse::<Assignment>() {
                let built = build(&fields(&of_everything()), object(json!({ base: 1 })), &[assignment]);
                prop_assert!(built.is_err(), "something is always missing");
            }
        }
    }
}
