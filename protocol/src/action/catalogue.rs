//! The kinds of action for whoever shows or generates something of them: with schemas, without their types.

use std::time::Duration;

use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};

use super::{Contract, DESCRIPTIONS, Privilege};

/// A kind of action.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// [`Contract::KIND`].
    pub name: &'static str,
    /// [`Contract::SUMMARY`].
    pub summary: &'static str,
    /// [`Contract::IDEMPOTENT`].
    pub idempotent: bool,
    /// [`Contract::REHEARSES`].
    pub rehearses: bool,
    /// [`Contract::DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// [`Contract::PRIVILEGE`].
    pub privilege: Privilege,
    /// The JSON schema of the parameters as a person gives them ([`Contract::Asked`]): one document, whose references all lead into its own `components`.
    pub parameters: Value,
    /// The JSON schema of the report, likewise.
    pub report: Value,
}

/// Every kind this build knows, in the order of [`KINDS`](super::KINDS).
#[must_use]
pub fn catalogue() -> Vec<Kind> {
    DESCRIPTIONS.iter().map(|describe| describe()).collect()
}

impl Kind {
    /// The kind whose parameters are `C`.
    #[must_use]
    pub fn of<C: Contract>() -> Self {
        Self {
            name: C::KIND,
            summary: C::SUMMARY,
            idempotent: C::IDEMPOTENT,
            rehearses: C::REHEARSES,
            timeout: C::DEFAULT_TIMEOUT,
            privilege: C::PRIVILEGE,
            parameters: schema::<C::Asked>(),
            report: schema::<C::Report>(),
        }
    }
}

pub(crate) fn schema<T: utoipa::ToSchema>() -> Value {
    let mut parts: Vec<(String, RefOr<Schema>)> = Vec::new();
    T::schemas(&mut parts);
    let mut document = to_value(&T::schema());
    if let Value::Object(document) = &mut document
        && !parts.is_empty()
    {
        let schemas: Map<String, Value> =
            parts.iter().map(|(name, part)| (name.clone(), to_value(part))).collect();
        document.insert("components".to_owned(), serde_json::json!({ "schemas": schemas }));
    }
    document
}

/// A schema is made of maps with text as keys: nothing of it has no JSON.
fn to_value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::action::KINDS;

    /// Every reference in a schema.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    /// What nobody explains in a schema: a property without words, and a choice between words without them.
    fn unexplained(value: &Value, place: &str, found: &mut Vec<String>) {
        let has_words = |schema: &Value| {
            let parts = ["allOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
            parts
                .chain([schema])
                .any(|part| part["description"].as_str().is_some_and(|words| !words.is_empty()))
        };
        match value {
            Value::Object(object) => {
                if object.get("enum").and_then(Value::as_array).is_some_and(|words| words.len() > 1) {
                    found.push(format!("{place}: make it with `choices!`"));
                }
                for (name, property) in
                    object.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    if !has_words(property) {
                        found.push(format!("{place}/{name}"));
                    }
                }
                for (name, inner) in object {
                    unexplained(inner, &format!("{place}/{name}"), found);
                }
            }
            Value::Array(items) => {
                for item in items {
                    let is_word = item["enum"].is_array();
                    if is_word && !has_words(item) {
                        found.push(format!("{place}: {item}"));
                    }
                    unexplained(item, place, found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_field_and_every_word_of_every_kind_is_explained() {
        let mut found = Vec::new();
        for kind in catalogue() {
            unexplained(&kind.parameters, &format!("{}/parameters", kind.name), &mut found);
            unexplained(&kind.report, &format!("{}/report", kind.name), &mut found);
        }
        for kind in crate::query::catalogue() {
            unexplained(&kind.parameters, &format!("{}/parameters", kind.name), &mut found);
            unexplained(&kind.item, &format!("{}/item", kind.name), &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
        let verbs = &catalogue().into_iter().find(|kind| kind.name == "unit").unwrap().parameters;
        assert!(verbs.to_string().contains("Stop it, unless it is inactive."), "{verbs}");
        assert!(schema::<crate::action::unit::UnitState>().to_string().contains(crate::time::FORMAT));
    }

    #[test]
    fn every_kind_tells_what_it_is_and_what_it_takes() {
        let kinds = catalogue();
        assert_eq!(kinds.iter().map(|kind| kind.name).collect::<Vec<_>>(), KINDS);
        let summaries: BTreeSet<_> = kinds.iter().map(|kind| kind.summary).collect();
        assert_eq!(summaries.len(), kinds.len());
        for kind in kinds {
            let sentence = kind.summary;
            assert!(sentence.starts_with(char::is_uppercase) && sentence.ends_with('.'), "{sentence}");
            assert!(sentence.matches(". ").count() == 0 && sentence.len() <= 120, "{sentence}");
            assert!(crate::printable::is_line(sentence), "{sentence}");
            assert!(kind.timeout >= Duration::from_secs(1), "{}", kind.name);
            for schema in [&kind.parameters, &kind.report] {
                assert_eq!(schema["type"], "object", "{}: {schema}", kind.name);
                let mut found = Vec::new();
                references(schema, &mut found);
                for reference in found {
                    let place = reference.strip_prefix('#').and_then(|place| schema.pointer(place));
                    assert!(place.is_some_and(Value::is_object), "{}: {reference} leads nowhere", kind.name);
                }
            }
        }
    }
}
