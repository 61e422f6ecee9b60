//! One signal to a wait condition's handle.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use serde::Serialize;
use tokio::time::timeout;

use crate::agent::{api::innermost, config::Signal};

/// What a handle takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Report<'a> {
    /// `SUCCESS` or `FAILURE`.
    pub status: &'a str,
    /// What the stack's events show.
    pub reason: &'a str,
    /// Whose signal it is; a second one of the same replaces it.
    pub id: &'a str,
    /// What the wait condition's attribute shows.
    pub data: &'a str,
}

/// The stack was not told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be made.
    #[error("signal: {0}")]
    Client(String),
    /// Heat did not take it.
    #[error("signal {status} to {url}: {reason}")]
    Refused {
        /// What was to be told.
        status: String,
        /// The handle's.
        url: String,
        /// What came back.
        reason: String,
    },
}

/// Sends it, again and again until it is taken or the deadline is over.
pub(super) async fn send(
    to: &Signal,
    trusted: &[String],
    report: &Report<'_>,
    deadline: Duration,
) -> Result<(), Error> {
    let mut builder = reqwest::Client::builder().use_rustls_tls().timeout(Duration::from_secs(15));
    for pem in trusted {
        // A bundle that is not one was complained of by those who need it.
        for certificate in reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default() {
            builder = builder.add_root_certificate(certificate);
        }
    }
    let client = builder.build().map_err(|error| Error::Client(innermost(&error)))?;
    let refused =
        |reason: String| Error::Refused { status: report.status.into(), url: to.url.clone(), reason };
    let attempt = || async {
        let request = client.post(&to.url).header("X-Auth-Token", &to.token).json(report);
        let answer = request.send().await.map_err(|error| (true, innermost(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let passing = status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 409 | 429);
        let text: String = answer.text().await.unwrap_or_default().chars().take(300).collect();
        Err((passing, format!("{status} {text}")))
    };
    let tries = attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(500))
                .with_max_delay(Duration::from_secs(10))
                .with_jitter()
                .without_max_times(),
        )
        .when(|(passing, _)| *passing)
        .notify(|(_, reason), delay| tracing::warn!(reason, ?delay, "signal not taken yet"));
    match timeout(deadline, tries).await {
        Ok(answer) => answer.map_err(|(_, reason)| refused(reason)),
        Err(_) => Err(refused(format!("not taken within {} s", deadline.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Json, Router, http::StatusCode, routing::post};

    use super::*;

    async fn heat(answers: &'static [u16]) -> (String, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let handle = move |headers: axum::http::HeaderMap, Json(body): Json<serde_json::Value>| async move {
            assert_eq!(headers["x-auth-token"], "t");
            assert_eq!(body, serde_json::json!({"status": "SUCCESS", "reason": "r", "id": "w", "data": ""}));
            let call = count.fetch_add(1, Ordering::SeqCst);
            StatusCode::from_u16(answers[call.min(answers.len() - 1)]).unwrap()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/signal", listener.local_addr().unwrap());
        let app = Router::new().route("/signal", post(handle));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, calls)
    }

    const REPORT: Report<'static> = Report { status: "SUCCESS", reason: "r", id: "w", data: "" };

    #[tokio::test]
    async fn a_signal_is_sent_until_it_is_taken() {
        let (url, calls) = heat(&[503, 200]).await;
        let to = Signal { url, token: "t".into() };
        send(&to, &[], &REPORT, Duration::from_secs(20)).await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_signal_that_will_never_be_taken_is_not_repeated() {
        let (url, calls) = heat(&[401]).await;
        let to = Signal { url: url.clone(), token: "t".into() };
        let error = send(&to, &[], &REPORT, Duration::from_secs(20)).await.unwrap_err().to_string();
        assert!(error.contains("401") && error.contains(&url), "{error}");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
