//! Members of pools, and what their monitors say.

use serde_json::{Value, json};

use crate::{
    answer::{Query, Refusal, link},
    config::Config,
    forms::{Fields, address, address_port, full_path, split_path},
    kinds::Kind,
};

impl Config {
    /// The `members` of a pool's body stand for all of them.
    pub(crate) fn replace_members(&mut self, pool: &str, members: &Value) -> Result<(), Refusal> {
        let Some(kind) = Kind::find("ltm/pool/members") else { return Ok(()) };
        let home = split_path(pool).0.to_owned();
        let mut wanted: Vec<(String, Fields)> = Vec::new();
        for member in members.as_array().into_iter().flatten() {
            let mut body = match member {
                Value::String(name) => Fields::from_iter([("name".to_owned(), name.as_str().into())]),
                Value::Object(body) => body.clone(),
                other => {
                    return Err(Refusal::rest(format!("invalid property value \"members\":\"{other}\"")));
                }
            };
            let name = body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let partition = body.get("partition").and_then(Value::as_str).unwrap_or(&home).to_owned();
            body.insert("partition".to_owned(), partition.as_str().into());
            wanted.push((format!("{pool} {}", full_path(&partition, &name)), body));
        }
        let prefix = format!("{pool} ");
        let gone = |key: &str| key.starts_with(&prefix) && !wanted.iter().any(|(path, _)| path == key);
        self.objects.retain(|(kind, key), _| *kind != "ltm/pool/members" || !gone(key));
        for (key, body) in wanted {
            if self.get(kind, &key).is_some() {
                self.modify(kind, &key, &body, false)?;
            } else {
                self.create(kind, Some(pool), &body)?;
            }
        }
        Ok(())
    }

    /// A member is on a node, which is made where it is not there.
    pub(crate) fn node_of(&mut self, key: &str, fields: &Fields) -> Result<(), Refusal> {
        let (_, member) = key.split_once(' ').unwrap_or(("", key));
        let (partition, name) = split_path(member);
        let host = address_port(name).map(|(host, _)| host).unwrap_or_else(|| name.to_owned());
        let node = format!("/{partition}/{host}");
        if self.has("ltm/node", &node) {
            return Ok(());
        }
        let given = fields.get("address").and_then(Value::as_str).unwrap_or(&host);
        if address(given).is_none() {
            return Err(Refusal::not_found("Node", &node));
        }
        let Some(kind) = Kind::find("ltm/node") else { return Ok(()) };
        let body = json!({"name": host, "partition": partition, "address": given});
        let Value::Object(body) = body else { return Ok(()) };
        self.create(kind, None, &body).map(|_| ())
    }

    /// The address of a member's node.
    pub(crate) fn member_address(&self, key: &str) -> Option<String> {
        let (_, member) = key.split_once(' ')?;
        let (partition, name) = split_path(member);
        let (host, _) = address_port(name)?;
        let node = self.objects.get(&("ltm/node", format!("/{partition}/{host}")))?;
        node.fields.get("address")?.as_str().map(str::to_owned)
    }

    pub(crate) fn show_members(
        &self,
        pool: &str,
        value: &mut Value,
        query: &Query,
        up: impl Fn(&str) -> bool + Copy,
    ) {
        let path = link(&format!("ltm/pool/{}/members", pool.replace('/', "~")));
        value["membersReference"] = json!({"link": path, "isSubcollection": true});
        if !query.expand {
            return;
        }
        let (prefix, whole) =
            (format!("{pool} "), Query { other_form: query.other_form, ..Query::default() });
        let Some(kind) = Kind::find("ltm/pool/members") else { return };
        let mut items: Vec<Value> = self
            .of("ltm/pool/members")
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(key, _)| self.shown(kind, key, &whole, up))
            .collect();
        if query.other_form {
            items.reverse();
            for item in &mut items {
                for field in ["name", "fullPath"] {
                    let path = item[field].as_str().and_then(|path| path.strip_suffix('0'));
                    item[field] = path.map_or(Value::Null, |path| format!("{path}any").into());
                }
            }
        }
        if !items.is_empty() {
            value["membersReference"]["items"] = items.into();
        }
    }

    /// What is read back of a member's state is not what was written.
    pub(crate) fn show_state(&self, key: &str, value: &mut Value, up: impl Fn(&str) -> bool) {
        let pool = key.split_once(' ').map_or("", |(pool, _)| pool);
        let monitored = self
            .objects
            .get(&("ltm/pool", pool.to_owned()))
            .is_some_and(|object| object.fields.contains_key("monitor"));
        let address = self.member_address(key).unwrap_or_default();
        if value["state"] != "user-down" {
            let state = match (monitored, up(&address)) {
                (false, _) => "unchecked",
                (true, true) => "up",
                (true, false) => "down",
            };
            value["state"] = state.into();
        }
        if monitored && value["session"] == "user-enabled" {
            value["session"] = "monitor-enabled".into();
        }
        value["address"] = address.into();
    }
}
