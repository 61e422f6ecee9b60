//! The reference page of annotations, from what the controller reads.

use std::fmt::Write as _;

use super::annotations::{HONOURED, IMPOSSIBLE, OPENSTACK, WITHOUT_EFFECT};

/// The page, as Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Annotations of Services\n\nWritten from what `ake-cloud-controller-manager` reads. What it refuses or ignores \
         becomes a Warning Event at the Service, with field, value and expectation.\n\n## Honoured\n\n\
         | annotation | type | default | meaning |\n|---|---|---|---|\n",
    );
    for row in HONOURED {
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", row.name, row.kind, row.default, row.meaning);
    }
    page += "\n## Refused: the Service gets no load balancer\n\n| annotation | expected |\n|---|---|\n";
    for (name, expected) in IMPOSSIBLE {
        let _ = writeln!(page, "| `{OPENSTACK}{name}` | {expected} |");
    }
    page += "\n## Told, and without effect\n\nNor has any other annotation that begins with `loadbalancer.openstack.org/` or \
             `ake.dev/`; it is told too.\n\n| annotation | expected |\n|---|---|\n";
    for (name, expected) in WITHOUT_EFFECT {
        let _ = writeln!(page, "| `{OPENSTACK}{name}` | {expected} |");
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
        let others = IMPOSSIBLE.iter().chain(WITHOUT_EFFECT).map(|row| format!("{OPENSTACK}{}", row.0));
        for name in HONOURED.iter().map(|row| row.name.to_owned()).chain(others) {
            assert_eq!(page.matches(&format!("\n| `{name}` |")).count(), 1, "{name}");
        }
    }
}
