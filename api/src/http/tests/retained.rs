//! Addresses that outlive their cluster: kept by Neutron or by a plain range, listed, adopted, given back.

use axum::http::Method;
use serde_json::{Value, json};

use super::{DEMO, House, OTHER, PORT, TOKEN, cluster, message, registration};

const EVE: &str = "eve:evil:admin";

fn other(path: &str) -> String {
    format!("/v1/clusters/{OTHER}{path}")
}

/// A cluster that had two retained addresses and one that is not, and is gone.
async fn outlived(edit: impl FnOnce(String) -> String) -> House {
    let house = House::with(edit).await;
    assert_eq!(house.put(&cluster(""), registration()).await.status, 200);
    house.neutron.add(PORT, "demo", "192.168.77.20", "server-0", &[&format!("ake-cluster={DEMO}")]);
    let about = "Service default/web";
    for (name, body) in [
        ("api", json!({})),
        ("web", json!({"retain": true, "about": about})),
        ("mail", json!({})),
        ("dns", json!({"family": "IPv6", "retain": true})),
    ] {
        let said = house.put(&cluster(&format!("/addresses/{name}")), body).await;
        assert_eq!(said.status, 200, "{}", said.body);
    }
    let said = house.put(&cluster("/addresses/mail"), json!({"retain": true})).await;
    assert_eq!(said.body, json!({"address": "203.0.113.18", "retained": true}), "it can be said later");
    let said = house.put(&cluster("/addresses/web"), json!({})).await;
    assert_eq!(
        said.body,
        json!({"address": "203.0.113.17", "retained": true, "about": about}),
        "what is not said stays"
    );
    house.neutron.change(PORT, |port| port["device_id"] = json!(""));
    assert_eq!(house.post(&cluster("/deleting"), json!({})).await.status, 200);
    let said = house.delete(&cluster("")).await;
    assert_eq!(said.status, 204, "{}", said.body);
    house
}

async fn listed(house: &House, token: &str) -> Vec<String> {
    let said = house.say(token, Method::GET, "/v1/addresses", Value::Null).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let shown = |one: &Value| {
        let mut shown = format!("{} {}", one["address"].as_str().unwrap(), one["name"].as_str().unwrap());
        for (key, word) in [("retained", " retained"), ("used", " used")] {
            shown += if one[key] == true { word } else { "" };
        }
        shown + one["cluster"].as_str().map_or("", |id| if id == OTHER { " of OTHER" } else { " of DEMO" })
    };
    said.body.as_array().unwrap().iter().map(shown).collect()
}

#[tokio::test]
async fn what_is_retained_outlives_its_cluster_and_goes_to_another_of_the_project() {
    let house = outlived(|example| example).await;
    let kept = ["203.0.113.17 web retained", "203.0.113.18 mail retained", "2001:db8:113::10 dns retained"];
    assert_eq!(listed(&house, TOKEN).await, kept);
    assert_eq!(house.neutron.reserved(), 0);
    let demo = |name: &str, address: &str| ("demo".to_owned(), name.to_owned(), address.to_owned());
    let ports = house.neutron.retained();
    assert_eq!(
        ports[0..2].iter().map(|port| port.2.as_str()).collect::<Vec<_>>(),
        ["203.0.113.17", "203.0.113.18"]
    );
    assert!(ports[0].1.contains("web") && ports[0].0 == "demo" && ports.len() == 3, "{ports:?}");

    // nobody else's cluster gets them: not by chance, not by wish, and not by their port
    assert_eq!(house.say(EVE, Method::PUT, &other(""), registration()).await.status, 200);
    let port =
        house.neutron.ports.lock().unwrap().iter().find(|p| p["device_id"] == "demo").unwrap()["id"].clone();
    for wish in [json!({"address": "203.0.113.17"}), json!({"adopt": "203.0.113.17"}), json!({"adopt": port})]
    {
        let said = house.say(EVE, Method::PUT, &other("/addresses/x"), wish).await;
        assert_eq!(said.status, 422, "{}", said.body);
        assert!(!message(&said).contains("demo"), "{}", said.body);
    }
    assert_eq!(listed(&house, EVE).await, Vec::<String>::new());
    let said = house.say(EVE, Method::DELETE, "/v1/addresses/203.0.113.17", Value::Null).await;
    assert_eq!(said.status, 404, "{}", said.body);
    let said = house.say(EVE, Method::GET, &other(""), Value::Null).await;
    assert_eq!(said.body["cluster"]["vip_blocks"], json!(["203.0.113.32/28", "2001:db8:113::20/124"]));
    assert_eq!(house.say(EVE, Method::DELETE, &other(""), Value::Null).await.status, 204);

    // another cluster of the project adopts one, and lets go of it
    assert_eq!(house.put(&other(""), registration()).await.status, 200);
    let adopt = json!({"adopt": "203.0.113.17"});
    let said = house.put(&other("/addresses/entry"), adopt.clone()).await;
    assert_eq!(said.body, json!({"address": "203.0.113.17"}), "{}", said.body);
    let again = house.put(&other("/addresses/entry"), adopt).await;
    assert_eq!((again.status, &again.etag), (said.status, &said.etag));
    assert_eq!(
        listed(&house, TOKEN).await[0..2],
        ["203.0.113.17 entry retained of OTHER".to_owned(), kept[1].to_owned()]
    );
    let said = house.delete("/v1/addresses/203.0.113.17").await;
    assert!(said.status == 409 && message(&said).contains(OTHER), "{}", said.body);
    assert_eq!(house.delete(&other("/addresses/entry")).await.status, 204);
    assert_eq!(listed(&house, TOKEN).await, kept);

    // given back one by one: the port goes with the last
    assert_eq!(house.delete("/v1/addresses/203.0.113.17").await.status, 204);
    assert_eq!(house.neutron.retained()[0], demo("ake-retained-mail", "203.0.113.18"));
    for address in ["203.0.113.18", "2001:db8:113::10"] {
        assert_eq!(house.delete(&format!("/v1/addresses/{address}")).await.status, 204);
    }
    assert_eq!((house.neutron.retained(), listed(&house, TOKEN).await), (vec![], vec![]));
    assert_eq!(house.delete("/v1/addresses/203.0.113.18").await.status, 404);
    let said = house.delete("/v1/addresses/web").await;
    assert!(said.status == 422 && message(&said).contains("address: web"), "{}", said.body);
}

#[tokio::test]
async fn a_plain_range_keeps_them_as_well() {
    let plain = |example: String| {
        let text = example.replace("network = \"ake-vips\"\n", "");
        text.replace("subnet = \"ake-vips-v4\"\n", "").replace("subnet = \"ake-vips-v6\"\n", "")
    };
    let house = outlived(plain).await;
    assert_eq!(listed(&house, TOKEN).await.len(), 3);
    assert_eq!((house.neutron.reserved(), house.neutron.retained().len()), (0, 0));
    assert_eq!(house.put(&other(""), registration()).await.status, 200);
    let said = house.get(&other("")).await;
    assert_eq!(said.body["cluster"]["vip_blocks"], json!(["203.0.113.32/28", "2001:db8:113::20/124"]));
    let said =
        house.put(&other("/addresses/a"), json!({"adopt": "2001:db8:113::10", "family": "IPv6"})).await;
    assert_eq!(said.body["address"], "2001:db8:113::10");
    assert_eq!(house.delete(&other("")).await.status, 204);
    for address in ["203.0.113.17", "203.0.113.18", "2001:db8:113::10"] {
        assert_eq!(house.delete(&format!("/v1/addresses/{address}")).await.status, 204);
    }
    assert_eq!(
        house.put(&cluster(""), registration()).await.body["cluster"]["vip_blocks"][0],
        "203.0.113.16/28"
    );
}

#[tokio::test]
async fn a_credential_of_one_cluster_sees_its_own_and_what_no_cluster_has() {
    let house = outlived(|example| example).await;
    assert_eq!(house.put(&other(""), registration()).await.status, 200);
    assert_eq!(house.put(&cluster(""), registration()).await.status, 200);
    assert_eq!(house.put(&cluster("/addresses/x"), json!({"adopt": "203.0.113.18"})).await.status, 200);
    assert_eq!(house.put(&cluster("/addresses/y"), json!({})).await.status, 200);
    let bound = "alice:demo:member:cred=c1";
    assert_eq!(house.say(bound, Method::GET, &other(""), Value::Null).await.status, 200);
    assert_eq!(listed(&house, bound).await, ["203.0.113.17 web retained", "2001:db8:113::10 dns retained"]);
    // neither it nor one that has named no cluster yet gives back what is the project's
    for credential in [bound, "alice:demo:member:cred=c9"] {
        let said = house.say(credential, Method::DELETE, "/v1/addresses/203.0.113.17", Value::Null).await;
        assert_eq!(said.status, 403, "{}", said.body);
    }
    let said =
        house.say("alice:demo:reader", Method::DELETE, "/v1/addresses/203.0.113.17", Value::Null).await;
    assert_eq!(said.status, 403, "{}", said.body);
    let said = house.say(bound, Method::PUT, &other("/addresses/w"), json!({"adopt": "203.0.113.17"})).await;
    assert_eq!((said.status.as_u16(), &said.body["address"]), (200, &json!("203.0.113.17")));
}

#[tokio::test]
async fn what_broke_off_is_finished() {
    let house = outlived(|example| example).await;
    let store = &house.service.store;
    store.begin_release("demo", "203.0.113.17".parse().unwrap()).await.unwrap();
    assert_eq!(listed(&house, TOKEN).await[0], "203.0.113.18 mail retained", "on its way, nobody gets it");
    assert_eq!(house.put(&other(""), registration()).await.status, 200);
    let said = house.put(&other("/addresses/a"), json!({"adopt": "203.0.113.17"})).await;
    assert_eq!(said.status, 422, "{}", said.body);
    house.service.finish_releases_for_tests().await;
    let ports = house.neutron.retained();
    assert!(ports.len() == 2 && ports.iter().all(|port| port.2 != "203.0.113.17"), "{ports:?}");
    assert_eq!(store.retained(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_address_in_use_or_of_a_living_cluster_is_not_given_back() {
    let house = House::with_api().await;
    assert_eq!(house.put(&cluster("/addresses/api"), json!({"retain": true})).await.status, 200);
    assert_eq!(house.put(&cluster("/addresses/free"), json!({"about": "nothing yet"})).await.status, 200);
    assert_eq!(
        listed(&house, TOKEN).await,
        ["203.0.113.16 api retained used of DEMO", "203.0.113.17 free of DEMO"]
    );
    let said = house.delete("/v1/addresses/203.0.113.16").await;
    assert!(said.status == 409 && message(&said).contains(DEMO), "{}", said.body);
    let long = json!({"about": "x".repeat(201)});
    let said = house.put(&cluster("/addresses/free"), long).await;
    assert!(said.status == 422 && message(&said).contains("at most 200 characters"), "{}", said.body);
}
