//! Flags of the cloud controller manager: upstream's, where they mean something here, and a few of our own.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser};

use crate::services::view::{CLASS, Classes};

/// Names of controllers for `--controllers`, each with what upstream also calls it.
const CONTROLLERS: [(&str, &str); 5] = [
    ("cloud-node-controller", "cloud-node"),
    ("cloud-node-lifecycle-controller", "cloud-node-lifecycle"),
    ("service-lb-controller", "service"),
    ("node-route-controller", "route"),
    ("volume-controller", "volume"),
];

/// The cloud controller manager of AKE: nodes, load balancers and volumes of one Kubernetes cluster on OpenStack.
#[derive(Debug, Clone, Parser)]
#[command(name = "ake-cloud-controller-manager", version)]
pub struct Flags {
    /// How to reach the API server. Without it, as a pod does.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The cloud: where it is, and who we are there (sections Global, AKE and BlockStorage).
    #[arg(long, value_name = "FILE")]
    pub cloud_config: PathBuf,

    /// A name for people; the cluster's identity is cluster-id in the section AKE of the cloud config, or else the UID of the
    /// namespace kube-system.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,

    /// Controllers that run: '*' for all, 'name' for one, '-name' for all but one; of cloud-node-controller,
    /// cloud-node-lifecycle-controller, service-lb-controller, node-route-controller (address pairs; needs the one
    /// before), volume-controller.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true, value_parser = controller)]
    pub controllers: Vec<String>,

    /// The spec.loadBalancerClass of Services that get a load balancer of ours.
    #[arg(long, default_value = CLASS, value_parser = class)]
    pub load_balancer_class: String,

    /// Whether Services without a spec.loadBalancerClass get one of ours too.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub default_load_balancer_class: bool,

    /// How often everything is compared with the cloud without a reason; nothing is written where nothing differs.
    #[arg(long, default_value = "5m", value_parser = duration, alias = "node-status-update-frequency")]
    pub drift_period: Duration,

    /// How often the servers of nodes that are not ready are looked at. A node is deleted when its server was seen
    /// gone twice, that long apart.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub node_monitor_period: Duration,

    /// Write nothing; log what would be written.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub dry_run: bool,

    /// Wait for the Lease before writing anything.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,

    /// How long others wait after the leader's last renewal.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,

    /// How long the leader goes on without a renewal.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,

    /// Between two tries to get or renew the Lease.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,

    /// Name of the Lease.
    #[arg(long, default_value = "cloud-controller-manager")]
    pub leader_elect_resource_name: String,

    /// Namespace of the Lease.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,

    /// Address for /healthz, /livez, /readyz and, from this machine only, /metrics.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port for them, HTTPS; 0 for none.
    #[arg(long, default_value_t = 10258)]
    pub secure_port: u16,

    /// Certificate for them; without it one is made and signed by itself.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// Key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    /// How much is logged: 2 what is done, 4 and more every call.
    #[arg(long, default_value_t = 2)]
    pub v: u8,

    /// What is logged, in the words of tracing (`info,cloud_provider=debug`); goes before --v.
    #[arg(long, env = "AKE_LOG")]
    pub log: Option<String>,

    /// Flags of upstream that decide next to nothing here, so that a unit file can stay as it is.
    #[command(flatten)]
    pub upstream: Upstream,
}

/// Flags of upstream that are taken; all but one decide nothing.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Upstream {
    /// Must be `openstack`.
    #[arg(long, hide = true, value_parser = ["openstack", "external"])]
    pub cloud_provider: Option<String>,
    /// Ranges of pods come from Nodes.
    #[arg(long, hide = true)]
    pub cluster_cidr: Option<String>,
    /// The controller manager of Kubernetes gives Nodes their ranges.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub allocate_node_cidrs: Option<String>,
    /// Whether nodes' ports are to let through what pods send. Routes themselves are the node agent's.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub configure_cloud_routes: Option<bool>,
    /// All Services are one round.
    #[arg(long, hide = true)]
    pub concurrent_service_syncs: Option<String>,
    /// All Nodes are one round.
    #[arg(long, hide = true)]
    pub concurrent_node_syncs: Option<String>,
    /// There is one identity.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub use_service_account_credentials: Option<String>,
    /// There is nothing to authenticate.
    #[arg(long, hide = true)]
    pub authentication_kubeconfig: Option<String>,
    /// There is nothing to authorize.
    #[arg(long, hide = true)]
    pub authorization_kubeconfig: Option<String>,
    /// The lock is a Lease.
    #[arg(long, hide = true, value_parser = ["leases"])]
    pub leader_elect_resource_lock: Option<String>,
}

impl Upstream {
    /// One line for each that was given and has no effect, with what is in its place.
    fn warnings(&self) -> Vec<String> {
        let metrics = "/metrics is for clients on this machine, and nothing else asks who they are";
        [
            ("cluster-cidr", &self.cluster_cidr, "ranges of pods are what Nodes say"),
            (
                "allocate-node-cidrs",
                &self.allocate_node_cidrs,
                "Nodes are given their ranges by kube-controller-manager",
            ),
            ("concurrent-service-syncs", &self.concurrent_service_syncs, "all Services are one round"),
            ("concurrent-node-syncs", &self.concurrent_node_syncs, "all Nodes are one round"),
            (
                "use-service-account-credentials",
                &self.use_service_account_credentials,
                "all controllers are whom --kubeconfig names",
            ),
            ("authentication-kubeconfig", &self.authentication_kubeconfig, metrics),
            ("authorization-kubeconfig", &self.authorization_kubeconfig, metrics),
        ]
        .into_iter()
        .filter_map(|(flag, value, instead)| {
            Some(format!("--{flag}={} has no effect here: {instead}", value.as_ref()?))
        })
        .collect()
    }
}

impl Flags {
    /// Whether a controller shall run; by upstream's rule the last mention counts, then `*`.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        let alias = CONTROLLERS.iter().find(|(known, _)| *known == name).map_or(name, |(_, alias)| *alias);
        for entry in self.controllers.iter().rev() {
            let (mention, on) = entry.strip_prefix('-').map_or((entry.as_str(), true), |rest| (rest, false));
            if mention == name || mention == alias {
                return on;
            }
        }
        self.controllers.iter().any(|entry| entry == "*")
    }

    /// Whether nodes' ports are to let through what pods send. They let through the VIPs in any case, without which no
    /// load balancer works.
    #[must_use]
    pub fn routes(&self) -> bool {
        self.upstream.configure_cloud_routes != Some(false)
    }

    /// What was given and has no effect, each with what is in its place.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.upstream.warnings()
    }

    /// Which Services are ours by their class.
    #[must_use]
    pub fn classes(&self) -> Classes {
        Classes { own: self.load_balancer_class.clone(), classless: self.default_load_balancer_class }
    }

    /// The filter for the log.
    #[must_use]
    pub fn filter(&self) -> String {
        match (&self.log, self.v) {
            (Some(filter), _) => filter.clone(),
            // What kube says of a watch, we say in fewer words.
            (None, 0) => "warn,kube_runtime=error,kube_client=error".to_owned(),
            (None, 1..=3) => "info,kube_runtime=error,kube_client=error".to_owned(),
            (None, 4..=7) => {
                "info,cloud_provider=debug,openstack_client=debug,ake_api_client=debug".to_owned()
            }
            (None, _) => "trace".to_owned(),
        }
    }
}

/// As the API server takes it: a label's key.
fn class(text: &str) -> Result<String, String> {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let fits = |part: &str, longest: usize, others: &str| {
        let ends = [part.chars().next(), part.chars().next_back()];
        part.len() <= longest
            && ends.iter().all(|end| end.is_some_and(|end| end.is_ascii_alphanumeric()))
            && part.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    };
    let lower = |prefix: &str| fits(prefix, 253, "-.") && !prefix.contains(char::is_uppercase);
    if fits(name, 63, "-_.") && prefix.is_none_or(lower) {
        return Ok(text.to_owned());
    }
    Err(format!("expected a label's key, such as {CLASS}"))
}

fn controller(text: &str) -> Result<String, String> {
    let name = text.strip_prefix('-').unwrap_or(text);
    let known = CONTROLLERS.iter().any(|(known, alias)| name == *known || name == *alias);
    if text == "*" || known {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = CONTROLLERS.iter().map(|(name, _)| *name).collect();
    Err(format!("expected '*', or, with or without a '-' before it, one of {}", names.join(", ")))
}

/// Yes or no in Go's words (strconv.ParseBool), as upstream's flags are read.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A time as Go writes it: `15s`, `5m`, `1h30m`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time above zero, such as 15s, 5m or 1h30m".to_owned();
    let time: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(time).ok().filter(|time| !time.is_zero()).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(arguments: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(["ccm", "--cloud-config", "c"].iter().chain(arguments))
    }

    #[test]
    fn controllers_are_chosen_as_upstream_does() {
        for (list, service, volume) in [
            ("*", true, true),
            ("*,-service", false, true),
            ("-service-lb-controller,*", false, true),
            ("service", true, false),
        ] {
            let flags = flags(&["--controllers", list]).unwrap();
            assert_eq!(flags.runs("service-lb-controller"), service, "{list}");
            assert_eq!(flags.runs("volume-controller"), volume, "{list}");
        }
        let error = flags(&["--controllers=routes"]).unwrap_err().to_string();
        assert!(error.contains("routes") && error.contains("node-route-controller"), "{error}");
    }

    #[test]
    fn a_class_is_as_the_api_server_takes_it() {
        for text in ["ake.dev/load-balancer", "internal", "a.example/B_1"] {
            let flags =
                flags(&["--load-balancer-class", text, "--default-load-balancer-class=false"]).unwrap();
            assert_eq!(flags.classes(), Classes { own: text.into(), classless: false });
        }
        for text in ["", "a/", "/a", "A.example/lb", "a b", "a/b/c", "-a"] {
            assert!(class(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_has_an_effect_or_changes_nothing_is_not_warned_of() {
        for list in [
            &[][..],
            &["--cloud-provider=openstack", "--leader-elect-resource-lock=leases"],
            &["--configure-cloud-routes"],
        ] {
            let flags = flags(list).unwrap();
            assert!(flags.routes() && flags.warnings().is_empty(), "{list:?}");
        }
    }

    #[test]
    fn yes_and_no_are_read_in_gos_words() {
        let routes =
            |word: &str| flags(&[&format!("--configure-cloud-routes={word}")]).map(|flags| flags.routes());
        for (words, expected) in [
            (["1", "t", "T", "true", "TRUE", "True"], true),
            (["0", "f", "F", "false", "FALSE", "False"], false),
        ] {
            for word in words {
                assert_eq!(routes(word).unwrap(), expected, "{word}");
            }
        }
        for word in ["yes", "", "tRUE", "2"] {
            assert!(routes(word).is_err(), "{word}");
        }
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("15s", 15.0), ("5m", 300.0), ("1h30m", 5400.0), ("5m0s", 300.0), ("250ms", 0.25)]
        {
            assert_eq!(duration(text).map(|time| time.as_secs_f64()), Ok(seconds), "{text}");
        }
        for text in ["", "5", "-5s", "0s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn upstreams_command_line_is_taken() {
        let flags = flags(&[
            "--cloud-provider=openstack",
            "--allocate-node-cidrs=true",
            "--cluster-cidr=10.240.0.0/16",
            "--leader-elect=false",
            "--configure-cloud-routes=false",
            "--use-service-account-credentials",
            "--v=1",
        ])
        .unwrap();
        assert!(!flags.leader_elect && !flags.routes());
        assert_eq!(
            flags.warnings(),
            [
                "--cluster-cidr=10.240.0.0/16 has no effect here: ranges of pods are what Nodes say",
                "--allocate-node-cidrs=true has no effect here: Nodes are given their ranges by kube-controller-manager",
                "--use-service-account-credentials=true has no effect here: all controllers are whom --kubeconfig names",
            ]
        );
        assert!(flags.filter().starts_with("info,"), "{}", flags.filter());
    }
}
