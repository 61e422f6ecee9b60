//! Routes and their description, added in one place, so that neither can be without the other. The description is
//! an OpenAPI 3.1 document; its schemas come from the wire types themselves.

use std::sync::Arc;

use ake_api_client::Problem;
use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, on},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::App;

/// Where the description is served.
pub(super) const PATH: &str = "/v1/openapi.json";

/// What one operation takes and answers.
pub(super) struct Operation {
    method: Method,
    path: &'static str,
    summary: &'static str,
    takes: Option<Value>,
    answers: (u16, Option<Value>),
    query: Vec<Value>,
    /// Carries ETags both ways.
    tagged: bool,
    /// Takes no token.
    open: bool,
}

impl Operation {
    /// Says that the answer is tagged: reads can be answered with 304, writes can be guarded.
    pub(super) fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// Says that no token is needed.
    pub(super) fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Takes this behind the `?`.
    pub(super) fn query(mut self, name: &str, required: bool, schema: Value, about: &str) -> Self {
        self.query.push(
            json!({"name": name, "in": "query", "required": required, "schema": schema, "description": about}),
        );
        self
    }
}

/// The API while it is put together.
pub(super) struct Api {
    guarded: Router<Arc<App>>,
    open: Router<Arc<App>>,
    paths: Map<String, Value>,
    schemas: SchemaGenerator,
}

impl Api {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let mut schemas = settings.into_generator();
        schemas.subschema_for::<Problem>();
        Self { guarded: Router::new(), open: Router::new(), paths: Map::new(), schemas }
    }

    /// An operation that reads.
    pub(super) fn read<T: JsonSchema>(&mut self, path: &'static str, summary: &'static str) -> Operation {
        let schema = self.schema::<T>();
        operation(Method::GET, path, summary, None, (200, schema))
    }

    /// An operation that writes `B` and answers with `T`; `()` stands for nothing.
    pub(super) fn write<B: JsonSchema, T: JsonSchema>(
        &mut self,
        method: Method,
        path: &'static str,
        summary: &'static str,
    ) -> Operation {
        let (takes, answers) = (self.schema::<B>(), self.schema::<T>());
        let status = if answers.is_some() { 200 } else { 204 };
        operation(method, path, summary, takes, (status, answers))
    }

    fn schema<T: JsonSchema>(&mut self) -> Option<Value> {
        let nothing = T::schema_id() == <()>::schema_id();
        (!nothing).then(|| match self.schemas.subschema_for::<T>().to_value() {
            Value::Bool(true) => json!({}),
            schema => schema,
        })
    }

    /// Adds an operation with what does it.
    pub(super) fn on<H, T>(mut self, describe: impl FnOnce(&mut Self) -> Operation, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let operation = describe(&mut self);
        // GET answers HEAD as well, and those are the only methods there are
        let filter = MethodFilter::try_from(operation.method.clone()).unwrap_or(MethodFilter::GET);
        let routes = if operation.open { &mut self.open } else { &mut self.guarded };
        *routes = std::mem::take(routes).route(operation.path, on(filter, handler));
        let methods = self.paths.entry(operation.path).or_insert_with(|| parameters(operation.path));
        methods[operation.method.as_str().to_lowercase()] = described(&operation);
        self
    }

    /// The routes that need a token, those that do not, and the description of both.
    pub(super) fn finish(mut self) -> (Router<Arc<App>>, Router<Arc<App>>, Value) {
        let schemas = self.schemas.take_definitions(true);
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "ake-api",
                "version": "1.0",
                "description": "Clusters, addresses, load balancers and nodes' bundles. Every write is idempotent. \
                    Each answer about a cluster carries the ETag of the cluster's whole state.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"token": {
                    "type": "apiKey", "in": "header", "name": "X-Auth-Token",
                    "description": "A token of Keystone that is scoped to a project.",
                }},
                "responses": {"Problem": {
                    "description": "What was wrong. 429 and 503 carry Retry-After.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }},
            },
        });
        (self.guarded, self.open, document)
    }
}

fn operation(
    method: Method,
    path: &'static str,
    summary: &'static str,
    takes: Option<Value>,
    answers: (u16, Option<Value>),
) -> Operation {
    Operation { method, path, summary, takes, answers, query: vec![], tagged: false, open: false }
}

/// The parameters that stand in a path, which all of its methods share.
fn parameters(path: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            let mut schema = json!({"type": "string"});
            if matches!(name, "cluster" | "port") {
                schema["format"] = json!("uuid");
            }
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    if parameters.is_empty() { json!({}) } else { json!({"parameters": parameters}) }
}

fn described(operation: &Operation) -> Value {
    let Operation { method, path, summary, takes, answers, query, tagged, open } = operation;
    let reads = *method == Method::GET;
    let mut parameters = query.clone();
    let mut header = |name: &str, about: &str| {
        parameters
            .push(json!({"name": name, "in": "header", "schema": {"type": "string"}, "description": about}));
    };
    if *tagged && reads {
        header("If-None-Match", "ETags that were seen: 304 while nothing is other than they say.");
    }
    if *tagged && !reads {
        header(
            "If-Match",
            "The ETag that the write was planned from: 412 if what is wanted has changed since. Health may have.",
        );
        header(
            super::guard::LEASE_TRANSITIONS,
            "leaseTransitions of the writer's Lease: 412 if a higher one was seen.",
        );
    }
    let (status, schema) = answers;
    let mut answer = json!({"description": "Done."});
    if let Some(schema) = schema {
        answer["content"] = json!({"application/json": {"schema": schema}});
    }
    let mut answers = json!({"default": {"$ref": "#/components/responses/Problem"}});
    if *tagged && schema.is_some() {
        answer["headers"] =
            json!({"ETag": {"description": "Of the cluster's whole state.", "schema": {"type": "string"}}});
        if reads {
            answers["304"] = json!({"description": "Nothing is other than If-None-Match says."});
        }
    }
    answers[status.to_string()] = answer;
    let mut described = json!({"operationId": id(method, path), "summary": summary, "responses": answers});
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    if let Some(schema) = takes {
        described["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if *open {
        described["security"] = json!([]);
    }
    described
}

/// A name for clients that are generated: the method and the path.
fn id(method: &Method, path: &str) -> String {
    format!(
        "{}{}",
        method.as_str().to_lowercase(),
        path.replace(['/', '.', '-'], "_").replace(['{', '}'], "")
    )
}
