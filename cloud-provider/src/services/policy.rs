//! The ValidatingAdmissionPolicy that refuses, when a Service is applied, what the controller could only refuse later.
//!
//! It is for clusters whose owner wants it: `kubectl apply -f templates/optional/services-policy.yaml`. A Service that has a
//! violation already may be changed in every other way, and one that is being deleted in any.

use super::{
    annotations::{
        ADDRESS, DRAIN, HEALTH_CHECK, HEALTH_MONITOR, IMPOSSIBLE, INTERNAL, KEEP_FLOATING_IP, NODE_SELECTOR,
        OPENSTACK, RANGE, RETAIN, SHARE, SHARE_WITH,
    },
    view::CLASS,
};

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
    for name in [RETAIN, KEEP_FLOATING_IP, HEALTH_MONITOR, INTERNAL] {
        rule(name, "V.lowerAscii() in ['', 'true', 'false']", "true or false");
    }
    rule(
        DRAIN,
        "V == '' || (V.matches('^[0-9]{1,4}$') && int(V) <= 3600)",
        "a number of seconds from 0 to 3600",
    );
    rule(HEALTH_CHECK, "V in ['', 'node', 'vip', 'none']", "node, vip or none");
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
    text + "---\napiVersion: admissionregistration.k8s.io/v1\n\
            kind: ValidatingAdmissionPolicyBinding\n\
            metadata: {name: services.ake.dev, labels: {app.kubernetes.io/managed-by: ake}}\n\
            spec: {policyName: services.ake.dev, validationActions: [Deny]}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

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
