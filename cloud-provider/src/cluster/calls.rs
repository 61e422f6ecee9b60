//! Counts calls to the API server where they leave this program: those that fill and follow caches among them.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response};
use tower::{Layer, Service};

use crate::metrics;

/// Puts [`Counted`] around a service.
#[derive(Debug, Clone)]
pub(super) struct Count {
    /// The API server's host, and its port where it is not the scheme's.
    pub(super) host: Arc<str>,
}

impl<S> Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, host: self.host.clone() }
    }
}

/// A service whose calls are counted, from the request to the head of its answer.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    inner: S,
    host: Arc<str>,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let host = self.host.clone();
        let mut call = Call { host, method: request.method().clone(), begun: Instant::now(), code: None };
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            call.answered(answer.as_ref().ok());
            answer
        }
        .boxed()
    }
}

/// A call that is under way. It ends when this goes: one that nobody waits for any longer had no answer.
struct Call {
    host: Arc<str>,
    method: Method,
    begun: Instant,
    code: Option<u16>,
}

impl Call {
    fn answered<B>(&mut self, answer: Option<&Response<B>>) {
        self.code = answer.map(|answer| answer.status().as_u16());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        metrics::kubernetes_call(&self.host, self.method.as_str(), self.code, self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tower::service_fn;

    use super::*;

    fn request(method: &str) -> Request<()> {
        Request::builder().method(method).body(()).unwrap()
    }

    fn answer(code: u16) -> Response<()> {
        Response::builder().status(code).body(()).unwrap()
    }

    #[tokio::test]
    async fn a_call_is_counted_once_with_what_came_of_it() {
        let count = Count { host: "k:6443".into() };
        // Methods that nobody else here uses.
        let mut refused = count.layer(service_fn(|_: Request<()>| ready(Ok::<_, String>(answer(409)))));
        assert_eq!(refused.call(request("REFUSED")).await.unwrap().status(), 409);
        assert_eq!(refused.call(request("REFUSED")).await.unwrap().status(), 409);
        let mut broken = count.layer(service_fn(|_: Request<()>| ready(Err::<Response<()>, _>("no way"))));
        assert!(broken.call(request("BROKEN")).await.is_err());
        let mut silent = count.layer(service_fn(|_: Request<()>| pending::<Result<Response<()>, String>>()));
        assert!(silent.call(request("GIVENUP")).now_or_never().is_none());
        let shown = metrics::render();
        for line in [
            r#"rest_client_requests_total{code="409",host="k:6443",method="REFUSED"} 2"#,
            r#"rest_client_requests_total{code="<error>",host="k:6443",method="BROKEN"} 1"#,
            r#"rest_client_requests_total{code="<error>",host="k:6443",method="GIVENUP"} 1"#,
            r#"rest_client_request_duration_seconds_count{verb="REFUSED"} 2"#,
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
    }
}
