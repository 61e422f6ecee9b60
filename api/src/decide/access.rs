//! Who may do what: roles, and the access rules of application credentials.

use ake_api_client::ClusterId;

use crate::refusal::{Kind, Refusal};

/// The catalog type of this service, which access rules name.
pub const SERVICE_TYPE: &str = "ake";

/// One access rule of an application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Catalog type of the service that it opens.
    pub service: String,
    /// HTTP method.
    pub method: String,
    /// Path, in Keystone's syntax of wildcards.
    pub path: String,
}

/// Who is asking, as Keystone says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user's id.
    pub user: String,
    /// The project that the token is scoped to.
    pub project: String,
    /// Names of the roles there.
    pub roles: Vec<String>,
    /// The application credential that the token was made from.
    pub credential: Option<String>,
    /// That credential's access rules; none for an unlimited one.
    pub rules: Option<Vec<Rule>>,
    /// The trust that the token was made from.
    pub trust: Option<String>,
}

impl Caller {
    /// Whether the caller may make this call at all.
    pub fn admit(&self, method: &str, path: &str) -> Result<(), Refusal> {
        if let Some(rules) = &self.rules
            && !rules.iter().any(|rule| rule.admits(method, path))
        {
            return Err(Refusal::new(
                Kind::Forbidden,
                format!(
                    "no access rule for {method} {path}: the application credential needs one of service \
                     {SERVICE_TYPE} that matches it"
                ),
            ));
        }
        let needed: &[&str] = if is_read(method) {
            &["reader", "member", "manager", "admin"]
        } else {
            &["member", "manager", "admin"]
        };
        if self.roles.iter().any(|role| needed.iter().any(|n| role.eq_ignore_ascii_case(n))) {
            return Ok(());
        }
        Err(Refusal::new(
            Kind::Forbidden,
            format!(
                "{method} {path} needs one of the roles {}; the token has {}",
                needed.join(", "),
                listed(&self.roles)
            ),
        ))
    }
}

impl Rule {
    fn admits(&self, method: &str, path: &str) -> bool {
        self.service == SERVICE_TYPE && self.method.eq_ignore_ascii_case(method) && matches(&self.path, path)
    }
}

/// Whether a method only reads.
#[must_use]
pub fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

/// Whether an application credential may touch a cluster: the one it was bound to, or any while it is free.
pub fn credential_may_touch(bound: Option<ClusterId>, cluster: ClusterId) -> Result<(), Refusal> {
    match bound {
        Some(other) if other != cluster => Err(Refusal::new(
            Kind::Forbidden,
            format!(
                "cluster {cluster}: this application credential belongs to another cluster of the project; each cluster \
                 needs one of its own"
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether a path matches a pattern: `*` and `{tag}` stand for one segment's characters, `**` for any, as
/// keystonemiddleware reads them.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    matches_tokens(&tokens(pattern), path.as_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Segment,
    Anything,
    Byte(u8),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let bytes = pattern.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' => {
                if let Some(end) = bytes.iter().skip(at).position(|b| *b == b'}') {
                    out.push(Token::Segment);
                    at += end;
                }
            }
            b'*' if bytes.get(at + 1) == Some(&b'*') => {
                out.push(Token::Anything);
                at += 1;
            }
            b'*' => out.push(Token::Segment),
            b'}' => {}
            other => out.push(Token::Byte(other)),
        }
        at += 1;
    }
    out
}

/// Classic matching over states: which prefixes of the pattern can end at this byte.
fn matches_tokens(pattern: &[Token], path: &[u8]) -> bool {
    // `entered[i]` says that the first `i` tokens are matched; a Segment needs one byte at least.
    let mut here = vec![false; pattern.len() + 1];
    here[0] = true;
    skip_empty(pattern, &mut here);
    for &byte in path {
        let mut next = vec![false; pattern.len() + 1];
        for (i, token) in pattern.iter().enumerate() {
            let (from, inside) = (here[i], here[i + 1]);
            match token {
                Token::Byte(b) => next[i + 1] |= from && *b == byte,
                Token::Segment => next[i + 1] |= (from || inside) && byte != b'/',
                Token::Anything => next[i + 1] |= from || inside,
            }
        }
        // A byte-token's end state must not be taken for "inside"; that is only read for the two wildcards.
        here = next;
        skip_empty(pattern, &mut here);
    }
    here[pattern.len()]
}

fn skip_empty(pattern: &[Token], states: &mut [bool]) {
    for (i, token) in pattern.iter().enumerate() {
        if *token == Token::Anything && states[i] {
            states[i + 1] = true;
        }
    }
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(roles: &[&str], rules: Option<&[(&str, &str, &str)]>) -> Caller {
        Caller {
            user: "u".into(),
            project: "p".into(),
            roles: roles.iter().map(ToString::to_string).collect(),
            credential: rules.map(|_| "c".into()),
            rules: rules.map(|rules| {
                rules
                    .iter()
                    .map(|(s, m, p)| Rule { service: (*s).into(), method: (*m).into(), path: (*p).into() })
                    .collect()
            }),
            trust: None,
        }
    }

    #[test]
    fn paths_match_as_keystone_matches_them() {
        for (pattern, path, expected) in [
            ("/v1/clusters", "/v1/clusters", true),
            ("/v1/clusters", "/v1/clusters/", false),
            ("/v1/clusters/*", "/v1/clusters/a", true),
            ("/v1/clusters/*", "/v1/clusters/", false),
            ("/v1/clusters/*", "/v1/clusters/a/b", false),
            ("/v1/clusters/{cluster}", "/v1/clusters/a-b", true),
            ("/v1/clusters/{cluster}/batch", "/v1/clusters/a/batch", true),
            ("/v1/clusters/{cluster}/batch", "/v1/clusters/a/b/batch", false),
            ("/v1/clusters/**", "/v1/clusters/a/pools/b", true),
            ("/v1/clusters/**", "/v1/clusters/", true),
            ("/v1/clusters/**", "/v1/clusters", false),
            ("**", "/v1/clusters", true),
            ("/**v2.1/servers", "/compute/v2.1/servers", true),
            ("/**v2.1/servers", "/v2.1/servers", true),
            ("/v1/a*c", "/v1/abc", true),
            ("/v1/a*c", "/v1/ac", false),
            ("/v1/a*", "/v1/ab/c", false),
            ("", "", true),
            ("", "/", false),
            ("/v1.clusters", "/v1xclusters", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn members_write_readers_read_others_do_neither() {
        for (roles, method, expected) in [
            (&["member"][..], "PUT", true),
            (&["Admin"], "DELETE", true),
            (&["reader"], "GET", true),
            (&["reader"], "PUT", false),
            (&["heat_stack_owner"], "GET", false),
            (&[], "GET", false),
        ] {
            assert_eq!(
                caller(roles, None).admit(method, "/v1/clusters").is_ok(),
                expected,
                "{roles:?} {method}"
            );
        }
    }

    #[test]
    fn access_rules_limit_and_the_refusal_names_the_call() {
        let limited =
            caller(&["member"], Some(&[("ake", "GET", "/v1/clusters/*"), ("compute", "PUT", "/**")]));
        assert!(limited.admit("GET", "/v1/clusters/a").is_ok());
        let refusal = limited.admit("PUT", "/v1/clusters/a").unwrap_err();
        assert!(refusal.message.contains("no access rule for PUT /v1/clusters/a"), "{refusal}");
        assert!(caller(&["member"], Some(&[])).admit("GET", "/v1/clusters").is_err());
    }

    #[test]
    fn a_credential_stays_with_its_cluster() {
        let (a, b) = (ClusterId::from_u128(1), ClusterId::from_u128(2));
        assert!(credential_may_touch(None, a).is_ok());
        assert!(credential_may_touch(Some(a), a).is_ok());
        assert_eq!(credential_may_touch(Some(a), b).unwrap_err().kind, Kind::Forbidden);
    }
}
