//! The way of a request: who may ask, what it names, and what happens.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    answer::{Query, Refusal, decode, link, rest_error},
    cluster,
    config::Config,
    device::{Options, Request, World},
    disk,
    forms::Fields,
    kinds::{KINDS, Kind},
    transaction::Command,
};

type Answer = (StatusCode, Value);

impl World {
    pub(crate) fn route(&mut self, me: usize, request: &Request) -> Answer {
        let Options { user, password, .. } = self.options.clone();
        let body: Value = if request.body.is_empty() {
            json!({})
        } else {
            match serde_json::from_slice(&request.body) {
                Ok(body) => body,
                Err(e) => {
                    return refused(&Refusal::rest(format!("Found invalid JSON body in the request: {e}")));
                }
            }
        };
        let path = request.path.trim_end_matches('/');
        let segments: Vec<String> = path.trim_start_matches("/mgmt/").split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let unit = &mut self.units[me];
        if segments == ["shared", "authn", "login"] && request.method == "POST" {
            return unit.tokens.login(&body, &user, &password);
        }
        if let Err(refused) = unit.tokens.admit(&request.headers, path, &user, &password) {
            return refused;
        }
        match segments[..] {
            ["shared", "authz", "tokens", name] => unit.tokens.answer(&request.method, name, &body, &user),
            ["shared", "identified-devices", "config", "device-info"] => {
                (StatusCode::OK, cluster::device_info(&unit.name))
            }
            ["tm", ref rest @ ..] => self.tm(me, request, rest, &body),
            _ => rest_error(404, &format!("Public URI path not registered: {path}")),
        }
    }

    fn tm(&mut self, me: usize, request: &Request, path: &[&str], body: &Value) -> Answer {
        let method = request.method.as_str();
        if let ["cm"] = path {
            return self.cm(me, body);
        }
        let found = match (method, path) {
            ("GET", ["cm", "device"]) => Some(cluster::devices(&self.units, me)),
            ("GET", ["cm", "sync-status"]) => Some(cluster::sync_status(&self.units)),
            ("GET", ["sys"]) => {
                Some(json!({"kind": "tm:sys:syscollectionstate", "selfLink": link("sys"), "items": []}))
            }
            ("GET", ["sys", "version"]) => Some(cluster::version()),
            ("GET", ["sys", "provision"]) => Some(cluster::provision()),
            ("GET", ["ltm", "virtual", "stats"]) => Some(cluster::virtual_stats(&self.units[me].config)),
            _ => None,
        };
        if let Some(found) = found {
            return (StatusCode::OK, found);
        }
        let disk = disk::of(&self.options, me);
        if let ("POST", ["sys", "failover"]) = (method, path) {
            return self.failover(me, body);
        }
        let unit = &mut self.units[me];
        match (method, path) {
            ("POST", ["sys", "config"]) if body["command"] == "save" => {
                if let Some(Err(error)) = disk.map(|disk| disk::store(&disk, &unit.config)) {
                    return refused(&Refusal::mcpd(500, format!("01070734:3: {error}")));
                }
                unit.saved = unit.config.clone();
                return (StatusCode::OK, json!({"kind": "tm:sys:config:savestate", "command": "save"}));
            }
            ("POST", ["transaction"]) => return unit.transactions.begin(),
            (_, ["transaction", id, rest @ ..]) => {
                let id = id.parse().unwrap_or(0);
                return unit.transactions.answer(method, id, rest, body, &mut unit.config, perform);
            }
            _ => {}
        }
        let command = Command { method: method.to_owned(), path: path.join("/"), body: body.clone() };
        let coordination = request.headers.get("x-f5-rest-coordination-id");
        if let Some(id) = coordination.and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok())
            && method != "GET"
        {
            return unit.transactions.queue(id, command);
        }
        if method != "GET" {
            return match perform(&mut unit.config, &command) {
                Ok(()) if method == "DELETE" => (StatusCode::OK, Value::Null),
                Ok(()) => self.show(me, path, &Query::default(), Some(body)),
                Err(refusal) => refused(&refusal),
            };
        }
        match Query::parse(&request.query) {
            Ok(query) => {
                let query = Query { other_form: self.other_form, ..query };
                self.show(me, path, &query, None)
            }
            Err(refusal) => refused(&refusal),
        }
    }

    /// GET of an object or a collection; after a POST, of the object that was made.
    fn show(&self, me: usize, path: &[&str], query: &Query, made: Option<&Value>) -> Answer {
        let (config, down) = (&self.units[me].config, &self.down);
        let up = |address: &str| !down.contains(address);
        let Some((kind, pool, item)) = find(path) else {
            if let ["ltm", "virtual", name, "profiles"] = path {
                return cluster::profiles(config, &name.replace('~', "/"));
            }
            if path.first() == Some(&"ltm") || path.first() == Some(&"apm") {
                return cluster::empty(path);
            }
            if let ["sys", "folder", name] = path {
                return cluster::folder(config, name);
            }
            let refusal = Refusal {
                api_error: 1,
                ..Refusal::mcpd(404, format!("Found unexpected URI tmapi_mapper/{}.", path.join("/")))
            };
            return refused(&refusal);
        };
        if let Some(pool) = &pool
            && !config.has("ltm/pool", pool)
        {
            return refused(&Refusal::not_found("Pool", pool));
        }
        let item = item.or_else(|| {
            let made = made?;
            let home = pool.as_deref().map_or("Common", |pool| crate::forms::split_path(pool).0);
            let partition = made["partition"].as_str().unwrap_or(home);
            let name = made["name"].as_str()?;
            Some(if kind.path == "auth/partition" {
                name.to_owned()
            } else {
                crate::forms::full_path(partition, name)
            })
        });
        let Some(item) = item else { return (StatusCode::OK, config.list(kind, pool.as_deref(), query, up)) };
        let key = pool.map_or_else(|| item.clone(), |pool| format!("{pool} {item}"));
        match config.shown(kind, &key, query, up) {
            Some(shown) => (StatusCode::OK, shown),
            None => refused(&Refusal::not_found(kind.label, &item)),
        }
    }

    /// `run sys failover standby`: this unit gives the traffic to the other one.
    fn failover(&mut self, me: usize, body: &Value) -> Answer {
        if body["command"] != "run" || body["standby"] != true {
            return refused(&Refusal::rest("the command is not imitated"));
        }
        for (index, unit) in self.units.iter_mut().enumerate() {
            unit.active = index != me;
        }
        (StatusCode::OK, json!({"kind": "tm:sys:failover:runstate", "command": "run", "standby": true}))
    }

    /// `run cm config-sync`: this unit's configuration becomes that of the others.
    fn cm(&mut self, me: usize, body: &Value) -> Answer {
        let arguments = body["utilCmdArgs"].as_str().unwrap_or_default();
        if body["command"] != "run" || !arguments.contains("config-sync") {
            return refused(&Refusal::rest("the command is not imitated"));
        }
        if self.units.iter().any(|unit| unit.peer_lost) {
            return refused(&Refusal::mcpd(
                400,
                "01071488:3: Remote transaction for device group failed with error 01070734:3: Configuration error: peer is disconnected",
            ));
        }
        let config = self.units[me].config.clone();
        for unit in &mut self.units {
            unit.config = config.clone();
        }
        (StatusCode::OK, json!({"kind": "tm:cm:runstate", "command": "run", "utilCmdArgs": arguments}))
    }
}

fn refused(refusal: &Refusal) -> Answer {
    (refusal.status, refusal.body())
}

/// The kind that a path is of, the pool that it is in, and the object that it names.
fn find(path: &[&str]) -> Option<(&'static Kind, Option<String>, Option<String>)> {
    let full = |name: &str| name.replace('~', "/");
    if let ["ltm", "pool", pool, "members", rest @ ..] = path {
        return Some((
            Kind::find("ltm/pool/members")?,
            Some(full(pool)),
            rest.first().map(|name| full(name)),
        ));
    }
    let kind = KINDS.iter().find(|kind| {
        let length = kind.path.matches('/').count() + 1;
        path.len() <= length + 1 && path.len() >= length && path[..length].join("/") == kind.path
    })?;
    let length = kind.path.matches('/').count() + 1;
    let item = path.get(length).map(|name| match kind.path {
        "auth/partition" => (*name).to_owned(),
        // a name without its partition is in /Common
        _ if !name.starts_with('~') => format!("/Common/{name}"),
        _ => full(name),
    });
    Some((kind, None, item))
}

/// Does what a command says.
pub(crate) fn perform(config: &mut Config, command: &Command) -> Result<(), Refusal> {
    let segments: Vec<String> = command.path.split('/').map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let unknown = || Refusal {
        api_error: 1,
        ..Refusal::mcpd(404, format!("Found unexpected URI tmapi_mapper/{}.", command.path))
    };
    let (kind, pool, item) = find(&segments).ok_or_else(unknown)?;
    if let Some(pool) = &pool
        && !config.has("ltm/pool", pool)
    {
        return Err(Refusal::not_found("Pool", pool));
    }
    let empty = Fields::new();
    let body = command.body.as_object().unwrap_or(&empty);
    let key = item.map(|item| pool.as_ref().map_or_else(|| item.clone(), |pool| format!("{pool} {item}")));
    match (command.method.as_str(), key) {
        ("POST", None) => config.create(kind, pool.as_deref(), body).map(|_| ()),
        ("PATCH", Some(key)) => config.modify(kind, &key, body, false),
        ("PUT", Some(key)) => config.modify(kind, &key, body, true),
        ("DELETE", Some(key)) => config.delete(kind, &key),
        _ => Err(Refusal::rest("operation is not supported on this resource")),
    }
}
