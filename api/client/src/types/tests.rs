use super::*;

#[test]
fn a_batch_reads_back_as_it_was_written() {
    let batch = Batch {
        lease_transitions: 3,
        kubernetes: Some(KubernetesId::from_u128(7)),
        if_match: Some("\"7\"".into()),
        writes: vec![
            Write::PutAddress { name: "a".into(), request: AddressRequest::default() },
            Write::PutPool {
                name: "nodes".into(),
                request: PoolRequest {
                    members: Some(BTreeMap::from([(
                        "w0".into(),
                        MemberRequest {
                            address: "192.0.2.7".parse().unwrap(),
                            weight: 1,
                            draining: false,
                            port: None,
                        },
                    )])),
                    checks: vec![
                        Check::Http { port: 10256, path: "/healthz".into() },
                        Check::Vip { address: "a".into(), port: 80 },
                    ],
                },
            },
            Write::DeleteLoadBalancer { name: "b".into() },
        ],
    };
    let text = serde_json::to_string(&batch).unwrap();
    assert_eq!(serde_json::from_str::<Batch>(&text).unwrap(), batch);
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    let error = serde_json::from_str::<MemberRequest>(r#"{"address":"192.0.2.7","wieght":2}"#).unwrap_err();
    assert!(error.to_string().contains("wieght"), "{error}");
}

#[test]
fn a_member_without_a_weight_counts_once() {
    let member: MemberRequest = serde_json::from_str(r#"{"address":"192.0.2.7"}"#).unwrap();
    assert_eq!((member.weight, member.draining), (1, false));
}
