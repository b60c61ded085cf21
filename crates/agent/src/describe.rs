//! `openapi.json` says what the code does.

use std::path::PathBuf;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::*;
use crate::line::DeliveryLine;
use crate::requests::{Approved, PendingRequest, Requests};

fn description() -> String {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let answers = [
        generator.subschema_for::<HomeInfo>(),
        generator.subschema_for::<Status>(),
        generator.subschema_for::<DeliveryLine<'static>>(),
        generator.subschema_for::<Requests>(),
        generator.subschema_for::<PendingRequest>(),
        generator.subschema_for::<Approved>(),
        generator.subschema_for::<Fault>(),
    ];
    assert!(answers.iter().all(|of| of.get("$ref").is_some()));
    let mut paths = serde_json::Map::new();
    for of in ROUTES {
        let methods = paths.entry(of.path).or_insert_with(|| json!({}));
        methods[of.method] = operation(of, &mut generator);
    }
    let description = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sealcast agent",
            "version": API.to_string(),
            "description": "HTTP/1.1 on the Unix socket `agent.sock` in the home. `/healthz` and \
                            `/metrics` are on loopback as well.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": generator.definitions() },
    });
    serde_json::to_string_pretty(&description).unwrap() + "\n"
}

fn operation(of: &Route, generator: &mut SchemaGenerator) -> Value {
    let schema = match of.answer.1 {
        Some(name) => json!({ "$ref": format!("#/components/schemas/{name}") }),
        None => json!({}),
    };
    let (kind, _) = of.answer;
    let mut parameters = Vec::new();
    for name in ["name", "id"] {
        if of.path.contains(&format!("{{{name}}}")) {
            let text = json!({ "type": "string" });
            let parameter = json!({ "name": name, "in": "path", "required": true, "schema": text });
            parameters.push(parameter);
        }
    }
    if of.path.contains("{name}") {
        let query = generator.root_schema_for::<MessagesQuery>();
        for name in ["from", "count"] {
            let schema = query.get("properties").unwrap()[name].clone();
            parameters.push(json!({ "name": name, "in": "query", "schema": schema }));
        }
    }
    let refused = json!({ "$ref": "#/components/schemas/Fault" });
    json!({
        "summary": of.summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "Done.", "content": { kind: { "schema": schema } } },
            "default": { "description": "Not done.", "content": { JSON: { "schema": refused } } },
        },
    })
}

/// `SEALCAST_BLESS=1 cargo test -p sealcast-agent` writes the description anew.
#[test]
fn the_description_of_the_api_is_that_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("SEALCAST_BLESS").is_some() {
        std::fs::write(&path, description()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, description(), "write it anew with SEALCAST_BLESS=1");
}

#[test]
fn each_answer_of_json_names_a_schema_that_there_is() {
    let description: Value = serde_json::from_str(&description()).unwrap();
    for of in ROUTES {
        let Some(name) = of.answer.1 else { continue };
        assert!(
            description["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
}
