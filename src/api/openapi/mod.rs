//! OpenAPI document of the API, served at `/openapi.json` and shown by `/docs`.
//!
//! The files beside this one are written by hand and hold only what differs between operations. Parts common to all
//! (the envelope, the errors, the request id) are added here. A test compares the document with the paths of
//! [`super::route`], and the schema fuzzer (tests/openapi.rs) compares it with the real responses.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::envelope::Reply;
use super::error::ApiError;
use super::request::Method;

const ABOUT: &str = include_str!("about.json");
const COMPONENTS: &str = include_str!("components.json");
const SCHEMAS: &str = include_str!("schemas.json");
const PATHS: [&str; 4] = [
    include_str!("kazoo.json"),
    include_str!("lamps.json"),
    include_str!("refusals.json"),
    include_str!("server.json"),
];

/// Error statuses of every operation below `/v2`. The second list holds those that only a POST can meet.
const FAULTS: [&str; 11] = ["400", "401", "403", "404", "406", "408", "413", "414", "429", "431", "503"];
const FAULTS_OF_CHANGES: [&str; 3] = ["405", "415", "501"];

static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Answers a request for the document. No token is needed: it holds no data of an account.
pub(super) fn answer(verb: Method) -> Result<Reply, ApiError> {
    if !verb.reads() {
        return Err(ApiError::MethodNotAllowed { allow: "GET, HEAD", cause: None });
    }
    let mut response = Response::new(Body::from(TEXT.as_str()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Allows viewers and code generators on other origins to read it.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(Reply::File(response))
}

/// The complete document.
///
/// # Panics
/// If one of the embedded files is invalid, which a test rules out.
fn document() -> Value {
    let read =
        |text| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_else(|e| unreachable!("embedded: {e}"));
    let mut document = read(ABOUT);
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    let mut components = read(COMPONENTS);
    let faults = components.remove("faults").unwrap_or_default();
    let known = components["parameters"].clone();

    let mut paths = Map::new();
    for (path, mut item) in PATHS.into_iter().flat_map(read) {
        let common = path.starts_with("/v2/");
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(method, operation, common, &faults);
        }
        let named: Vec<_> = placeholders(&path).filter(|name| known.get(name).is_some()).collect();
        if !named.is_empty() {
            item["parameters"] = named.iter().map(|name| reference("parameters", name)).collect();
        }
        paths.insert(path, item);
    }
    let responses = components.entry("responses").or_insert_with(|| json!({}));
    for (status, about) in faults.as_object().into_iter().flatten() {
        responses[about[0].as_str().unwrap_or_default()] = fault(status, &about[1]);
    }
    components.insert("schemas".into(), Value::Object(schemas(&read(SCHEMAS))));
    document.insert("paths".into(), Value::Object(paths));
    document.insert("components".into(), Value::Object(components));
    Value::Object(document)
}

/// Names of the placeholders of a path.
fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn request_id() -> Value {
    json!({ "X-Request-ID": reference("headers", "X-Request-ID") })
}

/// Adds to an operation the response of a success and the common errors.
fn complete(method: &str, operation: &mut Value, common: bool, faults: &Value) {
    let Some(operation) = operation.as_object_mut() else { return };
    let paged = operation.remove("paged").is_some();
    let content = match (operation.remove("returns"), operation.remove("stream")) {
        (Some(data), _) => Some(json!({ "application/json": { "schema": envelope(&data, paged) } })),
        (None, Some(kind)) => Some(json!({ kind.as_str().unwrap_or_default(): { "schema": { "type": "string" } } })),
        (None, None) => None,
    };
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(content) = content {
        responses["200"] = json!({ "description": "It was done.", "headers": request_id(), "content": content });
    }
    if common {
        let of_changes = FAULTS_OF_CHANGES.iter().filter(|_| method == "post");
        // DELETE may have a body too; its content is ignored, but its type is checked.
        let also = ["415"].iter().filter(|_| method == "delete");
        for status in FAULTS.iter().chain(of_changes).chain(also) {
            responses[*status] = reference("responses", faults[*status][0].as_str().unwrap_or_default());
        }
    }
}

/// Schema of the envelope of a success.
fn envelope(data: &Value, paged: bool) -> Value {
    let mut properties = json!({
        "auth_token": { "type": "string", "description": "The token." },
        "data": data,
        "request_id": { "type": "string" },
        "revision": { "const": "undefined" },
        "status": { "const": "success" }
    });
    let mut required = vec!["auth_token", "data", "request_id", "revision", "status"];
    if paged {
        properties["next_start_key"] =
            json!({ "type": "string", "description": "Where the next page begins; not on the last." });
        properties["page_size"] = json!({ "type": "integer", "description": "How many there are on this one." });
        properties["start_key"] = json!({ "type": "string", "description": "Where this one begins." });
        required.extend(["page_size", "start_key"]);
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn fault(status: &str, description: &Value) -> Value {
    let mut headers = request_id();
    for (of, name) in [("429", "Retry-After"), ("503", "Retry-After"), ("405", "Allow")] {
        if status == of {
            headers[name] = reference("headers", name);
        }
    }
    let schema = reference("schemas", "Fault");
    json!({ "description": description, "headers": headers, "content": { "application/json": { "schema": schema } } })
}

/// Completes the object schemas: adds the properties of the schema that each one extends, and makes all properties
/// required except those listed as optional.
fn schemas(written: &Map<String, Value>) -> Map<String, Value> {
    let one = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let Some(parts) = schema.as_object_mut().filter(|parts| parts.contains_key("properties")) else {
            return (name.clone(), schema);
        };
        let base = parts.remove("extends").and_then(|base| written[base.as_str()?]["properties"].as_object().cloned());
        let optional = parts.remove("optional").unwrap_or_default();
        let optional: Vec<_> = optional.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut properties = base.unwrap_or_default();
        properties.extend(parts["properties"].as_object().cloned().unwrap_or_default());
        let required: Value = properties.keys().filter(|key| !optional.contains(&key.as_str())).cloned().collect();
        parts.insert("type".into(), json!("object"));
        parts.insert("required".into(), required);
        parts.insert("properties".into(), Value::Object(properties));
        (name.clone(), schema)
    };
    written.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::route;
    use super::*;

    /// Methods that a document names for a path, in upper case.
    fn methods(item: &Value) -> BTreeSet<String> {
        let names = item.as_object().into_iter().flatten().map(|(name, _)| name.to_uppercase());
        names.filter(|name| name != "PARAMETERS").collect()
    }

    /// Collects every `$ref` of a document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value {
                Value::String(name) if key == "$ref" => drop(found.insert(name.clone())),
                _ => references(value, found),
            }),
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described_with_its_methods_and_nothing_else_is() {
        let document = document();
        let described: BTreeMap<_, _> =
            document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), methods(item))).collect();
        let served: BTreeMap<_, _> = route::all()
            .map(|(path, allow)| {
                let methods = allow.split(", ").filter(|name| !["HEAD", "OPTIONS"].contains(name));
                (path, methods.map(String::from).collect::<BTreeSet<_>>())
            })
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn whatever_is_referred_to_is_there_and_whatever_is_there_is_referred_to() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for name in &found {
            assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
        }
        for (kind, all) in document["components"].as_object().unwrap() {
            for name in all.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
                assert!(found.contains(&format!("#/components/{kind}/{name}")), "{kind}/{name} is used nowhere");
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_placeholder_a_description() {
        let document = document();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let described = item["parameters"].as_array().map_or(0, Vec::len);
            assert_eq!(described, placeholders(path).count(), "{path}");
            for method in methods(item) {
                let operation = &item[method.to_lowercase()];
                assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
                assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            }
        }
    }
}
