//! The way to Nova's metadata service: what Neutron's metadata proxy does at 169.254.169.254.
//!
//! The source address says which port asks; Neutron's table says which server has it. The request goes on to Nova
//! with headers that only the holder of the shared secret can sign.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use ring::hmac;

use crate::cage::{self, Cage};
use crate::detached;
use crate::network::METADATA_ADDRESS;
use crate::procs::eventually;
use crate::switch::{self, Port, Table};
use crate::{Dirs, shell};

/// Nova's metadata API on the control host.
const UPSTREAM: &str = "http://192.0.2.2:8775";
/// `metadata_proxy_shared_secret` of nova.conf.
const SECRET: &str = "secret";
/// The proxy's name among the lab's background programs.
const NAME: &str = "metadata";

/// Starts the proxy on the router.
pub fn start(cage: &Cage) -> Result<()> {
    let dirs = cage.dirs();
    detached::start(cage, "router", NAME, &cage::program(dirs), &["internal", "metadata", UPSTREAM, SECRET])?;
    let address = format!("{METADATA_ADDRESS}:80");
    let listens = || {
        shell::run(cage.command(Some("router"), "ss").args(["-Htln", "src", &address]))
            .is_ok_and(|text| text.contains(&address))
    };
    if !eventually(Duration::from_secs(120), || listens() || detached::pid(cage, NAME).is_none())
        || !listens()
    {
        let log = fs::read_to_string(dirs.log().join(format!("{NAME}.log"))).unwrap_or_default();
        bail!("the metadata proxy did not come up: {}", shell::tail(log.trim(), 500));
    }
    Ok(())
}

struct Proxy {
    dirs: Dirs,
    upstream: String,
    key: hmac::Key,
    client: reqwest::Client,
}

/// Answers for as long as the process lives.
pub(crate) fn serve(dirs: &Dirs, upstream: &str, secret: &str) -> Result<()> {
    let proxy = Arc::new(Proxy {
        dirs: dirs.clone(),
        upstream: upstream.to_owned(),
        key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        client: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?,
    });
    let app =
        Router::new().fallback(forward).with_state(proxy).into_make_service_with_connect_info::<SocketAddr>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((METADATA_ADDRESS, 80)).await?;
        Ok(axum::serve(listener, app).await?)
    })
}

async fn forward(
    State(proxy): State<Arc<Proxy>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let from = from.ip().to_canonical();
    match ask(&proxy, from, method, &uri, body).await {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("{from} {uri}: {error:#}");
            (StatusCode::BAD_GATEWAY, format!("{error:#}\n")).into_response()
        }
    }
}

async fn ask(proxy: &Proxy, from: IpAddr, method: Method, uri: &Uri, body: Bytes) -> Result<Response> {
    let table = switch::current(&proxy.dirs)?;
    let Some(port) = owner(&table, from) else {
        return Ok(
            (StatusCode::NOT_FOUND, format!("no server's port has the address {from}\n")).into_response()
        );
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let answer = proxy
        .client
        .request(method, format!("{}{path}", proxy.upstream))
        .header("X-Instance-ID", &port.device_id)
        .header("X-Tenant-ID", &port.project_id)
        .header("X-Forwarded-For", from.to_string())
        .header("X-Instance-ID-Signature", signature(&proxy.key, &port.device_id))
        .body(body)
        .send()
        .await
        .context("nova's metadata service does not answer")?;
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = (status, answer.bytes().await?).into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// The server's port that has this address as its own.
fn owner(table: &Table, address: IpAddr) -> Option<&Port> {
    table
        .ports
        .iter()
        .filter(|port| port.of_server())
        .find(|port| port.fixed_ips.iter().any(|fixed| fixed.ip_address.parse::<IpAddr>() == Ok(address)))
}

/// What nova compares the instance's id with.
fn signature(key: &hmac::Key, instance: &str) -> String {
    hmac::sign(key, instance.as_bytes()).as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_neutrons_proxy() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        // printf %s id | openssl dgst -sha256 -hmac secret
        assert_eq!(signature(&key, "id"), "0da5b4052abdeb0bbd119978c49479893059d51a19522a70e4672259a6d720b5");
    }

    #[test]
    fn only_a_servers_own_address_counts() {
        let text = r#"{"generation":1,"ports":[
            {"id":"vip","mac_address":"fa:16:3e:00:00:02","fixed_ips":[{"ip_address":"203.0.113.17"}]},
            {"id":"a","mac_address":"fa:16:3e:00:00:01","device_id":"d","device_owner":"compute:nova",
             "fixed_ips":[{"ip_address":"192.168.77.10"}],
             "allowed_address_pairs":[{"ip_address":"10.240.1.0/24"}]}]}"#;
        let table: Table = serde_json::from_str(text).unwrap();
        let of = |address: &str| owner(&table, address.parse().unwrap()).map(|port| port.id.as_str());
        assert_eq!(of("192.168.77.10"), Some("a"));
        assert_eq!(of("10.240.1.7"), None);
        assert_eq!(of("203.0.113.17"), None);
    }
}
