//! What is answered is what the description says: every request of these tests passes here.

use std::sync::LazyLock;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{House, TOKEN};
use crate::http::description_of_all;

static DESCRIPTION: LazyLock<Value> = LazyLock::new(description_of_all);

/// Every operation that is described: method, path, description.
pub(super) fn operations() -> impl Iterator<Item = (Method, &'static str, &'static Value)> {
    let paths = DESCRIPTION["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters");
        methods.map(|(method, operation)| (method.to_uppercase().parse().unwrap(), path.as_str(), operation))
    })
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(path).all(
            |(part, word)| {
                if part.starts_with('{') { !word.is_empty() } else { *part == word }
            },
        )
}

fn hold(schema: &Value, instance: &Value, what: &str) {
    let mut whole = schema.clone();
    whole["components"] = DESCRIPTION["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    if let Err(error) = validator.validate(instance) {
        panic!("{what}: {error} at {}: {instance}", error.instance_path());
    }
}

/// Holds an answer, and a body that was taken, to what is described.
pub(super) fn check(method: &Method, path: &str, sent: &Value, status: StatusCode, body: &Value) {
    let path = path.split('?').next().unwrap_or_default();
    let problem = &DESCRIPTION["components"]["responses"]["Problem"]["content"]["application/json"]["schema"];
    let Some((_, _, operation)) = operations().find(|(m, template, _)| m == method && fits(template, path))
    else {
        assert!(
            matches!(status.as_u16(), 404 | 405 | 429),
            "{method} {path} is not described and says {status}"
        );
        return hold(problem, body, path);
    };
    let what = format!("{method} {path} {status}");
    let answer = &operation["responses"][status.as_str()];
    if answer.is_null() {
        assert!(!status.is_success() && !status.is_redirection(), "{what} is not described");
        return hold(problem, body, &what);
    }
    match &answer["content"]["application/json"]["schema"] {
        Value::Null => assert_eq!(body, &Value::Null, "{what}"),
        schema => hold(schema, body, &what),
    }
    let takes = &operation["requestBody"]["content"]["application/json"]["schema"];
    if status.is_success() && !takes.is_null() {
        hold(takes, sent, &format!("the body of {what}"));
    }
}

#[tokio::test]
async fn every_path_takes_the_methods_that_are_described_and_no_others() {
    let house = House::new().await;
    for template in DESCRIPTION["paths"].as_object().unwrap().keys() {
        let path = template.replace("{cluster}", super::OTHER).replace("{port}", super::PORT);
        let path = path.replace(['{', '}'], "");
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let described = operations().any(|(m, t, _)| m == method && t == template);
            let said = house.say(TOKEN, method.clone(), &path, json!({})).await;
            assert_eq!(said.status != 405, described, "{method} {path} {}", said.status);
            if !described {
                assert_eq!(said.body["code"], "method-not-allowed");
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_served_without_a_token() {
    let house = House::new().await;
    let said = house.say("", Method::GET, "/v1/openapi.json", Value::Null).await;
    assert_eq!((said.status, &said.body), (StatusCode::OK, &*DESCRIPTION));
}

/// `AKE_WRITE_REFERENCE=1 cargo test -p ake-api description` writes the page anew.
#[test]
fn the_page_of_the_description_is_what_is_served() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/openapi.json");
    let wanted = serde_json::to_string_pretty(&*DESCRIPTION).unwrap() + "\n";
    if std::env::var_os("AKE_WRITE_REFERENCE").is_some() {
        std::fs::write(&page, &wanted).unwrap();
    }
    assert!(
        std::fs::read_to_string(&page).unwrap_or_default() == wanted,
        "docs/reference/openapi.json is old: AKE_WRITE_REFERENCE=1 cargo test -p ake-api description"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_who_may_call_it() {
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, operation) in operations() {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
        let open = operation["security"] == json!([]);
        let guarded =
            ["/v1/clusters", "/v1/addresses", "/v1/quota"].iter().any(|begin| path.starts_with(begin));
        assert_eq!(open, !guarded, "{method} {path}");
        assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{method} {path}");
    }
}
