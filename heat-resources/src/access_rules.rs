//! Whether an application credential's access rules allow what a cluster calls.

use openstack_client::tokens::AccessRule;

/// The calls that a cluster's programs make: what a tenant is told to allow.
pub const REQUIRED: &str = include_str!("../../templates/access-rules.json");

/// The calls of [`REQUIRED`].
pub fn required() -> Result<Vec<AccessRule>, serde_json::Error> {
    serde_json::from_str(REQUIRED)
}

/// The first call that none of the rules allows.
#[must_use]
pub fn first_missing<'a>(rules: &[AccessRule], required: &'a [AccessRule]) -> Option<&'a AccessRule> {
    required.iter().find(|wanted| !rules.iter().any(|rule| allows(rule, wanted)))
}

/// Whether `rule` allows all that `wanted` does.
fn allows(rule: &AccessRule, wanted: &AccessRule) -> bool {
    rule.service == wanted.service
        && rule.method.eq_ignore_ascii_case(&wanted.method)
        && (rule.path == wanted.path || matches(&rule.path, &example(&wanted.path)))
}

/// A path that a pattern takes, as deep as it may be.
fn example(pattern: &str) -> String {
    pattern.replace("**", "a/b").replace('*', "c").replace(['{', '}'], "")
}

/// Keystone's patterns: `**` is anything, `*` and `{name}` are one segment or a part of it, not empty.
fn matches(pattern: &str, path: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return tails(path).any(|tail| matches(rest, tail));
    }
    let rest = match (pattern.strip_prefix('*'), pattern.strip_prefix('{')) {
        (Some(rest), _) => Some(rest),
        (_, Some(name)) => name.split_once('}').map(|(_, rest)| rest),
        _ => None,
    };
    if let Some(rest) = rest {
        let segment = path.find('/').unwrap_or(path.len());
        return tails(path)
            .skip(1)
            .take_while(|tail| path.len() - tail.len() <= segment)
            .any(|tail| matches(rest, tail));
    }
    match (pattern.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => matches(&pattern[a.len_utf8()..], &path[b.len_utf8()..]),
        _ => false,
    }
}

/// The path and all its ends, down to the empty one.
fn tails(path: &str) -> impl Iterator<Item = &str> {
    path.char_indices().map(|(at, _)| &path[at..]).chain(std::iter::once(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(service: &str, method: &str, path: &str) -> AccessRule {
        AccessRule { service: service.into(), method: method.into(), path: path.into() }
    }

    #[test]
    fn patterns_match_as_keystones_do() {
        for (pattern, path, expected) in [
            ("/v2.1/servers", "/v2.1/servers", true),
            ("/v2.1/servers", "/v2.1/servers/x", false),
            ("/v2.1/servers/*", "/v2.1/servers/x", true),
            ("/v2.1/servers/*", "/v2.1/servers/x/y", false),
            ("/v2.1/servers/{id}", "/v2.1/servers/x", true),
            ("/v2.1/servers/{id}/y", "/v2.1/servers/x/y", true),
            ("/**v2.1/servers", "/compute/v2.1/servers", true),
            ("/**v2.1/servers", "/v2.1/servers", true),
            ("/v1/clusters/**", "/v1/clusters/a/b/c", true),
            ("**", "/anything", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn our_own_list_is_enough() {
        let required = required().unwrap();
        assert!(!required.is_empty());
        assert_eq!(first_missing(&required, &required), None);
    }

    #[test]
    fn each_call_of_our_list_is_missed() {
        let required = required().unwrap();
        for gone in &required {
            let rest: Vec<_> = required.iter().filter(|rule| *rule != gone).cloned().collect();
            assert_eq!(first_missing(&rest, &required), Some(gone));
        }
    }

    #[test]
    fn a_wider_rule_is_enough() {
        let wanted = [rule("compute", "GET", "/**v2.1/servers/*")];
        assert_eq!(first_missing(&[rule("compute", "GET", "/**")], &wanted), None);
        assert!(first_missing(&[rule("compute", "POST", "/**")], &wanted).is_some());
        assert!(first_missing(&[rule("network", "GET", "/**")], &wanted).is_some());
    }
}
