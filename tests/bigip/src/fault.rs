//! What goes wrong on demand.

use std::time::Duration;

/// What happens to a request instead of its answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered with this and has no effect.
    Refuse {
        /// HTTP status.
        status: u16,
        /// Body, JSON or not.
        body: String,
    },
    /// The connection ends before anything happens.
    Lost,
    /// It takes effect, then the connection ends without an answer.
    LostAfter,
    /// It takes effect, and is answered late.
    Late(Duration),
}

impl Fault {
    /// As long as the device boots: the web server is there, what is behind it is not.
    pub fn booting() -> Self {
        Self::Refuse {
            status: 503,
            body: "<html><head><title>503 Service Unavailable</title></head>\n<body>Configuration Utility \
                   restarting...</body></html>"
                .to_owned(),
        }
    }

    /// The REST daemon is up, its workers are not registered yet.
    pub fn unregistered(path: &str) -> Self {
        let message = format!("Public URI path not registered: {path}");
        let body = serde_json::json!({"code": 404, "message": message, "kind": ":resterrorresponse"});
        Self::Refuse { status: 404, body: body.to_string() }
    }

    /// The configuration daemon restarts.
    pub fn mcpd_lost() -> Self {
        let body = serde_json::json!({
            "code": 500, "message": "The connection to mcpd has been lost, try again.", "errorStack": [],
            "apiError": 32_768_001,
        });
        Self::Refuse { status: 500, body: body.to_string() }
    }

    /// The web server gave up waiting.
    pub fn async_timeout() -> Self {
        let body = "<html><body><h1>HTTP Status 500 - AsyncContext timeout</h1></body></html>";
        Self::Refuse { status: 500, body: body.to_owned() }
    }
}

/// A fault with the requests that it hits.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// `METHOD /path`, as far as it is known.
    pub(crate) prefix: String,
    /// Requests that pass before it.
    pub(crate) skip: usize,
    /// Requests that it hits.
    pub(crate) times: usize,
    pub(crate) fault: Fault,
}

/// The fault that hits a request, if one does.
pub(crate) fn strike(planned: &mut Vec<Planned>, line: &str) -> Option<Fault> {
    let index = planned.iter().position(|fault| line.starts_with(&fault.prefix))?;
    let fault = &mut planned[index];
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    let struck = fault.fault.clone();
    fault.times -= 1;
    if fault.times == 0 {
        planned.remove(index);
    }
    Some(struck)
}
