//! The cloud's own words out of any of OpenStack's shapes of a fault.

use serde_json::Value;

/// Longest text that is passed on; a proxy's HTML page says no more after that.
const LONGEST: usize = 2000;

/// What a fault's body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The service's name for it.
    pub(crate) kind: Option<String>,
    /// What it says to people.
    pub(crate) message: String,
}

/// Reads `body`: Neutron's `{"NeutronError": {"type", "message", "detail"}}`, Nova's and Cinder's
/// `{"itemNotFound": {"code", "message"}}`, Keystone's `{"error": {"title", "message"}}`, Heat's
/// `{"explanation", "title", "error": {"type", "message"}}`, the API working group's
/// `{"errors": [{"title", "detail"}]}`, ake-api's `{"code", "message"}`, or plain text.
pub(crate) fn read(body: &str) -> Fault {
    let fault = serde_json::from_str::<Value>(body).ok().and_then(|value| from_json(&value));
    let mut fault = fault.unwrap_or_else(|| Fault { kind: None, message: plain(body) });
    if fault.message.is_empty() {
        fault.message = "no reason given".to_owned();
    }
    if let Some((end, _)) = fault.message.char_indices().nth(LONGEST) {
        fault.message.truncate(end);
        fault.message.push('…');
    }
    fault
}

fn from_json(value: &Value) -> Option<Fault> {
    let object = value.as_object()?;
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::trim).map(ToOwned::to_owned);
    if let Some(errors) = object.get("errors").and_then(Value::as_array) {
        let messages: Vec<_> =
            errors.iter().filter_map(|e| text(e, "detail").or_else(|| text(e, "title"))).collect();
        let kind = errors.first().and_then(|e| text(e, "code").or_else(|| text(e, "title")));
        return Some(Fault { kind, message: messages.join("; ") });
    }
    if let Some(inner) = object.get("error").filter(|inner| inner.is_object()) {
        let message = text(inner, "message").or_else(|| text(value, "explanation")).unwrap_or_default();
        return Some(Fault { kind: text(inner, "type").or_else(|| text(inner, "title")), message });
    }
    if let Some(message) = text(value, "message").or_else(|| text(value, "faultstring")) {
        return Some(Fault { kind: text(value, "code"), message });
    }
    let (name, inner) = object.iter().find(|(_, inner)| inner.is_object() || inner.is_string())?;
    match inner.as_str() {
        Some(message) => Some(Fault { kind: None, message: message.trim().to_owned() }),
        None => {
            let message = text(inner, "message").or_else(|| text(inner, "detail"))?;
            let kind = text(inner, "type").unwrap_or_else(|| name.clone());
            Some(Fault { kind: Some(kind), message })
        }
    }
}

/// Text without tags and runs of white space.
fn plain(body: &str) -> String {
    let mut inside = false;
    let text: String = body
        .chars()
        .map(|c| match c {
            '<' => {
                inside = true;
                ' '
            }
            '>' if inside => {
                inside = false;
                ' '
            }
            _ if inside => ' ',
            c => c,
        })
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shapes() {
        for (body, kind, message) in [
            (
                r#"{"NeutronError": {"type": "IpAddressAlreadyAllocated", "message": "IP address 10.0.0.5 already allocated in subnet x", "detail": ""}}"#,
                Some("IpAddressAlreadyAllocated"),
                "IP address 10.0.0.5 already allocated in subnet x",
            ),
            (
                r#"{"itemNotFound": {"code": 404, "message": "Instance 1 could not be found."}}"#,
                Some("itemNotFound"),
                "Instance 1 could not be found.",
            ),
            (
                r#"{"overLimit": {"code": 413, "message": "VolumeSizeExceedsAvailableQuota: Requested volume"}}"#,
                Some("overLimit"),
                "VolumeSizeExceedsAvailableQuota: Requested volume",
            ),
            (
                r#"{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}"#,
                Some("Unauthorized"),
                "The request you have made requires authentication.",
            ),
            (
                r#"{"explanation": "The resource could not be found.", "code": 404, "error": {"message": "The Stack (x) could not be found.", "traceback": null, "type": "EntityNotFound"}, "title": "Not Found"}"#,
                Some("EntityNotFound"),
                "The Stack (x) could not be found.",
            ),
            (
                r#"{"errors": [{"status": 400, "title": "Bad Request", "detail": "JSON does not validate"}]}"#,
                Some("Bad Request"),
                "JSON does not validate",
            ),
            (r#"{"code": "taken", "message": "address a is taken"}"#, Some("taken"), "address a is taken"),
            ("<html><h1>503 Service\n Unavailable</h1></html>", None, "503 Service Unavailable"),
            ("Authentication required", None, "Authentication required"),
            ("", None, "no reason given"),
            ("[1]", None, "[1]"),
        ] {
            assert_eq!(
                read(body),
                Fault { kind: kind.map(ToOwned::to_owned), message: message.to_owned() },
                "{body}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn never_empty_never_panics(body in ".{0,400}") {
            assert!(!read(&body).message.is_empty());
        }
    }
}
