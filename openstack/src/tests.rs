//! The session against a cloud of canned answers: logging in again, 401s, pages, repetitions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{header, method, path, query_param, query_param_is_missing},
};

use crate::{
    Class, CloudConfig, Error, ExposeSecret, LoginError, Method, Service, Session,
    call::{Observation, Observer},
    config::{Auth, CredentialId},
    networks, security_groups, servers, tokens, volumes,
};

fn description(cloud: &MockServer, rules: Option<Value>) -> Value {
    json!({"token": {
        "user": {"id": "u1", "name": "demo", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "p1", "name": "demo", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r", "name": "member"}],
        "expires_at": "2999-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
        "methods": ["application_credential"],
        "application_credential": {"id": "ac1", "name": "ake", "restricted": true, "access_rules": rules},
        "catalog": [
            {"type": "network", "name": "neutron", "id": "1", "endpoints": [
                {"id": "1", "interface": "internal", "region": "RegionOne", "region_id": "RegionOne", "url": "http://wrong"},
                {"id": "2", "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": cloud.uri()}]},
            {"type": "compute", "name": "nova", "id": "2", "endpoints": [
                {"id": "3", "interface": "public", "region": "RegionOne", "region_id": "RegionOne",
                 "url": format!("{}/v2.1", cloud.uri())}]},
            {"type": "volumev3", "name": "cinder", "id": "3", "endpoints": [
                {"id": "4", "interface": "public", "region": "RegionOne", "region_id": "RegionOne",
                 "url": format!("{}/v3/p1", cloud.uri())}]},
        ],
    }})
}

/// A Keystone that gives out `token-0`, `token-1`, ... and takes the last one only.
struct Keystone {
    given: Arc<AtomicUsize>,
}

impl Keystone {
    async fn on(cloud: &MockServer, rules: Option<Value>) -> Self {
        let given = Arc::new(AtomicUsize::new(0));
        let (count, body) = (Arc::clone(&given), description(cloud, rules.clone()));
        Mock::given(method("POST"))
            .and(path("/v3/auth/tokens"))
            .respond_with(move |_: &Request| {
                let number = count.fetch_add(1, Ordering::SeqCst);
                ResponseTemplate::new(201)
                    .insert_header("X-Subject-Token", format!("token-{number}"))
                    .set_body_json(&body)
            })
            .mount(cloud)
            .await;
        let (count, body) = (Arc::clone(&given), description(cloud, rules));
        Mock::given(method("GET"))
            .and(path("/v3/auth/tokens"))
            .and(header("OpenStack-Identity-Access-Rules", "1.0"))
            .respond_with(move |request: &Request| {
                let last = format!("token-{}", count.load(Ordering::SeqCst).saturating_sub(1));
                let asker = request.headers.get("x-auth-token").map(|t| t.as_bytes().to_vec());
                if asker == Some(last.into_bytes()) {
                    ResponseTemplate::new(200).set_body_json(&body)
                } else {
                    ResponseTemplate::new(401).set_body_json(
                        json!({"error": {"code": 401, "title": "Unauthorized", "message": "no"}}),
                    )
                }
            })
            .mount(cloud)
            .await;
        let (count, body) = (Arc::clone(&given), description(cloud, None));
        Mock::given(method("GET"))
            .and(path("/v3/auth/catalog"))
            .respond_with(move |request: &Request| {
                let last = format!("token-{}", count.load(Ordering::SeqCst).saturating_sub(1));
                if request.headers.get("x-auth-token").map(|t| t.as_bytes().to_vec())
                    == Some(last.into_bytes())
                {
                    ResponseTemplate::new(200)
                        .set_body_json(json!({"catalog": body["token"]["catalog"], "links": {}}))
                } else {
                    ResponseTemplate::new(401).set_body_json(json!({"error": {"message": "no"}}))
                }
            })
            .mount(cloud)
            .await;
        Self { given }
    }

    fn logins(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }
}

fn config(cloud: &MockServer) -> CloudConfig {
    let id = CredentialId::Id("ac1".into());
    let mut config =
        CloudConfig::new(&cloud.uri(), Auth::ApplicationCredential { id, secret: "s".to_owned().into() });
    config.region = Some("RegionOne".into());
    config
}

#[tokio::test]
async fn a_dead_token_is_renewed_once_for_all() {
    let cloud = MockServer::start().await;
    let keystone = Keystone::on(&cloud, None).await;
    let refused = ResponseTemplate::new(401).set_body_json(json!({"error": {"message": "expired"}}));
    Mock::given(path("/v2.0/networks/n"))
        .and(header("x-auth-token", "token-0"))
        .respond_with(refused)
        .mount(&cloud)
        .await;
    Mock::given(path("/v2.0/networks/n"))
        .and(header("x-auth-token", "token-1"))
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!({"network": {"id": "n", "name": "provider"}})),
        )
        .mount(&cloud)
        .await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    assert_eq!((session.project_id().as_str(), session.user_id().as_str()), ("p1", "u1"));
    let calls = (0..10).map(|_| networks::get(&session, "n"));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap().name, "provider");
    }
    assert_eq!(keystone.logins(), 2);
    assert_eq!(session.token().await.unwrap().expose_secret(), "token-1");
}

#[tokio::test]
async fn a_missing_access_rule_is_named() {
    let cloud = MockServer::start().await;
    let rules = json!([{"id": "1", "service": "compute", "method": "GET", "path": "/v2.1/servers"}]);
    let keystone = Keystone::on(&cloud, Some(rules)).await;
    Mock::given(path("/v2.1/servers/s/os-volume_attachments"))
        .respond_with(ResponseTemplate::new(401).set_body_string("Unauthorized"))
        .mount(&cloud)
        .await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    let error = servers::attach_volume(&session, "s", "v").await.unwrap_err();
    assert_eq!(error.class(), Class::NoAccessRule);
    assert!(
        error
            .to_string()
            .starts_with("no access rule for POST /v2.1/servers/s/os-volume_attachments (compute)"),
        "{error}"
    );
    assert_eq!(keystone.logins(), 1, "a new login would not help");
}

#[tokio::test]
async fn a_refused_credential_is_named() {
    let cloud = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(401).set_body_json(
            json!({"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}),
        ))
        .mount(&cloud)
        .await;
    let error = Session::connect(&config(&cloud)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Login(LoginError::ApplicationCredentialRefused { credential, .. }) if credential == "ac1")
    );
    assert!(error.to_string().contains("requires authentication"), "{error}");
}

#[tokio::test]
async fn a_keystone_that_is_away_is_named() {
    let config = CloudConfig::new("http://127.0.0.1:1", Auth::Token { token: "t".to_owned().into() });
    let error = Session::connect(&config).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert!(error.to_string().starts_with("no login at http://127.0.0.1:1: "), "{error}");
}

#[tokio::test]
async fn a_token_of_somebody_is_used_as_it_is() {
    let cloud = MockServer::start().await;
    let keystone = Keystone::on(&cloud, None).await;
    Session::connect(&config(&cloud)).await.unwrap();
    let session = Session::from_token(&cloud.uri(), "token-0".to_owned().into(), Some("RegionOne"), None)
        .await
        .unwrap();
    assert_eq!(session.project_id(), "p1");
    assert_eq!(session.endpoint(Service::BlockStorage).unwrap(), format!("{}/v3/p1", cloud.uri()));
    assert_eq!(session.endpoint(Service::Network).unwrap(), format!("{}/v2.0", cloud.uri()));
    let error = session.endpoint(Service::Ake).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the service catalog has no public endpoint of type ake in region RegionOne; it lists network, compute, volumev3"
    );
    assert_eq!(keystone.logins(), 1);
    let error = Session::from_token(&cloud.uri(), "stale".to_owned().into(), None, None).await.unwrap_err();
    assert!(matches!(error, Error::Login(LoginError::TokenRefused { .. })), "{error}");
}

#[tokio::test]
async fn a_token_of_a_trust_is_described_to_nobody_and_serves_all_the_same() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    Session::connect(&config(&cloud)).await.unwrap();
    Mock::given(method("GET"))
        .and(path("/v3/auth/tokens"))
        .respond_with(
            ResponseTemplate::new(403).set_body_json(json!({"error": {"message": "not authorized"}})),
        )
        .with_priority(1)
        .mount(&cloud)
        .await;
    let session = Session::from_token(&cloud.uri(), "token-0".to_owned().into(), None, None).await.unwrap();
    assert_eq!(session.project_id(), "");
    assert_eq!(session.endpoint(Service::Compute).unwrap(), format!("{}/v2.1", cloud.uri()));
}

#[tokio::test]
async fn pages_end_where_the_marker_repeats() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    let page = |id: &str, next: &str| {
        ResponseTemplate::new(200).set_body_json(json!({
            "networks": [{"id": id}],
            "networks_links": [{"rel": "next", "href": format!("http://elsewhere/v2.0/networks?marker={next}")}]
        }))
    };
    Mock::given(path("/v2.0/networks"))
        .and(query_param_is_missing("marker"))
        .respond_with(page("1", "1"))
        .mount(&cloud)
        .await;
    Mock::given(path("/v2.0/networks"))
        .and(query_param("marker", "1"))
        .respond_with(page("2", "2"))
        .mount(&cloud)
        .await;
    Mock::given(path("/v2.0/networks"))
        .and(query_param("marker", "2"))
        .respond_with(page("3", "1"))
        .mount(&cloud)
        .await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    let ids: Vec<_> = networks::list(&session, None).await.unwrap().into_iter().map(|n| n.id).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[derive(Default)]
struct Log(Mutex<Vec<(&'static str, Option<u16>, u32)>>);

impl Observer for Log {
    fn called(&self, request: &Observation<'_>) {
        self.0.lock().unwrap().push((request.operation, request.status.map(|s| s.as_u16()), request.attempt));
    }
}

#[tokio::test]
async fn reads_are_repeated_and_writes_are_not() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    let busy = ResponseTemplate::new(503).insert_header("Retry-After", "0").set_body_string("<h1>Busy</h1>");
    Mock::given(path("/v3/p1/volumes/v")).respond_with(busy.clone()).up_to_n_times(2).mount(&cloud).await;
    Mock::given(path("/v3/p1/volumes/v"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(json!({"volume": {"id": "v", "size": 1, "status": "in-use"}})),
        )
        .mount(&cloud)
        .await;
    Mock::given(method("POST"))
        .and(path("/v3/p1/volumes"))
        .respond_with(busy.insert_header("x-openstack-request-id", "req-1"))
        .mount(&cloud)
        .await;
    let log = Arc::new(Log::default());
    let session = Session::connect_observed(&config(&cloud), Some(log.clone())).await.unwrap();
    assert_eq!(volumes::get(&session, "v").await.unwrap().status, volumes::VolumeStatus::InUse);
    let new = volumes::NewVolume { name: "pvc-1".into(), size: 1, ..volumes::NewVolume::default() };
    let error = volumes::create(&session, &new).await.unwrap_err();
    assert_eq!(error.to_string(), "block-storage: create volume pvc-1: 503 Service Unavailable: Busy");
    assert_eq!((error.class(), error.retry_after()), (Class::Busy, Some(Duration::ZERO)));
    let log = log.0.lock().unwrap().clone();
    assert_eq!(
        log,
        [
            ("get volume", Some(503), 0),
            ("get volume", Some(503), 1),
            ("get volume", Some(200), 2),
            ("create volume", Some(503), 0)
        ]
    );
}

#[tokio::test]
async fn who_asks_for_a_pause_gets_it_or_hears_no_more_of_us() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    let busy = |seconds: &str| ResponseTemplate::new(503).insert_header("Retry-After", seconds);
    Mock::given(path("/v2.0/networks/n")).respond_with(busy("2")).up_to_n_times(1).mount(&cloud).await;
    Mock::given(path("/v2.0/networks/n"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({})))
        .mount(&cloud)
        .await;
    Mock::given(path("/v2.0/networks/later")).respond_with(busy("3600")).expect(1).mount(&cloud).await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    let call = |path: &str| session.call(Service::Network, Method::GET, "get network", path);
    let begun = std::time::Instant::now();
    call("/networks/n").send().await.unwrap();
    // Never earlier; by itself it would have asked again within half a second.
    assert!(begun.elapsed() >= Duration::from_secs(2));
    // Longer than the call may take: the caller hears of it, and for how long.
    let error = call("/networks/later").send().await.unwrap_err();
    assert_eq!((error.class(), error.retry_after()), (Class::Busy, Some(Duration::from_secs(3600))));
}

#[tokio::test]
async fn a_deadline_holds() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    Mock::given(path("/v2.0/networks/slow"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(30)))
        .mount(&cloud)
        .await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    let begun = std::time::Instant::now();
    let call = session.call(Service::Network, Method::GET, "get network", "/networks/slow");
    let error = call.within(Duration::from_millis(400)).send().await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert!(error.to_string().contains("in time"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn an_existing_rule_is_no_error_and_a_quota_is() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    let neutron = |kind: &str| {
        ResponseTemplate::new(409)
            .set_body_json(json!({"NeutronError": {"type": kind, "message": kind, "detail": ""}}))
    };
    Mock::given(path("/v2.0/security-group-rules"))
        .respond_with(neutron("SecurityGroupRuleExists"))
        .up_to_n_times(1)
        .mount(&cloud)
        .await;
    Mock::given(path("/v2.0/security-group-rules")).respond_with(neutron("OverQuota")).mount(&cloud).await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    let spec: security_groups::RuleSpec =
        serde_json::from_value(json!({"direction": "ingress", "ethertype": "IPv4"})).unwrap();
    assert_eq!(security_groups::create_rule(&session, "g", &spec).await.unwrap(), None);
    let error = security_groups::create_rule(&session, "g", &spec).await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
}

#[tokio::test]
async fn an_unknown_token_is_none() {
    let cloud = MockServer::start().await;
    Keystone::on(&cloud, None).await;
    let session = Session::connect(&config(&cloud)).await.unwrap();
    let token = tokens::validate(&session, &"whatever".to_owned().into()).await.unwrap().unwrap();
    assert!(token.has_role("member") && !token.has_role("admin"));
    assert_eq!(token.application_credential.unwrap().access_rules, None);
    Mock::given(method("GET"))
        .and(path("/v3/auth/tokens"))
        .and(header("x-subject-token", "unknown"))
        .respond_with(ResponseTemplate::new(404))
        .with_priority(1)
        .mount(&cloud)
        .await;
    assert!(tokens::validate(&session, &"unknown".to_owned().into()).await.unwrap().is_none());
}
