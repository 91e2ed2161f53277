//! docs/schema.json, and whether values are as it says: the few words of JSON Schema that it uses, and no others.

use std::fs;

use serde_json::Value;

use super::markdown::repository;

/// A schema and the definitions that it refers to.
pub struct Schema {
    root: Value,
}

impl Schema {
    pub fn of_the_documentation() -> Self {
        let text = fs::read_to_string(repository().join("docs/schema.json")).expect("the schema");
        Self { root: serde_json::from_str(&text).expect("the schema is JSON") }
    }

    /// What is wrong with a value, if anything. Stricter than JSON Schema: a field that is not described is a fault.
    pub fn fault(&self, value: &Value) -> Option<String> {
        self.check(&self.root, value, "").err()
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        for (word, wanted) in schema.as_object().expect("a schema is an object") {
            let holds = match word.as_str() {
                "$schema"
                | "$defs"
                | "title"
                | "description"
                | "required"
                | "items"
                | "properties"
                | "additionalProperties" => true,
                "type" => is_of_type(wanted, value),
                "const" => value == wanted,
                "enum" => wanted.as_array().expect("values").contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().expect("a number")),
                "pattern" => is_address(value),
                "$ref" => return self.check(self.definition(wanted), value, at),
                "oneOf" => return self.one_of(wanted, value, at),
                word => panic!("the schema uses {word}, which this test does not know"),
            };
            if !holds {
                return Err(format!("{at}: {value} is not of {word} {wanted}"));
            }
        }
        if let Some(fields) = value.as_object() {
            self.check_fields(schema, fields, at)?;
        }
        if let Some(wanted) = schema.get("items") {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                self.check(wanted, item, &format!("{at}[{index}]"))?;
            }
        }
        Ok(())
    }

    fn check_fields(
        &self,
        schema: &Value,
        fields: &serde_json::Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        let missing = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|name| !fields.contains_key(name.as_str().expect("a name")));
        if let Some(missing) = missing {
            return Err(format!("{at}: no {missing}"));
        }
        for (name, field) in fields {
            match schema["properties"].get(name) {
                Some(schema) => self.check(schema, field, &format!("{at}.{name}"))?,
                None if schema.get("additionalProperties") == Some(&Value::Bool(true)) => {}
                None if schema.get("properties").is_none() => {}
                None => return Err(format!("{at}.{name} is not in the schema")),
            }
        }
        Ok(())
    }

    fn definition(&self, reference: &Value) -> &Value {
        let name = reference
            .as_str()
            .and_then(|reference| reference.strip_prefix("#/$defs/"))
            .expect("a definition");
        self.root["$defs"].get(name).unwrap_or_else(|| panic!("the schema lacks {name}"))
    }

    fn one_of(&self, choices: &Value, value: &Value, at: &str) -> Result<(), String> {
        let results = choices.as_array().expect("choices").iter().map(|choice| self.check(choice, value, at));
        let (fitting, faults): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
        // The choice that got furthest says what is wrong.
        let fault =
            faults.into_iter().filter_map(Result::err).max_by_key(|fault| fault.matches(['.', '[']).count());
        match fitting.len() {
            1 => Ok(()),
            0 => Err(fault.unwrap_or_default()),
            _ => Err(format!("{at}: fits more than one choice")),
        }
    }
}

fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("the name of a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        name => panic!("no such type: {name}"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}

/// The only pattern: an address in sixteen digits.
fn is_address(value: &Value) -> bool {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
