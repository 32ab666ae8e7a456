//! A checker for the part of JSON Schema that the published schemas use. A word it does not
//! know is a violation, so the schema cannot promise what is not checked.

use serde_json::{Map, Value};

pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "$", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(words) = schema.as_object() else {
        return found.push(format!("{at}: schema is no object"));
    };
    for (word, want) in words {
        match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "properties" => {}
            "format" => assert_eq!(want, "date-time"), // checked where times are made
            "$ref" => {
                let pointer = want.as_str().unwrap().trim_start_matches('#');
                check(root, root.pointer(pointer).unwrap(), value, at, found);
            }
            "type" => {
                let types: Vec<&str> = match want {
                    Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
                    one => one.as_str().into_iter().collect(),
                };
                if !types.iter().any(|t| is(t, value)) {
                    found.push(format!("{at}: {value} is not {types:?}"));
                }
            }
            "enum" => {
                if !want.as_array().unwrap().contains(value) {
                    found.push(format!("{at}: {value} is not one of {want}"));
                }
            }
            "const" => {
                if want != value {
                    found.push(format!("{at}: {value} is not {want}"));
                }
            }
            "minimum" => {
                if value.as_f64().is_some_and(|n| n < want.as_f64().unwrap()) {
                    found.push(format!("{at}: {value} below {want}"));
                }
            }
            "maximum" => {
                if value.as_f64().is_some_and(|n| n > want.as_f64().unwrap()) {
                    found.push(format!("{at}: {value} above {want}"));
                }
            }
            "anyOf" | "oneOf" => {
                let fits = want.as_array().unwrap().iter().filter(|schema| {
                    let mut wrong = Vec::new();
                    check(root, schema, value, at, &mut wrong);
                    wrong.is_empty()
                });
                let fits = fits.count();
                if fits == 0 || (word == "oneOf" && fits > 1) {
                    found.push(format!("{at}: fits {fits} of {word}"));
                }
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, want, item, &format!("{at}[{i}]"), found);
                }
            }
            "required" => {
                let Some(object) = value.as_object() else {
                    continue;
                };
                for name in want.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if !object.contains_key(name) {
                        found.push(format!("{at}: no {name}"));
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(want, &Value::Bool(false));
                for name in value.as_object().into_iter().flat_map(Map::keys) {
                    if schema["properties"].get(name).is_none() {
                        found.push(format!("{at}: unknown {name}"));
                    }
                }
            }
            other => found.push(format!("{at}: schema word {other} is not checked")),
        }
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object())
    {
        for (name, schema) in properties {
            if let Some(member) = object.get(name) {
                check(root, schema, member, &format!("{at}.{name}"), found);
            }
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
