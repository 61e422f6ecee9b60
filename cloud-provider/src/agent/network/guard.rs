//! The guard rules: one nftables table, replaced whole in one transaction, and only when it differs.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr, process::Stdio};

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, process::Command};

use super::cni::BRIDGE;

/// The table; nothing else of nftables is ever touched.
const TABLE: &str = "inet ake";

/// Nova's metadata service. Pods have no business there: it tells a node's user data.
const METADATA: &str = "169.254.169.254";

/// nft failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run.
    #[error("run nft: {0}")]
    Run(#[from] std::io::Error),
    /// It said no.
    #[error("nft {doing}: {reason}")]
    Refused {
        /// What was done.
        doing: &'static str,
        /// Its own words.
        reason: String,
    },
}

/// What the rules are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Name of the link to the provider network.
    pub uplink: String,
    /// The cluster's blocks of the VIP range.
    pub vip_blocks: Vec<IpNetwork>,
    /// What concerns pods; a master has none.
    pub pods: Option<Pods>,
}

/// What the rules for pods are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pods {
    /// The whole cluster's range.
    pub all: Vec<IpNetwork>,
    /// This node's part of it.
    pub own: Vec<IpNetwork>,
    /// Addresses of the cluster's nodes and masters.
    pub nodes: BTreeSet<IpAddr>,
}

impl Rules {
    /// The table as nft reads it. Its fingerprint stands in it as the name of an empty chain, so that a restarted
    /// agent knows its own work again.
    #[must_use]
    pub fn render(&self) -> Table {
        let body = self.body();
        let digest = Sha256::digest(body.as_bytes());
        let mark = digest.iter().take(8).fold(String::from("revision_"), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        Table {
            text: format!(
                "table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n  chain {mark} {{ }}\n{body}}}\n"
            ),
            mark,
        }
    }

    fn body(&self) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        let uplink = &self.uplink;
        for (family, _) in FAMILIES {
            line(&set(&format!("vips{family}"), family, &of_family(&self.vip_blocks, family)));
            if let Some(pods) = &self.pods {
                line(&set(&format!("pods{family}"), family, &of_family(&pods.all, family)));
                line(&set(&format!("own{family}"), family, &of_family(&pods.own, family)));
                let nodes: Vec<_> = pods.nodes.iter().map(|node| IpNetwork::from(*node)).collect();
                line(&set(&format!("nodes{family}"), family, &of_family(&nodes, family)));
            }
        }
        // Only kube-proxy's rules know what is behind a VIP. What they did not translate would go back to the router,
        // from there to the balancer, and come again. After kube-proxy's own chains, so that it may refuse in its way
        // what has no endpoints.
        line("  chain forward {\n    type filter hook forward priority filter + 10; policy accept;");
        for (family, word) in FAMILIES {
            line(&format!(
                "    iifname \"{uplink}\" {word} daddr @vips{family} counter drop comment \"not translated: would loop\""
            ));
        }
        if self.pods.is_some() {
            line(&format!("    ip daddr {METADATA} counter drop comment \"pods reach no metadata service\""));
            for (family, word) in FAMILIES {
                line(&format!("    iifname \"{uplink}\" {word} daddr @pods{family} jump to_pods"));
            }
        }
        line("  }");
        if self.pods.is_some() {
            line("  chain to_pods {\n    ct state established,related accept");
            line("    ct status dnat accept comment \"came for a Service\"");
            for (family, word) in FAMILIES {
                line(&format!("    {word} saddr @nodes{family} accept"));
                line(&format!("    {word} saddr @pods{family} accept"));
            }
            line("    counter drop comment \"not of this cluster\"\n  }");
            line("  chain own_addresses {\n    type filter hook prerouting priority raw; policy accept;");
            for (family, word) in FAMILIES {
                let other = match family {
                    4 => "ip saddr != 0.0.0.0".to_owned(),
                    _ => "ip6 saddr != fe80::/10 ip6 saddr != ::".to_owned(),
                };
                line(&format!(
                    "    iifname \"{BRIDGE}\" {word} saddr != @own{family} {other} counter drop comment \"not a pod's own address\""
                ));
            }
            line("  }");
            line("  chain outward {\n    type nat hook postrouting priority srcnat; policy accept;");
            for (family, word) in FAMILIES {
                line(&format!(
                    "    oifname \"{uplink}\" {word} saddr @own{family} {word} daddr != @pods{family} masquerade"
                ));
            }
            line("  }");
        }
        out
    }
}

const FAMILIES: [(u8, &str); 2] = [(4, "ip"), (6, "ip6")];

fn of_family(networks: &[IpNetwork], family: u8) -> Vec<IpNetwork> {
    let mut found: Vec<_> =
        networks.iter().copied().filter(|network| network.is_ipv4() == (family == 4)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn set(name: &str, family: u8, elements: &[IpNetwork]) -> String {
    let kind = if family == 4 { "ipv4_addr" } else { "ipv6_addr" };
    let list: Vec<_> = elements.iter().map(ToString::to_string).collect();
    let elements =
        if list.is_empty() { String::new() } else { format!(" elements = {{ {} }};", list.join(", ")) };
    format!("  set {name} {{ type {kind}; flags interval; auto-merge;{elements} }}")
}

/// A rendered table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// For `nft -f`.
    pub text: String,
    /// Its fingerprint.
    pub mark: String,
}

/// The table in the kernel.
#[derive(Debug, Default)]
pub struct Guard {
    /// How nft lists what was applied last: a listing that differs was changed by somebody else.
    listing: Option<String>,
}

impl Guard {
    /// The fingerprint of the table in force; none if there is no table or another one than was applied.
    pub async fn in_force(&self) -> Result<Option<String>, Error> {
        let Some(listing) = list().await? else { return Ok(None) };
        if self.listing.as_ref().is_some_and(|known| *known != listing) {
            return Ok(None);
        }
        Ok(mark(&listing))
    }

    /// Replaces the table.
    pub async fn apply(&mut self, table: &Table) -> Result<(), Error> {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(table.text.as_bytes()).await?;
        }
        let done = nft.wait_with_output().await?;
        if !done.status.success() {
            return Err(refused("-f", &done.stderr));
        }
        self.listing = list().await?;
        Ok(())
    }
}

async fn list() -> Result<Option<String>, Error> {
    let done = Command::new("nft")
        .args(["--stateless", "list", "table"])
        .args(TABLE.split(' '))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if done.status.success() {
        return Ok(Some(String::from_utf8_lossy(&done.stdout).into_owned()));
    }
    if String::from_utf8_lossy(&done.stderr).contains("No such file or directory") {
        return Ok(None);
    }
    Err(refused("list table", &done.stderr))
}

fn refused(doing: &'static str, words: &[u8]) -> Error {
    Error::Refused { doing, reason: String::from_utf8_lossy(words).trim().to_owned() }
}

fn mark(listing: &str) -> Option<String> {
    let chain = listing.lines().find_map(|line| line.trim().strip_prefix("chain revision_"))?;
    Some(format!("revision_{}", chain.trim_end_matches('{').trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            uplink: "eth0".into(),
            vip_blocks: vec!["203.0.113.16/28".parse().unwrap()],
            pods: Some(Pods {
                all: vec!["10.240.0.0/16".parse().unwrap()],
                own: vec!["10.240.1.0/24".parse().unwrap()],
                nodes: ["192.168.77.20".parse().unwrap(), "192.168.77.30".parse().unwrap()].into(),
            }),
        }
    }

    #[test]
    fn the_same_rules_have_the_same_fingerprint_and_others_another() {
        assert_eq!(rules().render(), rules().render());
        let mut other = rules();
        other.vip_blocks.push("203.0.113.32/28".parse().unwrap());
        assert_ne!(rules().render().mark, other.render().mark);
    }

    #[test]
    fn a_master_only_stops_loops() {
        let text = Rules { pods: None, ..rules() }.render().text;
        assert!(
            text.contains("@vips4 counter drop") && !text.contains("masquerade") && !text.contains(METADATA)
        );
    }

    #[test]
    fn what_leaves_for_other_pods_keeps_its_address() {
        let text = rules().render().text;
        assert!(text.contains(r#"oifname "eth0" ip saddr @own4 ip daddr != @pods4 masquerade"#), "{text}");
    }

    #[test]
    fn the_fingerprint_is_found_in_a_listing() {
        let listing = "table inet ake {\n\tset vips4 {\n\t}\n\n\tchain revision_00ff {\n\t}\n}\n";
        assert_eq!(mark(listing).as_deref(), Some("revision_00ff"));
        assert_eq!(mark("table inet ake {\n}\n"), None);
    }
}
