//! The change feed, and the ETags that it goes by.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{House, Said, TOKEN, cluster, message};

impl House {
    async fn seen(&self, tag: &str, query: &str) -> Said {
        let headers = [("if-none-match", tag)];
        self.say_with("192.0.2.9", TOKEN, Method::GET, &cluster(query), Value::Null, &headers).await
    }

    /// The tag of a state that nothing is about to change any more.
    async fn settled(&self) -> String {
        let mut tag = self.get(&cluster("")).await.etag;
        loop {
            let said = self.seen(&tag, "?wait=1").await;
            if said.status == StatusCode::NOT_MODIFIED {
                return said.etag;
            }
            tag = said.etag;
        }
    }
}

#[tokio::test]
async fn a_members_health_reaches_who_waits_and_makes_no_plan_stale() {
    let house = House::with_api().await;
    let tag = house.settled().await;
    let (said, ()) = tokio::join!(house.seen(&tag, "?wait=25"), async {
        tokio::task::yield_now().await;
        house.balancer.all_are(true);
    });
    assert_eq!(said.status, 200);
    assert_eq!(said.body["pools"]["masters"]["members"]["m0"]["healthy"], true);
    assert_ne!(said.etag, tag);
    let batch = json!({"lease_transitions": 1, "if_match": tag, "writes": []});
    assert_eq!(house.post(&cluster("/batch"), batch).await.status, 200);
}

#[tokio::test]
async fn a_write_reaches_who_waits_and_makes_older_plans_stale() {
    let house = House::with_api().await;
    let tag = house.settled().await;
    let path = cluster("/addresses/more");
    let (said, put) = tokio::join!(house.seen(&tag, "?wait=25"), house.put(&path, json!({})));
    assert_eq!((said.status, put.status), (StatusCode::OK, StatusCode::OK));
    assert!(said.body["addresses"]["more"].is_object(), "{}", said.body);
    let batch = json!({"lease_transitions": 1, "if_match": tag, "writes": []});
    let said = house.post(&cluster("/batch"), batch).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("stale")));
}

#[tokio::test]
async fn what_was_seen_already_is_not_sent_again() {
    let house = House::with_api().await;
    let tag = house.settled().await;
    for list in [tag.clone(), format!("W/{tag}"), format!("\"0\", {tag}"), "*".to_owned()] {
        let said = house.seen(&list, "").await;
        assert_eq!((said.status, &said.etag, &said.body), (StatusCode::NOT_MODIFIED, &tag, &Value::Null));
    }
    assert_eq!(house.seen("\"0\"", "?wait=25").await.status, 200, "another state is told at once");
    for (query, words) in
        [("?wait=26", "wait: 26: expected at most 25"), ("?wiat=1", "wiat"), ("?wait=x", "wait=x")]
    {
        let said = house.seen(&tag, query).await;
        assert!(said.status == 422 && message(&said).contains(words), "{}", said.body);
    }
}

#[tokio::test]
async fn who_waits_for_a_cluster_that_goes_is_told() {
    let house = House::registered().await;
    house.neutron.change(super::PORT, |port| port["device_id"] = json!(""));
    let tag = house.settled().await;
    let mut tag = tag;
    let waiting = async {
        loop {
            let said = house.seen(&tag, "?wait=25").await;
            if said.status != 200 {
                return said;
            }
            tag = said.etag;
        }
    };
    let path = cluster("");
    let (said, deleted) = tokio::join!(waiting, house.delete(&path));
    assert_eq!((said.status, deleted.status), (StatusCode::NOT_FOUND, StatusCode::NO_CONTENT));
}
