//! The ValidatingAdmissionPolicy that refuses, when a Service is applied, what the controller could only refuse later.
//!
//! It is for clusters whose owner wants it: `kubectl apply -f templates/optional/services-policy.yaml`. A Service that has a
//! violation already may be changed in every other way, and one that is being deleted in any.

use super::{
    annotations::{
        ADDRESS, DRAIN, HEALTH_CHECK, HEALTH_MONITOR, IMPOSSIBLE, INTERNAL, KEEP_FLOATING_IP, NODE_SELECTOR,
        NOT_BOTH, OPENSTACK, RANGE, RETAIN, RETAIN_WORDS, SHARE, SHARE_WITH,
    },
    view::CLASS,
};

/// An annotation that takes one of a few words.
struct Words {
    name: &'static str,
    words: &'static [&'static str],
    /// Whether they may be written in capitals.
    any_case: bool,
    expected: &'static str,
}

const BOOLEAN: &[&str] = &["true", "false"];

/// All of them.
const WORDS: &[Words] = &[
    Words { name: RETAIN, words: &["true", "false", "project"], any_case: true, expected: RETAIN_WORDS },
    Words { name: KEEP_FLOATING_IP, words: BOOLEAN, any_case: true, expected: "true or false" },
    Words { name: HEALTH_MONITOR, words: BOOLEAN, any_case: true, expected: "true or false" },
    Words { name: INTERNAL, words: BOOLEAN, any_case: true, expected: "true or false" },
    Words {
        name: HEALTH_CHECK,
        words: &["node", "vip", "none"],
        any_case: false,
        expected: "node, vip or none",
    },
];

impl Words {
    fn rule(&self) -> String {
        let words: Vec<String> = [""].iter().chain(self.words).map(|word| format!("'{word}'")).collect();
        let value = if self.any_case { "V.lowerAscii()" } else { "V" };
        format!("{value} in [{}]", words.join(", "))
    }
}

/// What must hold of an annotation's value `V`, in the Common Expression Language, and what is expected in words. An annotation
/// that is not there has the value `''`.
fn rules() -> Vec<(String, String, String)> {
    let mut rules: Vec<(String, String, String)> = IMPOSSIBLE
        .iter()
        .map(|(name, expected)| {
            (
                format!("{OPENSTACK}{name}"),
                "V.lowerAscii() in ['', 'false']".to_owned(),
                (*expected).to_owned(),
            )
        })
        .collect();
    let mut rule = |name: &str, holds: &str, expected: &str| {
        rules.push((name.to_owned(), holds.to_owned(), expected.to_owned()));
    };
    for words in WORDS {
        rule(words.name, &words.rule(), words.expected);
    }
    rule(
        DRAIN,
        "V == '' || (V.matches('^[0-9]{1,4}$') && int(V) <= 3600)",
        "a number of seconds from 0 to 3600",
    );
    rule(SHARE, "size(V) <= 63", "1 to 63 printable characters");
    rule(ADDRESS, "V == '' || V.split(',').all(a, isIP(a.trim()))", "IP addresses, separated by commas");
    rule(
        RANGE,
        "V == '' || V.split(',').all(r, isCIDR(r.trim()))",
        "ranges such as 192.0.2.0/24, separated by commas",
    );
    rule(
        NODE_SELECTOR,
        "!V.split(',').exists(p, p.trim().startsWith('='))",
        "key=value or key, separated by commas",
    );
    rules
}

/// The value of an annotation of `object` or `oldObject`.
fn value(of: &str, name: &str) -> String {
    format!("{of}.metadata.?annotations[?'{name}'].orValue('').trim()")
}

/// Holds where the object has it right, or the old one was as wrong.
fn newly(right: &str, name: &str) -> String {
    let of = |object: &str| right.replace('V', &value(object, name));
    format!("({}) || (variables.was && !({}))", of("object"), of("oldObject"))
}

/// Policy and binding, as YAML.
#[must_use]
pub fn manifest() -> String {
    let mut text = format!(
        "# Written from what ake-cloud-controller-manager reads. Refuses, at apply time, Services that could never get a load\n\
         # balancer; what was there before it may stay. For clusters whose owner wants it: kubectl apply -f.\n\
         apiVersion: admissionregistration.k8s.io/v1\n\
         kind: ValidatingAdmissionPolicy\n\
         metadata: {{name: services.ake.dev, labels: {{app.kubernetes.io/managed-by: ake}}}}\n\
         spec:\n\
        \x20 failurePolicy: Ignore\n\
        \x20 matchConstraints:\n\
        \x20   resourceRules:\n\
        \x20   - {{apiGroups: [\"\"], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [services]}}\n\
        \x20 matchConditions:\n\
        \x20 - name: ours\n\
        \x20   expression: >-\n\
        \x20     object.spec.type == 'LoadBalancer' &&\n\
        \x20     (!has(object.spec.loadBalancerClass) || object.spec.loadBalancerClass == '{CLASS}')\n\
        \x20 - name: stays\n\
        \x20   expression: '!has(object.metadata.deletionTimestamp)'\n\
        \x20 variables:\n\
        \x20 - name: was\n\
        \x20   expression: oldObject != null && oldObject.spec.type == 'LoadBalancer'\n\
        \x20 validations:\n"
    );
    let mut validation = |expression: &str, message: &str| {
        text += &format!(
            "  - expression: >-\n      {expression}\n    message: >-\n      {message}\n    reason: Invalid\n"
        );
    };
    for (name, right, expected) in rules() {
        validation(&newly(&right, &name), &format!("metadata.annotations[{name}]: expected {expected}"));
    }
    let alone =
        |object: &str| format!("{} == '' && {} != ''", value(object, SHARE), value(object, SHARE_WITH));
    validation(
        &format!("!({}) || (variables.was && {})", alone("object"), alone("oldObject")),
        &format!("metadata.annotations[{SHARE}]: expected a key, since {SHARE_WITH} is given"),
    );
    let both = |object: &str| {
        let [share, retain, kept] = [SHARE, RETAIN, KEEP_FLOATING_IP].map(|name| value(object, name));
        format!(
            "{share} != '' && ({retain}.lowerAscii() in ['true', 'project'] || \
             ({retain} == '' && {kept}.lowerAscii() == 'true'))"
        )
    };
    validation(
        &format!("!({}) || (variables.was && {})", both("object"), both("oldObject")),
        &format!(
            "metadata.annotations[{RETAIN}] or metadata.annotations[{KEEP_FLOATING_IP}]: expected {NOT_BOTH}"
        ),
    );
    text + "---\napiVersion: admissionregistration.k8s.io/v1\n\
            kind: ValidatingAdmissionPolicyBinding\n\
            metadata: {name: services.ake.dev, labels: {app.kubernetes.io/managed-by: ake}}\n\
            spec: {policyName: services.ake.dev, validationActions: [Deny]}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{annotations::read, view::ServiceView};

    #[test]
    fn a_word_is_in_its_list_if_it_is_taken_when_it_is_read() {
        let known = WORDS.iter().flat_map(|words| words.words).copied();
        let others = ["yes", "on", "1", "cluster", "http"];
        let all: Vec<String> = known
            .chain(others)
            .flat_map(|word| [word.to_owned(), word.to_uppercase(), format!(" {word} ")])
            .collect();
        for words in WORDS {
            for value in &all {
                let annotations = [(words.name.to_owned(), value.clone())].into();
                let (_, findings) = read(&ServiceView { annotations, ..ServiceView::default() });
                let trimmed = value.trim();
                let listed = words.words.contains(&trimmed)
                    || words.any_case && words.words.contains(&trimmed.to_ascii_lowercase().as_str());
                let refused = findings.iter().any(|finding| finding.refused);
                assert_eq!(listed, !refused, "{}: {value:?}: {findings:?}", words.name);
            }
        }
    }

    #[test]
    fn the_policy_is_what_is_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../templates/optional/services-policy.yaml");
        if std::env::var_os("AKE_WRITE_REFERENCE").is_some() {
            std::fs::write(path, manifest()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == manifest(),
            "templates/optional/services-policy.yaml is old: AKE_WRITE_REFERENCE=1 cargo test -p cloud-provider policy"
        );
    }
}
