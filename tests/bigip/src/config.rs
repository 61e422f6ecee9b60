//! The configuration: objects by kind and full path, made, changed and deleted as mcpd does it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    answer::{Query, Refusal, link},
    forms::{self, Fields, full_path, self_link, split_path},
    kinds::{BUILT_IN, Kind},
    refer,
};

/// An object as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) fields: Fields,
    pub(crate) generation: u64,
}

/// Everything that is configured; cloned for a transaction, swapped in when all of it went well.
///
/// A pool's member has its pool's path, a blank, and its own as its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) objects: BTreeMap<(&'static str, String), Object>,
    pub(crate) generation: u64,
}

impl Config {
    pub(crate) fn new() -> Self {
        let mut config = Self { objects: BTreeMap::new(), generation: 1 };
        let common =
            Object { fields: Kind::find("auth/partition").map(fields_of).unwrap_or_default(), generation: 1 };
        config.objects.insert(("auth/partition", "Common".to_owned()), common);
        for (path, name) in BUILT_IN {
            if let Some(kind) = Kind::find(path) {
                let object = Object { fields: fields_of(kind), generation: 1 };
                config.objects.insert((kind.path, format!("/Common/{name}")), object);
            }
        }
        config
    }

    pub(crate) fn get(&self, kind: &Kind, path: &str) -> Option<&Object> {
        self.objects.get(&(kind.path, path.to_owned()))
    }

    pub(crate) fn has(&self, collection: &'static str, path: &str) -> bool {
        self.objects.contains_key(&(collection, path.to_owned()))
    }

    /// Objects of a kind, by path.
    pub(crate) fn of<'a>(&'a self, collection: &'static str) -> impl Iterator<Item = (&'a str, &'a Fields)> {
        self.objects
            .range((collection, String::new())..)
            .take_while(move |((kind, _), _)| *kind == collection)
            .map(|((_, path), object)| (path.as_str(), &object.fields))
    }

    /// POST.
    pub(crate) fn create(
        &mut self,
        kind: &'static Kind,
        pool: Option<&str>,
        body: &Fields,
    ) -> Result<String, Refusal> {
        let named = body.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let Some(named) = named else {
            return Err(Refusal::rest("one or more properties must be specified"));
        };
        let home = pool.map_or("Common", |pool| split_path(pool).0);
        let partition = body.get("partition").and_then(Value::as_str).unwrap_or(home);
        let path = if kind.path == "auth/partition" { named.to_owned() } else { full_path(partition, named) };
        let (partition, name) = if kind.path == "auth/partition" { ("", named) } else { split_path(&path) };
        check_name(name)?;
        if kind.path != "auth/partition" && !self.has("auth/partition", partition) {
            return Err(Refusal::not_found("folder", &format!("/{partition}")));
        }
        let key = pool.map_or_else(|| path.clone(), |pool| format!("{pool} {path}"));
        if self.get(kind, &key).is_some() {
            let message = format!(
                "01020066:3: The requested {} ({path}) already exists in partition {partition}.",
                kind.label
            );
            return Err(Refusal::mcpd(409, message));
        }
        let mut fields = self.inherited(kind, body)?;
        forms::take(kind, &mut fields, body)?;
        let members = fields.remove("members");
        forms::settle(kind, partition, name, &mut fields)?;
        self.put(kind, &key, fields)?;
        if let Some(members) = members {
            self.replace_members(&key, &members)?;
        }
        Ok(key)
    }

    /// What a profile or monitor has from its parent.
    fn inherited(&self, kind: &'static Kind, body: &Fields) -> Result<Fields, Refusal> {
        let Some(parent) = body.get("defaultsFrom").and_then(Value::as_str) else {
            return Ok(fields_of(kind));
        };
        let parent = full_path("Common", parent);
        let object = self.get(kind, &parent).ok_or_else(|| Refusal::not_found(kind.label, &parent))?;
        let mut fields = object.fields.clone();
        fields.remove("description");
        Ok(fields)
    }

    /// PATCH, or PUT when what is not named goes back to its default.
    pub(crate) fn modify(
        &mut self,
        kind: &'static Kind,
        path: &str,
        body: &Fields,
        whole: bool,
    ) -> Result<(), Refusal> {
        let object = self.get(kind, path).ok_or_else(|| Refusal::not_found(kind.label, shown(path)))?;
        let mut fields = object.fields.clone();
        for fixed in ["address", "defaultsFrom", "type"] {
            let (had, wanted) = (fields.get(fixed), body.get(fixed));
            let fixed_here = fixed != "defaultsFrom" && kind.optional.contains(&fixed);
            if fixed_here && wanted.is_some() && had != wanted {
                return Err(Refusal::rest(format!(
                    "\"{fixed}\" may not be specified in the context of the \"modify\" command."
                )));
            }
        }
        if whole {
            let kept = ["address", "defaultsFrom", "type", "destination", "profiles"];
            let mut fresh = fields_of(kind);
            fresh.extend(fields.into_iter().filter(|(name, _)| kept.contains(&name.as_str())));
            fields = fresh;
        }
        if body.get("disabled") == Some(&Value::Bool(true)) {
            fields.remove("enabled");
        }
        if body.get("enabled") == Some(&Value::Bool(true)) {
            fields.remove("disabled");
        }
        forms::take(kind, &mut fields, body)?;
        let members = fields.remove("members");
        let (partition, name) = split_path(shown(path));
        forms::settle(kind, partition, name, &mut fields)?;
        self.put(kind, path, fields)?;
        match members {
            Some(members) => self.replace_members(path, &members),
            None => Ok(()),
        }
    }

    /// Stores an object once everything that it names is there.
    pub(crate) fn put(&mut self, kind: &'static Kind, key: &str, fields: Fields) -> Result<(), Refusal> {
        refer::check(self, kind, key, &fields)?;
        refer::accompany(self, kind, key, &fields)?;
        self.generation += 1;
        let object = Object { fields, generation: self.generation };
        self.objects.insert((kind.path, key.to_owned()), object);
        Ok(())
    }

    /// DELETE.
    pub(crate) fn delete(&mut self, kind: &'static Kind, path: &str) -> Result<(), Refusal> {
        if self.get(kind, path).is_none() {
            return Err(Refusal::not_found(kind.label, shown(path)));
        }
        refer::check_unused(self, kind, path)?;
        let gone = self.objects.remove(&(kind.path, path.to_owned()));
        if kind.path == "ltm/pool" {
            let prefix = format!("{path} ");
            self.objects.retain(|(kind, key), _| *kind != "ltm/pool/members" || !key.starts_with(&prefix));
        }
        if let (Some(gone), "ltm/virtual") = (&gone, kind.path) {
            refer::forget_address(self, &gone.fields);
        }
        self.generation += 1;
        Ok(())
    }

    /// One object as it is shown.
    pub(crate) fn shown(
        &self,
        kind: &'static Kind,
        path: &str,
        query: &Query,
        up: impl Fn(&str) -> bool + Copy,
    ) -> Option<Value> {
        let object = self.get(kind, path)?;
        let own = shown(path);
        let (partition, name) = if kind.path == "auth/partition" { ("", own) } else { split_path(own) };
        let mut value = json!({
            "kind": kind.state(), "name": name, "fullPath": own, "generation": object.generation,
            "selfLink": self_link(kind, path),
        });
        if !partition.is_empty() {
            value["partition"] = partition.into();
        }
        for (name, field) in &object.fields {
            value[name] = field.clone();
        }
        if query.other_form {
            forms::otherwise(&mut value);
        }
        match kind.path {
            "ltm/pool" => {
                self.show_members(path, &mut value, query, up);
            }
            "ltm/pool/members" => self.show_state(path, &mut value, up),
            "ltm/virtual" => show_virtual(path, &mut value, query),
            "ltm/node" if value["session"] == "user-enabled" && value["monitor"] != "default" => {
                value["session"] = "monitor-enabled".into();
            }
            _ => {}
        }
        Some(query.selected(value))
    }

    /// A collection as it is shown.
    pub(crate) fn list(
        &self,
        kind: &'static Kind,
        pool: Option<&str>,
        query: &Query,
        up: impl Fn(&str) -> bool + Copy,
    ) -> Value {
        let whole = Query { select: None, ..query.clone() };
        let prefix = pool.map(|pool| format!("{pool} "));
        let mut items: Vec<Value> = self
            .of(kind.path)
            .filter(|(path, _)| prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix)))
            .filter_map(|(path, _)| self.shown(kind, path, &whole, up))
            .collect();
        if query.other_form {
            items.reverse();
        }
        let path = match pool {
            Some(pool) => format!("ltm/pool/{}/members", pool.replace('/', "~")),
            None => kind.path.to_owned(),
        };
        let mut list = query.list(&kind.collection(), &path, items);
        if let Some(Value::Array(items)) = list.get_mut("items") {
            for item in items {
                *item = query.selected(item.take());
            }
        }
        list
    }
}

/// What errors and `fullPath` say: a member without its pool.
pub(crate) fn shown(path: &str) -> &str {
    path.split_once(' ').map_or(path, |(_, member)| member)
}

fn fields_of(kind: &Kind) -> Fields {
    match kind.defaults() {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-: %".contains(&byte);
    if name.len() <= 255 && name.bytes().all(good) {
        return Ok(());
    }
    Err(Refusal::mcpd(
        400,
        format!("01070712:3: Caught configuration exception (0), Invalid object name {name}."),
    ))
}

fn show_virtual(path: &str, value: &mut Value, query: &Query) {
    let own = format!("ltm/virtual/{}", path.replace('/', "~"));
    let profiles = value.as_object_mut().and_then(|fields| fields.remove("profiles"));
    value["policiesReference"] = json!({"link": link(&format!("{own}/policies")), "isSubcollection": true});
    value["profilesReference"] = json!({"link": link(&format!("{own}/profiles")), "isSubcollection": true});
    if query.expand
        && let Some(Value::Array(mut items)) = profiles
    {
        for item in &mut items {
            item["kind"] = "tm:ltm:virtual:profiles:profilesstate".into();
        }
        value["profilesReference"]["items"] = items.into();
    }
    if let Some(pool) = value["pool"].as_str() {
        let reference = json!({"link": link(&format!("ltm/pool/{}", pool.replace('/', "~")))});
        value["poolReference"] = reference;
    }
}
