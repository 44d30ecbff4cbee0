//! What a kind's JSON schema says, as far as whoever writes parameters as words has to know it: names, shapes and words.
//!
//! A schema comes from the controller. Whatever it holds is read without following circles, and what is not understood
//! is taken as JSON: the controller is the judge of every value.

use std::cell::Cell;

use fleetward_protocol::time;
use serde_json::{Map, Value};

/// How many references and alternatives are followed from one place.
const MAX_HOPS: usize = 16;
/// How deep lists and objects are looked into: a site has locations with a proxy with its upstreams.
const MAX_DEPTH: usize = 6;
/// The most fields of an object that are looked at.
const MAX_FIELDS: usize = 128;
/// The most fields of a schema that are looked at, those of all objects within it counted.
const MAX_ALL_FIELDS: usize = 2048;

/// A property of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// What it is called.
    pub name: String,
    /// What it holds.
    pub shape: Shape,
    /// Whether it is always there, or has to be.
    pub required: bool,
    /// What it means, on one line.
    pub description: String,
    /// What it is when it is not given.
    pub default: Option<Value>,
    /// A value that it may have.
    pub example: Option<Value>,
    /// What words of a choice mean, as far as it is said.
    pub meanings: Vec<(String, String)>,
}

/// What a value looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Any text.
    Text,
    /// One of these texts.
    Choice(Vec<String>),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Switch,
    /// A moment: a whole number of milliseconds.
    Time,
    /// Several of one shape.
    List(Box<Self>),
    /// Names, each with a value of one shape.
    Map(Box<Self>),
    /// An object with fields of its own.
    Object(Vec<Field>),
    /// Anything deeper.
    Json,
}

impl Shape {
    /// Whether it is one value that can be typed as it is.
    const fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Text | Self::Choice(_) | Self::Integer | Self::Number | Self::Switch | Self::Time
        )
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Choice(choices) => choices.join(" | "),
            Self::Integer => "whole number".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Switch => "true | false".to_owned(),
            Self::Time => "time".to_owned(),
            Self::Object(_) => "object".to_owned(),
            Self::List(each) => format!("list of {}", each.plural()),
            Self::Map(each) => format!("names with {}", each.plural()),
            Self::Json => "JSON".to_owned(),
        }
    }

    /// Whether it can be given as JSON alone, and not in words.
    #[must_use]
    pub fn takes_json(&self) -> bool {
        match self {
            Self::Object(_) | Self::Json => true,
            Self::List(each) | Self::Map(each) => !each.is_scalar(),
            _ => false,
        }
    }

    /// The fields of the object that it is, or that each of its items is; none if it is something else.
    #[must_use]
    pub fn inner(&self) -> &[Field] {
        match self {
            Self::Object(fields) => fields,
            Self::List(each) | Self::Map(each) => each.inner(),
            _ => &[],
        }
    }

    fn plural(&self) -> String {
        match self {
            Self::Text => "texts".to_owned(),
            Self::Integer => "whole numbers".to_owned(),
            Self::Number => "numbers".to_owned(),
            Self::Time => "times".to_owned(),
            Self::Object(_) => "objects".to_owned(),
            other => other.words(),
        }
    }

    /// What stands for a value in a usage line.
    #[must_use]
    pub fn placeholder(&self) -> String {
        match self {
            json if json.takes_json() => "JSON".to_owned(),
            Self::Text | Self::List(_) | Self::Map(_) => "TEXT".to_owned(),
            Self::Choice(choices) => choices.join("|"),
            Self::Integer | Self::Number => "NUMBER".to_owned(),
            Self::Switch => "true|false".to_owned(),
            Self::Time => "TIME".to_owned(),
            Self::Object(_) | Self::Json => "JSON".to_owned(),
        }
    }
}

/// The properties of the object that `schema` describes: first those that are always there, in the order in which they
/// are declared, then the others.
#[must_use]
pub fn fields(schema: &Map<String, Value>) -> Vec<Field> {
    fields_within(&Document { root: schema, left: Cell::new(MAX_ALL_FIELDS) }, schema, 0)
}

/// A schema that is being read.
struct Document<'a> {
    root: &'a Map<String, Value>,
    /// How many more fields of it are looked at: objects within objects are otherwise as many as a schema likes.
    left: Cell<usize>,
}

impl Document<'_> {
    /// Whether one more field is looked at.
    fn takes_one(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

/// What is said of the whole: on one line.
#[must_use]
pub fn description(schema: &Map<String, Value>) -> String {
    let words = chain(schema, schema).into_iter().find_map(|object| object.get("description"));
    one_line(words.and_then(Value::as_str).unwrap_or_default())
}

fn fields_within(document: &Document<'_>, object: &Map<String, Value>, depth: usize) -> Vec<Field> {
    let root = document.root;
    let mut objects = chain(root, object);
    for part in object.get("allOf").and_then(Value::as_array).into_iter().flatten().take(MAX_HOPS) {
        objects.extend(part.as_object().map(|part| chain(root, part)).unwrap_or_default());
    }
    let required: Vec<&str> = objects
        .iter()
        .filter_map(|object| object.get("required")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields: Vec<Field> = Vec::new();
    for (name, property) in
        objects.iter().filter_map(|object| object.get("properties")?.as_object()).flatten()
    {
        let is_new = fields.len() < MAX_FIELDS && fields.iter().all(|field| field.name != *name);
        if is_new && document.takes_one() {
            fields.push(field(document, name, property, required.contains(&name.as_str()), depth));
        }
    }
    fields
        .sort_by_key(|field| required.iter().position(|name| *name == field.name).unwrap_or(required.len()));
    fields
}

fn field(document: &Document<'_>, name: &str, property: &Value, required: bool, depth: usize) -> Field {
    let root = document.root;
    let chain = property.as_object().map(|object| chain(root, object)).unwrap_or_default();
    let find = |key: &str| chain.iter().find_map(|object| object.get(key));
    let description = find("description").and_then(Value::as_str).unwrap_or_default();
    Field {
        name: name.to_owned(),
        shape: shape(document, property, depth),
        required,
        description: one_line(description),
        default: find("default").filter(|value| !value.is_null()).cloned(),
        example: find("example").or_else(|| find("examples")?.get(0)).cloned(),
        meanings: chain.last().map(|schema| meanings(root, schema)).unwrap_or_default(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the words of a choice, or of a list of choices, mean.
fn meanings(root: &Map<String, Value>, schema: &Map<String, Value>) -> Vec<(String, String)> {
    let each = schema.get("items").and_then(Value::as_object).map(|items| chain(root, items));
    let schema = each.as_ref().and_then(|chain| chain.last().copied()).unwrap_or(schema);
    let alternatives = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    let told = alternatives.into_iter().flatten().filter_map(|one| {
        let one = one.as_object()?;
        let meaning = one_line(one.get("description")?.as_str()?);
        Some(choices(one)?.into_iter().map(move |word| (word, meaning.clone())))
    });
    told.flatten().collect()
}

/// A schema and what it leads to, from the outside in: by a reference, as the only alternative to null, or as the only
/// part of several that says more than words.
fn chain<'a>(root: &'a Map<String, Value>, start: &'a Map<String, Value>) -> Vec<&'a Map<String, Value>> {
    let mut chain = vec![start];
    let mut current = start;
    while chain.len() < MAX_HOPS {
        let reference = current.get("$ref").and_then(Value::as_str);
        let next = match (reference, current.get("allOf").and_then(Value::as_array)) {
            (Some(reference), _) => find(root, reference),
            (None, Some(parts)) => {
                let parts = || parts.iter().filter_map(Value::as_object).take(MAX_HOPS);
                chain.extend(parts().filter(|part| is_words(part)));
                only(parts().filter(|part| !is_words(part)))
            }
            (None, None) => ["oneOf", "anyOf"].iter().find_map(|key| {
                let alternatives = current.get(*key)?.as_array()?.iter().filter_map(Value::as_object);
                only(alternatives.filter(|schema| schema.get("type").is_none_or(|name| name != "null")))
            }),
        };
        let Some(next) = next else { break };
        chain.push(next);
        current = next;
    }
    chain
}

/// Whether a part says nothing of a value but words: so the generator puts what a property means beside an inlined type.
fn is_words(part: &Map<String, Value>) -> bool {
    part.iter().all(|(key, value)| match key.as_str() {
        "type" => value == "object",
        key => matches!(key, "description" | "title" | "default" | "example" | "examples" | "deprecated"),
    })
}

/// The only one.
fn only<'a>(mut all: impl Iterator<Item = &'a Map<String, Value>>) -> Option<&'a Map<String, Value>> {
    let first = all.next();
    all.next().is_none().then_some(first)?
}

/// What a reference into the same document names.
fn find<'a>(root: &'a Map<String, Value>, reference: &str) -> Option<&'a Map<String, Value>> {
    let mut steps =
        reference.strip_prefix("#/")?.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = root.get(&steps.next()?)?;
    steps.try_fold(first, |place, step| place.get(&step))?.as_object()
}

fn shape(document: &Document<'_>, schema: &Value, depth: usize) -> Shape {
    let Some(chain) = schema.as_object().map(|object| chain(document.root, object)) else {
        return Shape::Json;
    };
    let Some(&inner) = chain.last() else { return Shape::Json };
    if let Some(choices) = choices(inner) {
        return Shape::Choice(choices);
    }
    let each = |key: &str| {
        let each = inner.get(key).filter(|_| depth < MAX_DEPTH)?;
        let shape = shape(document, each, depth + 1);
        (shape.is_scalar() || matches!(shape, Shape::Object(_))).then(|| Box::new(shape))
    };
    match type_of(inner) {
        Some("string") => Shape::Text,
        Some("integer") if inner.get("format").is_some_and(|format| format == time::FORMAT) => Shape::Time,
        Some("integer") => Shape::Integer,
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Switch,
        Some("array") => each("items").map_or(Shape::Json, Shape::List),
        Some("object") if !inner.contains_key("properties") => {
            each("additionalProperties").map_or(Shape::Json, Shape::Map)
        }
        Some("object") if depth < MAX_DEPTH => match fields_within(document, inner, depth + 1) {
            fields if fields.is_empty() => Shape::Json,
            fields => Shape::Object(fields),
        },
        _ => Shape::Json,
    }
}

/// The type that a schema names, if it is one, beside null.
fn type_of(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            let first = names.next();
            names.next().is_none().then_some(first)?
        }
        _ => None,
    }
}

/// The texts that a schema allows, if it allows some texts alone.
fn choices(schema: &Map<String, Value>) -> Option<Vec<String>> {
    let texts = |values: &[Value]| -> Option<Vec<String>> {
        values
            .iter()
            .filter(|value| !value.is_null())
            .map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let of = |schema: &Map<String, Value>| match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => texts(std::slice::from_ref(value)),
        (None, Some(values)) => texts(values.as_array()?),
        (None, None) => None,
    };
    let all = of(schema).or_else(|| {
        let alternatives = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
        let each: Option<Vec<_>> = alternatives.iter().map(|each| of(each.as_object()?)).collect();
        Some(each?.concat())
    });
    all.filter(|choices| !choices.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{object, of_everything};

    #[test]
    fn fields_have_shapes_and_what_has_to_be_there_comes_first() {
        let fields = fields(&of_everything());
        let told: Vec<_> = fields.iter().map(|field| (field.name.as_str(), field.shape.words())).collect();
        let expected = [
            ("what", "text"),
            ("mode", "fast | slow"),
            ("at", "time"),
            ("count", "whole number"),
            ("deep", "object"),
            ("kind", "a | b"),
            ("labels", "names with texts"),
            ("maybe", "fast | slow"),
            ("names", "list of texts"),
            ("on", "true | false"),
            ("share", "number"),
            ("stairs", "list of objects"),
            ("tree", "JSON"),
            ("ways", "list of up | down"),
        ];
        assert_eq!(told, expected.map(|(name, words)| (name, words.to_owned())));
        assert!(fields[0].required && fields[1].required && !fields[2].required);
        let field = |name: &str| fields.iter().find(|field| field.name == name).unwrap();
        assert_eq!(field("mode").description, "How.");
        assert_eq!(field("count").description, "How often.");
        assert_eq!(field("kind").description, "Which.");
        assert_eq!(
            (&field("count").default, &field("what").example),
            (&Some(json!(3)), &Some(json!("nginx")))
        );
        assert_eq!(field("ways").meanings, [("up".to_owned(), "To the top.".to_owned())]);
        let Shape::Object(inside) = &field("deep").shape else { panic!("{fields:?}") };
        assert_eq!((inside[0].name.as_str(), inside[0].description.as_str()), ("a", "Inside."));
        assert_eq!(description(&of_everything()), "Everything.");
    }

    /// A schema that leads back to itself is looked into as deep as it is shown, and no deeper.
    #[test]
    fn an_object_in_itself_has_an_end() {
        let again = json!({ "$ref": "#/components/schemas/Knot" });
        let knot = json!({ "type": "object", "properties": { "a": again, "b": again } });
        let schema =
            object(json!({ "properties": { "k": again }, "components": { "schemas": { "Knot": knot } } }));
        let (mut shape, mut depth) = (fields(&schema)[0].shape.clone(), 0);
        while let Shape::Object(fields) = shape {
            (shape, depth) = (fields[0].shape.clone(), depth + 1);
        }
        assert_eq!((shape, depth), (Shape::Json, MAX_DEPTH));
    }

    #[test]
    fn choices_may_be_told_one_by_one() {
        let schema = object(json!({
            "properties": { "a": { "oneOf": [{ "const": "x" }, { "type": "string", "enum": ["y"] }] } },
        }));
        assert_eq!(fields(&schema)[0].shape, Shape::Choice(vec!["x".to_owned(), "y".to_owned()]));
    }

    #[test]
    fn what_is_no_schema_has_no_fields_and_what_is_odd_is_json() {
        assert_eq!(fields(&Map::new()), []);
        for odd in [
            json!(null),
            json!({ "$ref": "#" }),
            json!({ "$ref": "https://example.com/" }),
            json!({ "type": ["string", "integer"] }),
            json!({ "type": "array" }),
            json!({ "type": "array", "items": { "type": "array", "items": { "type": "string" } } }),
            json!({ "enum": [1, 2] }),
            json!({ "oneOf": [{ "type": "string" }, { "type": "object" }] }),
        ] {
            let schema = object(json!({ "properties": { "a": odd } }));
            assert_eq!(fields(&schema)[0].shape, Shape::Json, "{schema:?}");
        }
    }
}
