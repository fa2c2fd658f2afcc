//! The JSON schema of `berth.toml`, for editors, made from the types that read it.

use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value};

use crate::Configuration;

/// The schema; `docs/berth.schema.json` is a copy.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Configuration);
    RecursiveTransform(without_null).transform(&mut schema);
    schema.insert("title".to_owned(), "berth.toml".into());
    schema.to_value()
}

/// schemars lets an optional key be null. TOML has no null: such a key is left out.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only: Map<String, Value> = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}
