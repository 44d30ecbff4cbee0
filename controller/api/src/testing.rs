//! For tests: a schema with every shape.

use serde_json::{Map, Value, json};

/// The object that `value` is; an empty one if it is none.
#[must_use]
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// A schema with every shape, as the controller makes them.
#[must_use]
pub fn of_everything() -> Map<String, Value> {
    object(json!({
        "type": "object",
        "description": "Everything.",
        "required": ["what", "mode"],
        "properties": {
            "count": { "type": ["integer", "null"], "description": "How\noften.", "default": 3 },
            "at": { "type": "integer", "format": "unix-ms" },
            "deep": { "type": "object", "properties": { "a": { "type": "string", "description": "Inside." } } },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "maybe": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Mode" }] },
            "kind": { "allOf": [
                { "type": "string", "enum": ["a", "b"], "description": "A kind." },
                { "type": "object", "description": "Which." },
            ] },
            "mode": { "$ref": "#/components/schemas/Mode", "description": "How." },
            "ways": { "type": "array", "items": { "$ref": "#/components/schemas/Way" } },
            "names": { "type": "array", "items": { "type": "string" } },
            "on": { "type": "boolean" },
            "share": { "type": "number" },
            "stairs": { "type": "array", "description": "Each.", "items": { "$ref": "#/components/schemas/Stair" } },
            "tree": { "$ref": "#/components/schemas/Tree" },
            "what": { "type": "string", "example": "nginx" },
        },
        "components": { "schemas": {
            "Stair": { "type": "object", "required": ["way"], "properties": {
                "rails": { "type": "object", "additionalProperties": { "type": "object", "properties": {
                    "height": { "type": "integer", "description": "In cm." },
                } } },
                "way": { "$ref": "#/components/schemas/Way", "description": "Whereto." },
            } },
            "Mode": { "type": "string", "enum": ["fast", "slow"], "description": "A mode." },
            "Tree": { "$ref": "#/components/schemas/Tree" },
            "Way": { "oneOf": [
                { "type": "string", "enum": ["up"], "description": "To the\ntop." },
                { "type": "string", "enum": ["down"] },
            ] },
        } },
    }))
}
