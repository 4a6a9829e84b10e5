//! As much of JSON Schema as the document uses; a word beyond it is an error.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

const WORDS: [&str; 12] = [
    "description",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "oneOf",
    "$ref",
    "minimum",
    "maximum",
];

/// The document, and which of its parts were matched by something.
#[derive(Debug)]
pub(crate) struct Document {
    root: Value,
    used: RefCell<BTreeSet<String>>,
}

impl Document {
    pub(crate) fn load() -> Self {
        let text = include_str!("../../docs/local-api.json");
        let root: Value = serde_json::from_str(text).unwrap();
        assert_eq!(root["openapi"], "3.1.0");
        Self {
            root,
            used: RefCell::default(),
        }
    }

    pub(crate) fn paths(&self) -> BTreeSet<String> {
        self.root["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// A JSON pointer to the schema of a request's body.
    pub(crate) fn request(&self, path: &str) -> String {
        format!(
            "/paths/{}/post/requestBody/content/application~1json/schema",
            path.replace('/', "~1")
        )
    }

    /// A JSON pointer to the schema of an answer.
    pub(crate) fn response(&self, path: &str, status: &str) -> String {
        format!(
            "/paths/{}/post/responses/{status}/content/application~1json/schema",
            path.replace('/', "~1")
        )
    }

    pub(crate) fn has_response(&self, path: &str, status: &str) -> bool {
        self.root.pointer(&self.response(path, status)).is_some()
    }

    /// Whether `value` is as the schema at `pointer` says.
    pub(crate) fn check(&self, pointer: &str, value: &Value) -> Result<(), String> {
        let schema = self
            .root
            .pointer(pointer)
            .and_then(Value::as_object)
            .ok_or_else(|| format!("there is no schema {pointer}"))?;
        let odd: Vec<_> = schema
            .keys()
            .filter(|word| !WORDS.contains(&word.as_str()))
            .collect();
        if !odd.is_empty() {
            return Err(format!("{pointer} has {odd:?}"));
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return self.check(target.trim_start_matches('#'), value);
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            let results: Vec<_> = (0..choices.len())
                .map(|index| self.check(&format!("{pointer}/oneOf/{index}"), value))
                .collect();
            let fitting = results.iter().filter(|result| result.is_ok()).count();
            if fitting != 1 {
                return Err(format!("{value} fits {fitting} of {pointer}: {results:?}"));
            }
        } else {
            self.check_type(pointer, schema, value)?;
        }
        self.used.borrow_mut().insert(pointer.to_owned());
        Ok(())
    }

    fn check_type(
        &self,
        pointer: &str,
        schema: &Map<String, Value>,
        value: &Value,
    ) -> Result<(), String> {
        let wrong = || Err(format!("{value} is not what {pointer} says: {schema:?}"));
        let in_range = |number: f64| {
            let end = |word: &str| schema.get(word).and_then(Value::as_f64);
            end("minimum").is_none_or(|least| number >= least)
                && end("maximum").is_none_or(|most| number <= most)
        };
        let fits = match schema.get("type").and_then(Value::as_str) {
            Some("null") => value.is_null(),
            Some("boolean") => value.is_boolean(),
            Some("string") => value.is_string(),
            Some("integer") => {
                (value.is_u64() || value.is_i64()) && value.as_f64().is_some_and(in_range)
            }
            Some("number") => value.as_f64().is_some_and(in_range),
            Some("array") => {
                let Some(items) = value.as_array() else {
                    return wrong();
                };
                for item in items {
                    self.check(&format!("{pointer}/items"), item)?;
                }
                true
            }
            Some("object") => return self.check_object(pointer, schema, value),
            _ => false,
        };
        let named = schema
            .get("enum")
            .and_then(Value::as_array)
            .is_none_or(|names| names.contains(value))
            && schema.get("const").is_none_or(|only| only == value);
        if let (true, Some(name)) = (schema.contains_key("enum"), value.as_str()) {
            let mut used = self.used.borrow_mut();
            used.insert(format!("{pointer}/enum {name}"));
        }
        if fits && named { Ok(()) } else { wrong() }
    }

    fn check_object(
        &self,
        pointer: &str,
        schema: &Map<String, Value>,
        value: &Value,
    ) -> Result<(), String> {
        let Some(object) = value.as_object() else {
            return Err(format!("{value} is no object, as {pointer} has it"));
        };
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Err(format!("{value} lacks {name:?} of {pointer}"));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, field) in object {
            if properties.is_some_and(|named| named.contains_key(name)) {
                self.check(&format!("{pointer}/properties/{name}"), field)?;
            } else if schema
                .get("additionalProperties")
                .is_some_and(Value::is_object)
            {
                self.check(&format!("{pointer}/additionalProperties"), field)?;
            } else {
                return Err(format!("{value} has {name:?}, and {pointer} does not"));
            }
        }
        Ok(())
    }

    /// Schemas and names of enumerations that nothing was checked against.
    pub(crate) fn unused(&self) -> Vec<String> {
        let mut all = Vec::new();
        collect(
            &self.root["components"]["schemas"],
            "/components/schemas",
            &mut all,
        );
        let used = self.used.borrow();
        all.retain(|pointer| !used.contains(pointer));
        all
    }
}

/// Every schema below `value`, as a pointer, and every name of an enumeration.
fn collect(value: &Value, pointer: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            // A property may be called "type" as well.
            let is_schema =
                object.get("type").is_some_and(Value::is_string) || object.contains_key("oneOf");
            if is_schema {
                into.push(pointer.to_owned());
            }
            for (name, child) in object {
                collect(child, &format!("{pointer}/{name}"), into);
            }
        }
        Value::Array(items) if pointer.ends_with("/enum") => {
            for name in items.iter().filter_map(Value::as_str) {
                into.push(format!("{pointer} {name}"));
            }
        }
        Value::Array(items) => {
            for (index, child) in items.iter().enumerate() {
                collect(child, &format!("{pointer}/{index}"), into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
