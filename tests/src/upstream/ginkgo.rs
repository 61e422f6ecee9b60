//! Ginkgo's JSON report: <https://pkg.go.dev/github.com/onsi/ginkgo/v2/types#Report>.

use std::{io::BufReader, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// What came of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It held.
    Passed,
    /// It did not hold, whatever way it ended.
    Failed,
    /// It said itself that it cannot be run here.
    Skipped,
}

/// A spec that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Its whole name.
    pub spec: String,
    /// What came of it.
    pub state: State,
    /// How long it took.
    pub seconds: f64,
    /// Why it failed or was skipped.
    pub said: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    spec_reports: Option<Vec<SpecReport>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: f64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// The verdicts of a report file: specs that were run or skipped themselves, and suite nodes that failed.
pub fn read(path: &Path) -> Result<Vec<Verdict>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let reports: Vec<Report> =
        serde_json::from_reader(BufReader::new(file)).with_context(|| path.display().to_string())?;
    Ok(verdicts(reports))
}

fn verdicts(reports: Vec<Report>) -> Vec<Verdict> {
    let specs = reports.into_iter().flat_map(|report| report.spec_reports.unwrap_or_default());
    specs.filter_map(verdict).collect()
}

fn verdict(report: SpecReport) -> Option<Verdict> {
    let said = report.failure.map(|failure| failure.message).unwrap_or_default();
    let state = match report.state.as_str() {
        "passed" => State::Passed,
        // One that is not selected is skipped as well, but says nothing.
        "skipped" if said.is_empty() => return None,
        "skipped" => State::Skipped,
        "pending" => return None,
        _ => State::Failed,
    };
    if report.leaf_node_type != "It" && state == State::Passed {
        return None;
    }
    let mut words = report.container_hierarchy_texts.unwrap_or_default();
    words.push(report.leaf_node_text);
    Some(Verdict { spec: words.join(" "), state, seconds: report.run_time / 1e9, said })
}

/// A text as a regular expression of Go's that matches it and nothing else.
#[must_use]
pub fn literally(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_of_specs_that_were_run() {
        let spec = |text: &str, state: &str, said: &str| {
            serde_json::json!({"ContainerHierarchyTexts": ["[sig-network] LoadBalancers"], "LeafNodeType": "It",
                "LeafNodeText": text, "State": state, "RunTime": 1_500_000_000_u64, "Failure": {"Message": said}})
        };
        let suite = |state: &str, said: &str| {
            serde_json::json!({"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite",
                "LeafNodeText": "", "State": state, "Failure": {"Message": said}})
        };
        let text = serde_json::json!([{"SpecReports": [
            suite("passed", ""), spec("works", "passed", ""), spec("is not selected", "skipped", ""),
            spec("needs two nodes", "skipped", "only 1 node"), spec("hangs", "timedout", "too long"),
            suite("failed", "no cluster"),
        ]}]);
        let seen = verdicts(serde_json::from_value(text).unwrap());
        let shown: Vec<_> = seen.iter().map(|v| (v.spec.as_str(), v.state, v.said.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("[sig-network] LoadBalancers works", State::Passed, ""),
                ("[sig-network] LoadBalancers needs two nodes", State::Skipped, "only 1 node"),
                ("[sig-network] LoadBalancers hangs", State::Failed, "too long"),
                ("", State::Failed, "no cluster"),
            ]
        );
        assert!((seen[0].seconds - 1.5).abs() < 1e-9);
    }

    #[test]
    fn signs_of_expressions_are_escaped() {
        assert_eq!(literally("[Slow] a=b (c)"), r"\[Slow\] a=b \(c\)");
    }
}
