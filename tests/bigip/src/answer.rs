//! Answers: the device's errors in its own words, and lists by the page.

use http::StatusCode;
use serde_json::{Map, Value, json};

/// The version that every `selfLink` carries.
pub(crate) const VERSION: &str = "17.1.0";

/// A refusal in the device's words.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) api_error: u64,
}

impl Refusal {
    /// mcpd's own: a number and a sentence.
    pub(crate) fn mcpd(status: u16, message: impl Into<String>) -> Self {
        Self { status: code(status), message: message.into(), api_error: 3 }
    }

    /// What the REST layer finds wrong before mcpd is asked.
    pub(crate) fn rest(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), api_error: 26_214_401 }
    }

    pub(crate) fn not_found(label: &str, path: &str) -> Self {
        Self::mcpd(404, format!("01020036:3: The requested {label} ({path}) was not found."))
    }

    pub(crate) fn body(&self) -> Value {
        json!({
            "code": self.status.as_u16(),
            "message": self.message,
            "errorStack": [],
            "apiError": self.api_error,
        })
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The other form of error, of the parts written in Java.
pub(crate) fn rest_error(status: u16, message: &str) -> (StatusCode, Value) {
    let body = json!({
        "code": status,
        "message": message,
        "referer": "127.0.0.1",
        "restOperationId": 6_611_372,
        "kind": ":resterrorresponse",
    });
    (code(status), body)
}

/// The link that the device gives for a path below /mgmt/tm/.
pub(crate) fn link(path: &str) -> String {
    format!("https://localhost/mgmt/tm/{path}?ver={VERSION}")
}

/// `$filter`, `$select`, `$top`, `$skip` and `expandSubcollections` of a query.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query {
    pub(crate) partition: Option<String>,
    pub(crate) select: Option<Vec<String>>,
    pub(crate) top: Option<usize>,
    pub(crate) skip: usize,
    pub(crate) expand: bool,
    /// Lists in another order, and other ways to write the same.
    pub(crate) other_form: bool,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value));
            let number = || {
                value.parse().map_err(|_| Refusal::rest(format!("invalid query parameter {name}={value}")))
            };
            match name.as_str() {
                "$top" => query.top = Some(number()?),
                "$skip" => query.skip = number()?,
                "$select" => query.select = Some(value.split(',').map(|s| s.trim().to_owned()).collect()),
                "$filter" => match value.split_whitespace().collect::<Vec<_>>()[..] {
                    ["partition", "eq", partition] => {
                        query.partition = Some(partition.trim_matches('\'').to_owned());
                    }
                    _ => return Err(Refusal::rest(format!("filter {value} is not imitated"))),
                },
                "expandSubcollections" => query.expand = value == "true",
                _ => {}
            }
        }
        Ok(query)
    }

    /// A list as the device gives it: without `items` when it is empty, paged when it was asked for pages.
    pub(crate) fn list(&self, kind: &str, path: &str, mut items: Vec<Value>) -> Value {
        let mut answer = json!({ "kind": kind, "selfLink": link(path) });
        let total = items.len();
        if let Some(partition) = &self.partition {
            items.retain(|item| item["partition"] == *partition);
        }
        let matching = items.len();
        if self.top.is_some() || self.skip > 0 {
            let top = self.top.unwrap_or(total.max(1)).max(1);
            items = items.into_iter().skip(self.skip).take(top).collect();
            answer["currentItemCount"] = items.len().into();
            answer["itemsPerPage"] = top.into();
            answer["pageIndex"] = (self.skip / top + 1).into();
            answer["startIndex"] = (self.skip + 1).into();
            answer["totalItems"] = matching.into();
            answer["totalPages"] = matching.div_ceil(top).into();
            if self.skip + top < matching {
                let next = self.skip + top;
                answer["nextLink"] =
                    format!("https://localhost/mgmt/tm/{path}?$top={top}&$skip={next}&ver={VERSION}").into();
            }
        }
        if !items.is_empty() {
            answer["items"] = items.into_iter().map(|item| self.selected(item)).collect();
        }
        answer
    }

    /// Only the fields that were asked for.
    pub(crate) fn selected(&self, item: Value) -> Value {
        let (Some(select), Value::Object(fields)) = (&self.select, &item) else { return item };
        let kept = fields.iter().filter(|(name, _)| select.contains(name));
        Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
    }
}

/// Percent-decoding, and `+` for a blank as the device takes it.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let value = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
                bytes.push(value.unwrap_or(b'%'));
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
