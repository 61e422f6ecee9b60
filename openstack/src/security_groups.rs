//! Neutron: security groups and their rules.

use http::Method;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Error, Service, Session, page};

/// A security group.
#[derive(Debug, Clone, Deserialize)]
pub struct SecurityGroup {
    /// Its UUID.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The project that owns it.
    #[serde(default)]
    pub project_id: String,
    /// Its rules.
    #[serde(default, rename = "security_group_rules")]
    pub rules: Vec<Rule>,
}

/// A rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// Its UUID.
    pub id: String,
    /// The group that it is of.
    pub security_group_id: String,
    /// What it admits.
    #[serde(flatten)]
    pub spec: RuleSpec,
}

/// What a rule admits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleSpec {
    /// `ingress` or `egress`.
    pub direction: String,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// `tcp`, `udp`, `sctp`, `icmp`, a number; all, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// First port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range_min: Option<u16>,
    /// Last port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range_max: Option<u16>,
    /// Where from; anywhere, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip_prefix: Option<IpNetwork>,
    /// Members of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_group_id: Option<String>,
    /// What its owner wrote to it.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub description: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// One group with its rules.
pub async fn get(session: &Session, id: &str) -> Result<SecurityGroup, Error> {
    session
        .call(Service::Network, Method::GET, "get security group", format!("/security-groups/{id}"))
        .about(id)
        .fetch("security_group")
        .await
}

/// All groups that we see, or those with that name.
pub async fn list(session: &Session, name: Option<&str>) -> Result<Vec<SecurityGroup>, Error> {
    let mut call = session.call(Service::Network, Method::GET, "list security groups", "/security-groups");
    if let Some(name) = name {
        call = call.query("name", name);
    }
    page::collect(call, "security_groups").await
}

/// A group's rules.
pub async fn list_rules(session: &Session, group: &str) -> Result<Vec<Rule>, Error> {
    let call = session
        .call(Service::Network, Method::GET, "list security group rules", "/security-group-rules")
        .about(group)
        .query("security_group_id", group);
    page::collect(call, "security_group_rules").await
}

/// Adds a rule. `None` says that the group has one that admits the same.
pub async fn create_rule(session: &Session, group: &str, spec: &RuleSpec) -> Result<Option<Rule>, Error> {
    let mut body = json!({ "security_group_rule": spec });
    body["security_group_rule"]["security_group_id"] = json!(group);
    let answer = session
        .call(Service::Network, Method::POST, "create security group rule", "/security-group-rules")
        .about(format!("in {group}"))
        .body(body)
        .fetch("security_group_rule")
        .await;
    match answer {
        Ok(rule) => Ok(Some(rule)),
        Err(error) if error.fault() == Some("SecurityGroupRuleExists") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds rules together or not at all, in one call. `None` says that the group has one that admits the same as
/// one of them.
pub async fn create_rules(
    session: &Session,
    group: &str,
    specs: &[RuleSpec],
) -> Result<Option<Vec<Rule>>, Error> {
    let mut rules = json!(specs);
    for rule in rules.as_array_mut().into_iter().flatten() {
        rule["security_group_id"] = json!(group);
    }
    let answer = session
        .call(Service::Network, Method::POST, "create security group rules", "/security-group-rules")
        .about(format!("in {group}"))
        .body(json!({ "security_group_rules": rules }))
        .fetch("security_group_rules")
        .await;
    match answer {
        Ok(rules) => Ok(Some(rules)),
        Err(error) if error.fault() == Some("SecurityGroupRuleExists") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes a rule; one that is gone already is success.
pub async fn delete_rule(session: &Session, rule: &str) -> Result<(), Error> {
    session
        .call(
            Service::Network,
            Method::DELETE,
            "delete security group rule",
            format!("/security-group-rules/{rule}"),
        )
        .about(rule)
        .send_unless_missing()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_as_neutron_writes_it() {
        let rule: Rule = serde_json::from_value(json!({
            "id": "r", "security_group_id": "g", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
            "port_range_min": 80, "port_range_max": 80, "remote_ip_prefix": "0.0.0.0/0", "remote_group_id": null,
            "description": null, "tenant_id": "t", "revision_number": 0
        }))
        .unwrap();
        assert_eq!(rule.spec.port_range_min, Some(80));
        assert_eq!(
            serde_json::to_value(&rule.spec).unwrap(),
            json!({"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 80,
                   "port_range_max": 80, "remote_ip_prefix": "0.0.0.0/0"})
        );
    }
}
