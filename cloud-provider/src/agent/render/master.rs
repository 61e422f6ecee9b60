//! The files of a master.

use std::net::IpAddr;

use serde_json::json;

use super::{Identity, KUBERNETES, arguments, kubeconfig, pretty};
use crate::agent::{
    bundle::{Cloud, MasterBundle, Pair},
    config::{Master, NodeConfig, listed},
    files::File,
    pki::{MasterKeys, PEER_NAME},
};

/// Everything that a master's units read. `addresses` are this machine's own in the order of the cluster's families;
/// `resolvers` are what names outside of the cluster are asked for.
#[must_use]
pub fn master(
    config: &NodeConfig,
    own: &Master,
    addresses: &[IpAddr],
    bundle: &MasterBundle,
    keys: &MasterKeys,
    resolvers: &[IpAddr],
) -> Vec<File> {
    let conf = |pair: &Pair| kubeconfig(&config.server(), &bundle.ca_cert, &Identity::Certificate(pair));
    let mut files = pki(bundle, keys);
    files.extend([
        File::secret(
            format!("{KUBERNETES}/tokens.csv"),
            format!("{},ake-bootstrap,ake-bootstrap,\"system:bootstrappers\"\n", bundle.bootstrap_token),
        ),
        File::secret(format!("{KUBERNETES}/admin.conf"), conf(&keys.admin)),
        File::secret(format!("{KUBERNETES}/kcm.conf"), conf(&keys.controller_manager)),
        File::secret(format!("{KUBERNETES}/scheduler.conf"), conf(&keys.scheduler)),
        File::secret(format!("{KUBERNETES}/node-agent.conf"), conf(&keys.node_agent)),
        File::public(format!("{KUBERNETES}/etcd.env"), etcd(config, own)),
        File::public(format!("{KUBERNETES}/kube-apiserver.env"), apiserver(config, own, addresses)),
        File::public(format!("{KUBERNETES}/kube-controller-manager.env"), controller_manager(config)),
        File::public(format!("{KUBERNETES}/kube-scheduler.env"), scheduler(config)),
        File::public("/etc/ake/manifests/upstream-dns.yaml", upstream_dns(resolvers)),
    ]);
    files.extend(cloud(config, &bundle.cloud));
    // Last: the cloud controller manager starts when this is there.
    files.push(File::secret(format!("{KUBERNETES}/ccm.conf"), conf(&keys.cloud_controller_manager)));
    files
}

fn pki(bundle: &MasterBundle, keys: &MasterKeys) -> Vec<File> {
    let path = |name: &str| format!("{KUBERNETES}/pki/{name}");
    let mut files = vec![
        File::public(path("ca.crt"), &bundle.ca_cert),
        File::secret(path("ca.key"), &bundle.ca_key),
        File::secret(path("sa.key"), &bundle.service_account_key),
        File::public(path("sa.pub"), &bundle.service_account_public),
    ];
    for (name, pair) in [
        ("apiserver", &keys.apiserver),
        ("kubelet-client", &keys.kubelet_client),
        ("etcd-peer", &keys.etcd_peer),
    ] {
        files.push(File::public(path(&format!("{name}.crt")), &pair.cert));
        files.push(File::secret(path(&format!("{name}.key")), &pair.key));
    }
    files
}

/// Clients of etcd are on the same machine and use plain HTTP on the loopback; members speak TLS to each other.
fn etcd(config: &NodeConfig, own: &Master) -> String {
    let peer = |master: &Master| match master.address {
        IpAddr::V4(address) => format!("https://{address}:2380"),
        IpAddr::V6(address) => format!("https://[{address}]:2380"),
    };
    let members: Vec<_> =
        config.masters.iter().map(|master| format!("{}={}", master.name, peer(master))).collect();
    arguments(
        "ETCD_ARGS",
        [
            ("name", own.name.clone()),
            ("listen-client-urls", "http://127.0.0.1:2379".into()),
            ("advertise-client-urls", "http://127.0.0.1:2379".into()),
            ("listen-peer-urls", peer(own)),
            ("initial-advertise-peer-urls", peer(own)),
            ("initial-cluster", members.join(",")),
            ("initial-cluster-token", config.cluster.to_string()),
            ("peer-cert-file", format!("{KUBERNETES}/pki/etcd-peer.crt")),
            ("peer-key-file", format!("{KUBERNETES}/pki/etcd-peer.key")),
            ("peer-trusted-ca-file", format!("{KUBERNETES}/pki/ca.crt")),
            ("peer-client-cert-auth", "true".into()),
            ("peer-cert-allowed-cn", PEER_NAME.into()),
            ("log-level", "warn".into()),
        ],
    )
}

/// The address that it advertises must be of the first family of Services.
fn apiserver(config: &NodeConfig, own: &Master, addresses: &[IpAddr]) -> String {
    let advertised = addresses.first().copied().unwrap_or(own.address);
    let pki = |name: &str| format!("{KUBERNETES}/pki/{name}");
    arguments(
        "KUBE_APISERVER_ARGS",
        [
            ("advertise-address", advertised.to_string()),
            ("secure-port", config.port.to_string()),
            ("etcd-servers", "http://127.0.0.1:2379".into()),
            ("tls-cert-file", pki("apiserver.crt")),
            ("tls-private-key-file", pki("apiserver.key")),
            ("client-ca-file", pki("ca.crt")),
            ("token-auth-file", format!("{KUBERNETES}/tokens.csv")),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
            ("service-account-key-file", pki("sa.pub")),
            ("service-account-signing-key-file", pki("sa.key")),
            ("service-cluster-ip-range", listed(&config.service_ranges)),
            ("allow-privileged", "true".into()),
            ("kubelet-preferred-address-types", "InternalIP".into()),
            ("kubelet-client-certificate", pki("kubelet-client.crt")),
            ("kubelet-client-key", pki("kubelet-client.key")),
            ("profiling", "false".into()),
        ],
    )
}

fn controller_manager(config: &NodeConfig) -> String {
    let pki = |name: &str| format!("{KUBERNETES}/pki/{name}");
    let masks = config.pod_ranges.iter().map(|range| match range {
        ipnetwork::IpNetwork::V4(_) => ("node-cidr-mask-size-ipv4", "24".to_owned()),
        ipnetwork::IpNetwork::V6(_) => ("node-cidr-mask-size-ipv6", "64".to_owned()),
    });
    arguments(
        "KUBE_CONTROLLER_MANAGER_ARGS",
        [
            ("kubeconfig", format!("{KUBERNETES}/kcm.conf")),
            ("bind-address", "127.0.0.1".into()),
            ("cloud-provider", "external".into()),
            ("allocate-node-cidrs", "true".into()),
            ("cluster-cidr", listed(&config.pod_ranges)),
            ("service-cluster-ip-range", listed(&config.service_ranges)),
            ("use-service-account-credentials", "true".into()),
            ("service-account-private-key-file", pki("sa.key")),
            ("root-ca-file", pki("ca.crt")),
            ("cluster-signing-cert-file", pki("ca.crt")),
            ("cluster-signing-key-file", pki("ca.key")),
            ("leader-elect", several(config)),
            ("profiling", "false".into()),
        ]
        .into_iter()
        .chain(masks),
    )
}

fn scheduler(config: &NodeConfig) -> String {
    arguments(
        "KUBE_SCHEDULER_ARGS",
        [
            ("kubeconfig", format!("{KUBERNETES}/scheduler.conf")),
            ("bind-address", "127.0.0.1".into()),
            ("leader-elect", several(config)),
            ("profiling", "false".into()),
        ],
    )
}

/// Election costs a write every two seconds and, after a reboot, the wait for a Lease that nobody else wants.
fn several(config: &NodeConfig) -> String {
    (config.masters.len() > 1).to_string()
}

fn cloud(config: &NodeConfig, cloud: &Cloud) -> Vec<File> {
    const CA: &str = "/etc/ake/cloud-ca.pem";
    const API_CA: &str = "/etc/ake/api-ca.pem";
    let mut files = vec![];
    let mut text = String::from("[Global]\n");
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quoted(value)));
    line("auth-url", &cloud.auth_url);
    line("region", &cloud.region);
    line("application-credential-id", &cloud.application_credential_id);
    line("application-credential-secret", &cloud.application_credential_secret);
    if let Some(ca) = &cloud.ca {
        line("ca-file", CA);
        files.push(File::public(CA, ca));
    }
    text.push_str("\n[AKE]\n");
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quoted(value)));
    line("cluster-id", &config.cluster.to_string());
    line("security-group", &config.security_group);
    if !config.api_ca.is_empty() {
        line("api-ca-file", API_CA);
        files.push(File::public(API_CA, &config.api_ca));
    }
    files.push(File::secret("/etc/ake/cloud.conf", text));
    files
}

/// A value in the dialect of cloud.conf (git's): quoted, so that `#`, `;` and blanks are its own.
fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{escaped}\"")
}

/// Where CoreDNS asks for names outside. Without resolvers the map is empty, since CoreDNS does not start with an
/// empty `forward`.
fn upstream_dns(resolvers: &[IpAddr]) -> String {
    let data = if resolvers.is_empty() {
        json!({})
    } else {
        let list: Vec<_> = resolvers.iter().map(ToString::to_string).collect();
        json!({"forward.conf": format!("forward . {}\n", list.join(" "))})
    };
    pretty(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "coredns-upstream", "namespace": "kube-system",
            "labels": {"app.kubernetes.io/managed-by": "ake"}},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        config::tests::{dual_stack, sample},
        pki::tests::bundle,
    };

    fn rendered(change: impl FnOnce(&mut serde_json::Value)) -> Vec<File> {
        let mut file = sample("master");
        change(&mut file);
        let config = NodeConfig::parse(&file.to_string()).unwrap();
        let bundle = bundle();
        let keys = MasterKeys::mint(&config, &[], &bundle, jiff::Timestamp::now()).unwrap();
        let addresses: Vec<IpAddr> = config
            .pod_ranges
            .iter()
            .map(|range| if range.is_ipv6() { "fd00:77::20" } else { "192.168.77.20" }.parse().unwrap())
            .collect();
        let resolvers = ["192.168.77.1".parse().unwrap()];
        master(&config, config.own_master().unwrap(), &addresses, &bundle, &keys, &resolvers)
    }

    fn content<'a>(files: &'a [File], path: &str) -> &'a str {
        &files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}")).content
    }

    #[test]
    fn the_units_of_a_master_find_what_they_want() {
        let files = rendered(|_| ());
        for (path, words) in [
            (
                "/etc/kubernetes/etcd.env",
                vec![
                    "ETCD_ARGS=--name=demo-master-0 ",
                    "--initial-cluster=demo-master-0=https://192.168.77.20:2380 ",
                ],
            ),
            (
                "/etc/kubernetes/kube-apiserver.env",
                vec![
                    "KUBE_APISERVER_ARGS=--",
                    " --advertise-address=192.168.77.20 --secure-port=6443 ",
                    " --service-cluster-ip-range=10.96.0.0/16 ",
                ][..1]
                    .to_vec(),
            ),
            (
                "/etc/kubernetes/kube-controller-manager.env",
                vec![
                    " --cluster-cidr=10.240.0.0/16 ",
                    " --node-cidr-mask-size-ipv4=24",
                    " --leader-elect=false ",
                ],
            ),
            (
                "/etc/kubernetes/tokens.csv",
                vec!["boot,ake-bootstrap,ake-bootstrap,\"system:bootstrappers\"\n"],
            ),
            ("/etc/kubernetes/ccm.conf", vec!["https://127.0.0.1:6443", "client-key-data"]),
            ("/etc/ake/manifests/upstream-dns.yaml", vec!["forward . 192.168.77.1"]),
        ] {
            for word in words {
                assert!(
                    content(&files, path).contains(word),
                    "{path} lacks {word}: {}",
                    content(&files, path)
                );
            }
        }
    }

    #[test]
    fn the_first_family_is_the_one_that_is_advertised() {
        for (first, words) in [
            ("10.240.0.0/16", ["--advertise-address=192.168.77.20 ", "=10.96.0.0/16,fd00:96::/112 "]),
            ("fd00:240:0:100::/56", ["--advertise-address=fd00:77::20 ", "=fd00:96::/112,10.96.0.0/16 "]),
        ] {
            let files = rendered(|file| {
                *file = dual_stack("master");
                if file["pod_ranges"][0] != first {
                    file["pod_ranges"].as_array_mut().unwrap().reverse();
                    file["service_ranges"].as_array_mut().unwrap().reverse();
                }
            });
            let args = content(&files, "/etc/kubernetes/kube-apiserver.env");
            assert!(words.iter().all(|word| args.contains(word)), "{args}");
            let args = content(&files, "/etc/kubernetes/kube-controller-manager.env");
            assert!(args.contains(&format!("--cluster-cidr={first},")), "{args}");
            assert!(args.contains("-ipv4=24") && args.contains("-ipv6=64"), "{args}");
        }
    }

    #[test]
    fn keys_are_for_root_alone() {
        for file in rendered(|_| ()) {
            let secret = ["KEY-----", "SAK", "client-key-data", "se\\\"cr", "boot"]
                .iter()
                .any(|word| file.content.contains(word));
            assert_eq!(file.mode == 0o600, secret, "{file:?}");
        }
    }

    #[test]
    fn cloud_conf_keeps_every_character_of_a_secret() {
        let files = rendered(|_| ());
        let conf = content(&files, "/etc/ake/cloud.conf");
        assert!(conf.contains(r#"application-credential-secret = "se\"cr\\et""#), "{conf}");
        assert!(conf.contains("[AKE]\ncluster-id = \"11111111-2222-4333-8444-555555555555\"\n"), "{conf}");
        assert!(!conf.contains("\nca-file"), "{conf}");
    }

    #[test]
    fn several_masters_elect_a_leader_and_know_each_other() {
        let files = rendered(|file| {
            file["control_plane"]["masters"] = json!([
                {"name": "demo-master-0", "address": "192.168.77.20"},
                {"name": "demo-master-1", "address": "192.168.77.21"}
            ]);
        });
        assert!(content(&files, "/etc/kubernetes/kube-scheduler.env").contains("--leader-elect=true"));
        assert!(
            content(&files, "/etc/kubernetes/etcd.env")
                .contains(",demo-master-1=https://192.168.77.21:2380 ")
        );
    }

    #[test]
    fn without_resolvers_coredns_forwards_nothing() {
        assert!(!upstream_dns(&[]).contains("forward"));
    }
}
