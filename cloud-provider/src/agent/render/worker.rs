//! The files of a worker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;

use super::{Identity, KUBERNETES, arguments, kubeconfig, pretty};
use crate::agent::{
    bundle::WorkerBundle,
    config::{NodeConfig, listed},
    files::File,
};

/// Everything that a worker's units read; `addresses` are its own in the order of the cluster's families.
#[must_use]
pub fn worker(config: &NodeConfig, bundle: &WorkerBundle, addresses: &[IpAddr]) -> Vec<File> {
    let server = config.server();
    let conf = |identity: Identity<'_>| kubeconfig(&server, &bundle.ca_cert, &identity);
    vec![
        File::public(format!("{KUBERNETES}/pki/ca.crt"), &bundle.ca_cert),
        File::secret(
            format!("{KUBERNETES}/bootstrap-kubelet.conf"),
            conf(Identity::Token(&bundle.bootstrap_token)),
        ),
        File::secret(
            format!("{KUBERNETES}/proxy.conf"),
            conf(Identity::Certificate(&bundle.clients.kube_proxy)),
        ),
        File::secret(
            format!("{KUBERNETES}/node-agent.conf"),
            conf(Identity::Certificate(&bundle.clients.node_agent)),
        ),
        File::public(format!("{KUBERNETES}/kubelet.env"), kubelet_flags(config, addresses)),
        File::public(format!("{KUBERNETES}/kube-proxy.yaml"), kube_proxy(config)),
        // Last: kubelet and the CSI sockets start when this is there.
        File::public(format!("{KUBERNETES}/kubelet.yaml"), kubelet(config)),
    ]
}

fn kubelet_flags(config: &NodeConfig, addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    arguments(
        "KUBELET_ARGS",
        [
            ("cloud-provider", "external".into()),
            ("hostname-override", config.name.clone()),
            ("node-ip", addresses.join(",")),
        ],
    )
}

fn kubelet(config: &NodeConfig) -> String {
    pretty(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        // Of both families where there are two.
        "address": any(config),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "clusterDomain": "cluster.local",
        "clusterDNS": [config.cluster_dns],
        "resolvConf": "/run/systemd/resolve/resolv.conf",
        "rotateCertificates": true,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{KUBERNETES}/pki/ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    }))
}

/// The address of everybody who listens; that of IPv6 takes in IPv4.
fn any(config: &NodeConfig) -> IpAddr {
    if config.has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// Members are checked at /healthz, from outside the machine. The limits of connection tracking are the kernel's own:
/// they are one for the whole machine, not kube-proxy's to set. A Service's address follows its making within a second:
/// at the default of one write a second it would wait for that second to end.
fn kube_proxy(config: &NodeConfig) -> String {
    pretty(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "nftables": {"minSyncPeriod": "100ms"},
        "clusterCIDR": listed(&config.pod_ranges),
        "hostnameOverride": config.name,
        "nodePortAddresses": ["primary"],
        "healthzBindAddress": SocketAddr::new(any(config), 10256),
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": format!("{KUBERNETES}/proxy.conf")},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        bundle,
        config::tests::{dual_stack, sample},
    };

    #[test]
    fn the_units_of_a_worker_find_what_they_want() {
        let config = NodeConfig::parse(&sample("worker").to_string()).unwrap();
        let bundle = serde_json::from_value(bundle::tests::worker()).unwrap();
        let files = worker(&config, &bundle, &["192.168.77.30".parse().unwrap()]);
        for (path, mode, word) in [
            ("/etc/kubernetes/pki/ca.crt", 0o644, "CA"),
            ("/etc/kubernetes/bootstrap-kubelet.conf", 0o600, "\"token\": \"boot\""),
            ("/etc/kubernetes/proxy.conf", 0o600, "https://203.0.113.17:6443"),
            ("/etc/kubernetes/node-agent.conf", 0o600, "client-key-data"),
            (
                "/etc/kubernetes/kubelet.env",
                0o644,
                "KUBELET_ARGS=--cloud-provider=external --hostname-override=demo-worker-0 --node-ip=192.168.77.30\n",
            ),
            ("/etc/kubernetes/kube-proxy.yaml", 0o644, "\"clusterCIDR\": \"10.240.0.0/16\""),
            ("/etc/kubernetes/kube-proxy.yaml", 0o644, "\"minSyncPeriod\": \"100ms\""),
            ("/etc/kubernetes/kubelet.yaml", 0o644, "\"10.96.0.10\""),
        ] {
            let file = files.iter().find(|file| file.path == path).unwrap();
            assert!(file.content.contains(word), "{path}: {}", file.content);
            assert_eq!(file.mode, mode, "{path}");
        }
        assert_eq!(files.len(), 7);
    }

    #[test]
    fn a_worker_of_two_families_listens_to_both() {
        let config = NodeConfig::parse(&dual_stack("worker").to_string()).unwrap();
        let bundle = serde_json::from_value(bundle::tests::worker()).unwrap();
        let addresses = ["192.168.77.30".parse().unwrap(), "fd00:77::30".parse().unwrap()];
        let files = worker(&config, &bundle, &addresses);
        for (path, word) in [
            ("/etc/kubernetes/kubelet.env", "--node-ip=192.168.77.30,fd00:77::30\n"),
            ("/etc/kubernetes/kubelet.yaml", "\"address\": \"::\""),
            ("/etc/kubernetes/kube-proxy.yaml", "\"healthzBindAddress\": \"[::]:10256\""),
            ("/etc/kubernetes/kube-proxy.yaml", "\"10.240.0.0/16,fd00:240:0:100::/56\""),
        ] {
            let file = files.iter().find(|file| file.path == path).unwrap();
            assert!(file.content.contains(word), "{path}: {}", file.content);
        }
    }
}
