//! What clients of the last release can still do: the API's document is compared with the one that was released.
//!
//! A client may send what it could send, and reads at least what it could read; what is new it passes over. So an addition breaks
//! nothing, neither a value that an answer's field did not have before. `docs/releasing.md` tells where the released
//! document comes from.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Which way something travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Request,
    Response,
}

/// Two documents that are compared.
struct Pair<'a> {
    old: &'a Value,
    new: &'a Value,
    /// Pairs of named schemas that are being compared, for some contain themselves.
    seen: BTreeSet<(String, String, Way)>,
    found: Vec<String>,
}

#[test]
fn nothing_that_the_last_release_offered_is_taken_away() {
    let controller = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| std::fs::read_to_string(controller.join(name)).ok();
    // Before the first release there is none.
    let Some(released) = read("openapi.released.json") else { return };
    let released: Value = serde_json::from_str(&released).unwrap();
    let made: Value = serde_json::from_str(&read("openapi.json").unwrap()).unwrap();
    let broken = breaks(&released, &made);
    assert!(
        broken.is_empty(),
        "clients of the last release break (docs/releasing.md):\n{}",
        broken.join("\n")
    );
}

/// What a client that was made for `old` cannot do any more.
fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut pair = Pair { old, new, seen: BTreeSet::new(), found: Vec::new() };
    for (path, methods) in entries(&old["paths"]) {
        for (method, operation) in entries(methods) {
            let place = format!("{} {path}", method.to_uppercase());
            match new["paths"][path.as_str()].get(method) {
                None => pair.found.push(format!("{place} is gone")),
                Some(now) => pair.operation(&place, operation, now),
            }
        }
    }
    pair.found
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The words of a list, or one word.
fn words(value: &Value) -> BTreeSet<&str> {
    let one = value.as_str().into_iter();
    one.chain(items(value).iter().filter_map(Value::as_str)).collect()
}

impl Pair<'_> {
    fn operation(&mut self, place: &str, old: &Value, new: &Value) {
        // With an empty requirement among them, nobody has to log in.
        let is_open = |operation: &Value| items(&operation["security"]).iter().any(|one| one == &json!({}));
        if is_open(old) && !is_open(new) {
            self.found.push(format!("{place} needs a login now"));
        }
        let find = |parameters: &[Value], like: &Value| {
            let is_same = |one: &&Value| one["in"] == like["in"] && one["name"] == like["name"];
            parameters.iter().find(is_same).cloned()
        };
        let (before, after) = (items(&old["parameters"]), items(&new["parameters"]));
        for parameter in before {
            let place = format!("{place}, parameter {}", parameter["name"]);
            match find(after, parameter) {
                None => self.found.push(format!("{place} is gone")),
                Some(now) => self.schema(&place, &parameter["schema"], &now["schema"], Way::Request),
            }
        }
        for parameter in after.iter().filter(|parameter| parameter["required"] == true) {
            if find(before, parameter).is_none_or(|before| before["required"] != true) {
                self.found.push(format!("{place}, parameter {} is required now", parameter["name"]));
            }
        }
        let (before, after) = (&old["requestBody"], &new["requestBody"]);
        if after["required"] == true && before["required"] != true {
            self.found.push(format!("{place}, the body is required now"));
        }
        self.content(&format!("{place}, body"), before, after, Way::Request);
        for (status, response) in entries(&old["responses"]) {
            let place = format!("{place}, answer {status}");
            match new["responses"].get(status) {
                None => self.found.push(format!("{place} is gone")),
                Some(now) => self.content(&place, response, now, Way::Response),
            }
        }
    }

    fn content(&mut self, place: &str, old: &Value, new: &Value, way: Way) {
        for (kind, content) in entries(&old["content"]) {
            match new["content"].get(kind) {
                None => self.found.push(format!("{place} as {kind} is gone")),
                Some(now) => self.schema(place, &content["schema"], &now["schema"], way),
            }
        }
    }

    fn schema(&mut self, place: &str, old: &Value, new: &Value, way: Way) {
        if let (Some(before), Some(after)) = (old["$ref"].as_str(), new["$ref"].as_str())
            && !self.seen.insert((before.to_owned(), after.to_owned(), way))
        {
            return;
        }
        let (before, after) = (flat(self.old, old), flat(self.new, new));
        let (alternatives, now) = (alternatives(&before), alternatives(&after));
        if alternatives.len() == 1 && now.len() == 1 {
            return self.plain(place, &before, &after, way);
        }
        for one in &alternatives {
            if let Some(problems) = self.closest(place, std::slice::from_ref(one), &now, way) {
                self.found.extend(problems);
            }
        }
        if way == Way::Response && alternatives.len() == 1 {
            for one in &now {
                if let Some(problems) = self.closest(place, &alternatives, std::slice::from_ref(one), way) {
                    self.found.extend(problems);
                }
            }
        }
    }

    /// The problems of the two that fit best, if none fit.
    fn closest(&self, place: &str, old: &[Value], new: &[Value], way: Way) -> Option<Vec<String>> {
        let pairs = old.iter().flat_map(|old| new.iter().map(move |new| (old, new)));
        let compared = pairs.map(|(before, after)| {
            let (seen, found) = (self.seen.clone(), Vec::new());
            let mut pair = Pair { old: self.old, new: self.new, seen, found };
            pair.schema(place, before, after, way);
            // What is of another type was never meant.
            let is_other = flat(self.old, before)["type"] != flat(self.new, after)["type"];
            (!pair.found.is_empty(), is_other, pair.found)
        });
        let (differs, _, found) =
            compared.min_by_key(|(differs, other, found)| (*differs, *other, found.len()))?;
        differs.then_some(found)
    }

    fn plain(&mut self, place: &str, old: &Value, new: &Value, way: Way) {
        let (before, after) = (words(&old["type"]), words(&new["type"]));
        // None is any. What is an integer is a number as well.
        let allows = |types: &BTreeSet<&str>, one: &str| {
            types.is_empty() || types.contains(one) || (one == "integer" && types.contains("number"))
        };
        let (narrow, wide) = if way == Way::Request { (&before, &after) } else { (&after, &before) };
        let is_wider = narrow.is_empty() && !wide.is_empty();
        if is_wider || !narrow.iter().all(|one| allows(wide, one)) {
            self.found.push(format!("{place} was {} and is {}", old["type"], new["type"]));
            return;
        }
        let (format, now) = (&old["format"], &new["format"]);
        if format != now && !format.is_null() && !now.is_null() {
            self.found.push(format!("{place} was {format} and is {now}"));
        }
        if way == Way::Request {
            self.narrowed(place, old, new);
        }
        let (required, now) = (words(&old["required"]), words(&new["required"]));
        let (more, less) = if way == Way::Request { (&now, &required) } else { (&required, &now) };
        for field in more.difference(less) {
            let what = if way == Way::Request { "is required now" } else { "may be missing now" };
            // That it is gone altogether is said below.
            if way == Way::Request || new["properties"].get(field).is_some() {
                self.found.push(format!("{place}.{field} {what}"));
            }
        }
        for (field, schema) in entries(&old["properties"]) {
            let place = format!("{place}.{field}");
            match new["properties"].get(field) {
                None => self.found.push(format!("{place} is gone")),
                Some(now) => self.schema(&place, schema, now, way),
            }
        }
        for part in ["items", "additionalProperties"] {
            if old[part].is_object() && new[part].is_object() {
                self.schema(&format!("{place}[]"), &old[part], &new[part], way);
            }
        }
    }

    /// What may be sent no more.
    fn narrowed(&mut self, place: &str, old: &Value, new: &Value) {
        if new["enum"].is_array() {
            let allowed = items(&new["enum"]);
            let gone: Vec<_> = items(&old["enum"]).iter().filter(|one| !allowed.contains(one)).collect();
            if !old["enum"].is_array() || !gone.is_empty() {
                self.found.push(format!("{place} no longer takes all values: {gone:?}"));
            }
        }
        for (limit, is_upper) in [
            ("maximum", true),
            ("maxItems", true),
            ("maxLength", true),
            ("minimum", false),
            ("minItems", false),
            ("minLength", false),
        ] {
            let Some(after) = new[limit].as_f64() else { continue };
            let before = old[limit].as_f64();
            if before.is_none_or(|before| if is_upper { after < before } else { after > before }) {
                self.found.push(format!("{place} has the {limit} {after} now"));
            }
        }
        if new["additionalProperties"] == false && old["additionalProperties"] != false {
            self.found.push(format!("{place} no longer takes other fields"));
        }
    }
}

/// A schema without references and without `allOf` at its top.
fn flat(document: &Value, schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        return flat(document, document.pointer(pointer).unwrap_or(&Value::Null));
    }
    let mut whole: Map<String, Value> = schema.as_object().cloned().unwrap_or_default();
    for part in items(&whole.remove("allOf").unwrap_or_default()) {
        for (key, value) in flat(document, part).as_object().into_iter().flatten() {
            match (whole.get_mut(key), value) {
                (Some(Value::Object(held)), Value::Object(more)) => held.extend(more.clone()),
                (Some(Value::Array(held)), Value::Array(more)) => held.extend(more.clone()),
                _ => drop(whole.insert(key.clone(), value.clone())),
            }
        }
    }
    Value::Object(whole)
}

fn alternatives(schema: &Value) -> Vec<Value> {
    let some = if schema["oneOf"].is_array() { &schema["oneOf"] } else { &schema["anyOf"] };
    if some.is_array() { items(some).to_vec() } else { vec![schema.clone()] }
}

/// A document with an operation, of everything that the comparison knows.
fn document() -> Value {
    json!({
        "paths": { "/hosts/{name}": { "post": {
            "security": [{}],
            "parameters": [
                { "in": "path", "name": "name", "required": true, "schema": { "type": "string" } },
                { "in": "query", "name": "limit", "required": false, "schema": { "type": "integer", "maximum": 500 } },
                { "in": "query", "name": "sort", "required": false, "schema": { "$ref": "#/components/schemas/Sort" } }
            ],
            "requestBody": { "required": false, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/New" } } } },
            "responses": {
                "200": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Host" } } } },
                "404": { "content": { "application/json": { "schema": { "type": "string" } } } }
            }
        } } },
        "components": { "schemas": {
            "Sort": { "type": "string", "enum": ["name", "age"] },
            "New": { "type": "object", "required": ["kind"], "properties": {
                "kind": { "type": "string" },
                "tags": { "type": "array", "items": { "type": "string" } },
                "policy": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Policy" }] }
            } },
            "Policy": { "type": "object", "properties": { "canaries": { "type": "integer", "format": "int32" } } },
            "Base": { "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } } },
            "Host": { "allOf": [{ "$ref": "#/components/schemas/Base" }, { "type": "object", "required": ["name"], "properties": {
                "name": { "type": "string" },
                "state": { "type": "string", "enum": ["online", "offline"] },
                "seen": { "type": ["string", "null"] },
                "jump": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Host" }] },
                "rtt": { "type": "number" }
            } }] }
        } }
    })
}

/// One change: where, and what is there then (nothing if that is null).
fn changed(pointer: &str, value: Value) -> Value {
    let mut document = document();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    let key = key.replace("~1", "/");
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(&key).unwrap()),
        (Value::Object(map), value) => drop(map.insert(key, value)),
        (Value::Array(list), Value::Null) => drop(list.remove(key.parse().unwrap())),
        (Value::Array(list), value) if key == "-" => list.push(value),
        (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{other}"),
    }
    document
}

const POST: &str = "/paths/~1hosts~1{name}/post";
const SCHEMAS: &str = "/components/schemas";

#[test]
fn what_takes_something_away_is_found() {
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    let string = || json!({ "type": "string" });
    for (pointer, value, told) in [
        ("/paths/~1hosts~1{name}".to_owned(), Value::Null, "POST /hosts/{name} is gone"),
        (at(POST, ""), Value::Null, "POST /hosts/{name} is gone"),
        (at(POST, "/security"), json!([{ "session": [] }]), "needs a login now"),
        (at(POST, "/parameters/1"), Value::Null, "\"limit\" is gone"),
        (at(POST, "/parameters/1/required"), json!(true), "\"limit\" is required now"),
        (at(POST, "/parameters/1/schema/maximum"), json!(100), "has the maximum 100 now"),
        (at(POST, "/parameters/0/schema/maxLength"), json!(9), "has the maxLength 9 now"),
        (
            at(POST, "/parameters/-"),
            json!({ "in": "query", "name": "x", "required": true }),
            "\"x\" is required now",
        ),
        (at(POST, "/requestBody/required"), json!(true), "the body is required now"),
        (at(POST, "/requestBody/content"), json!({ "text/plain": {} }), "body as application/json is gone"),
        (at(POST, "/responses/404"), Value::Null, "answer 404 is gone"),
        (at(SCHEMAS, "/Sort/enum"), json!(["name"]), "no longer takes all values"),
        (at(SCHEMAS, "/New/properties/kind/enum"), json!(["unit"]), "body.kind no longer takes all values"),
        (
            at(SCHEMAS, "/New/properties/kind"),
            json!({ "type": "integer" }),
            "body.kind was \"string\" and is \"integer\"",
        ),
        (at(SCHEMAS, "/New/properties/tags"), Value::Null, "body.tags is gone"),
        (at(SCHEMAS, "/New/properties/tags/items"), json!({ "type": "integer" }), "body.tags[] was"),
        (at(SCHEMAS, "/New/required"), json!(["kind", "tags"]), "body.tags is required now"),
        (at(SCHEMAS, "/New/additionalProperties"), json!(false), "no longer takes other fields"),
        (
            at(SCHEMAS, "/New/properties/policy"),
            json!({ "$ref": "#/components/schemas/Policy" }),
            "body.policy was",
        ),
        (at(SCHEMAS, "/Policy/properties/canaries"), Value::Null, "body.policy.canaries is gone"),
        (
            at(SCHEMAS, "/Policy/properties/canaries/format"),
            json!("int64"),
            "canaries was \"int32\" and is \"int64\"",
        ),
        (at(SCHEMAS, "/Base/properties/id"), Value::Null, "answer 200.id is gone"),
        (at(SCHEMAS, "/Host/allOf/1/properties/rtt"), Value::Null, "answer 200.rtt is gone"),
        (at(SCHEMAS, "/Host/allOf/1/required"), json!([]), "answer 200.name may be missing now"),
        (
            at(SCHEMAS, "/Host/allOf/1/properties/name"),
            json!({ "type": ["string", "null"] }),
            "answer 200.name was",
        ),
        (
            at(SCHEMAS, "/Host/allOf/1/properties/name"),
            json!({ "oneOf": [{ "type": "null" }, string()] }),
            "200.name was",
        ),
        (at(SCHEMAS, "/Host/allOf/1/properties/seen"), json!({}), "answer 200.seen was"),
        (at(SCHEMAS, "/Host/allOf/1/properties/jump"), string(), "answer 200.jump was"),
    ] {
        let found = breaks(&document(), &changed(&pointer, value));
        assert!(found.iter().any(|one| one.contains(told)), "{pointer}: {told}: {found:?}");
    }
}

#[test]
fn what_adds_something_breaks_nothing() {
    assert_eq!(breaks(&document(), &document()), Vec::<String>::new());
    assert_eq!(breaks(&Value::Null, &document()), Vec::<String>::new());
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    let string = || json!({ "type": "string" });
    for (pointer, value) in [
        ("/paths/~1new".to_owned(), json!({ "get": {} })),
        (at(POST, "/description"), json!("other words")),
        (at(POST, "/parameters/-"), json!({ "in": "query", "name": "x", "required": false })),
        (at(POST, "/parameters/1/schema/maximum"), json!(1000)),
        (at(POST, "/responses/409"), json!({})),
        (at(SCHEMAS, "/Sort/enum"), json!(["name", "age", "size"])),
        (at(SCHEMAS, "/New/properties/note"), string()),
        (at(SCHEMAS, "/New/required"), json!([])),
        (at(SCHEMAS, "/New/properties/kind"), json!({ "type": ["string", "null"] })),
        (at(SCHEMAS, "/New/properties/policy/oneOf/-"), string()),
        (at(SCHEMAS, "/Host/allOf/1/properties/note"), string()),
        (at(SCHEMAS, "/Host/allOf/1/properties/state/enum"), json!(["online", "offline", "lost"])),
        (at(SCHEMAS, "/Host/allOf/1/properties/seen"), string()),
        (at(SCHEMAS, "/Host/allOf/1/properties/rtt"), json!({ "type": "integer" })),
        (at(SCHEMAS, "/Host/allOf/1/required"), json!(["name", "rtt"])),
    ] {
        assert_eq!(breaks(&document(), &changed(&pointer, value)), Vec::<String>::new(), "{pointer}");
    }
}
