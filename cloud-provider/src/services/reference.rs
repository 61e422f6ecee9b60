//! The reference page of annotations, from what the controller reads.

use std::fmt::Write as _;

use super::annotations::{ADDRESS, IMPOSSIBLE, NODE_SELECTOR, OPENSTACK, SOURCE_RANGES, WITHOUT_EFFECT};

/// Annotations that are honoured: name, type, default, meaning.
const HONOURED: &[(&str, &str, &str, &str)] = &[
    (
        ADDRESS,
        "IP address",
        "any free one",
        "A certain VIP of the cluster's blocks. Overrides `spec.loadBalancerIP`.",
    ),
    (
        SOURCE_RANGES,
        "CIDRs, separated by commas",
        "everybody",
        "Clients that are let in, where `spec.loadBalancerSourceRanges` is empty.",
    ),
    (
        NODE_SELECTOR,
        "`key=value,key`",
        "all nodes",
        "Only nodes with these labels carry the Service; a key without a value asks for any.",
    ),
];

/// The page, as Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Annotations of Services\n\nWritten from what `ake-cloud-controller-manager` reads. What it refuses or ignores \
         becomes a Warning Event at the Service, with field, value and expectation.\n\n## Honoured\n\n\
         | annotation | type | default | meaning |\n|---|---|---|---|\n",
    );
    for (name, kind, default, meaning) in HONOURED {
        let _ = writeln!(page, "| `{name}` | {kind} | {default} | {meaning} |");
    }
    page += "\n## Refused: the Service gets no load balancer\n\n| annotation | expected |\n|---|---|\n";
    for (name, expected) in IMPOSSIBLE {
        let _ = writeln!(page, "| `{OPENSTACK}{name}` | {expected} |");
    }
    page += "\n## Ignored: they mean nothing under direct server return\n\n";
    for name in WITHOUT_EFFECT {
        let _ = writeln!(page, "- `{OPENSTACK}{name}`");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_is_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/annotations.md");
        if std::env::var_os("AKE_WRITE_REFERENCE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/reference/annotations.md is old: AKE_WRITE_REFERENCE=1 cargo test -p cloud-provider reference"
        );
    }

    #[test]
    fn every_annotation_is_in_one_table_only() {
        let page = page();
        for name in HONOURED.iter().map(|row| row.0.to_owned()).chain(
            IMPOSSIBLE
                .iter()
                .map(|row| row.0)
                .chain(WITHOUT_EFFECT.iter().copied())
                .map(|n| format!("{OPENSTACK}{n}")),
        ) {
            assert_eq!(page.matches(&format!("`{name}`")).count(), 1, "{name}");
        }
    }
}
