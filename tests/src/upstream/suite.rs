//! Which of Kubernetes' own tests a target runs: a file in `tests/upstream`.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::ginkgo::{State, Verdict};
use crate::checkout;

/// The file of a suite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Regular expression that selects its specs.
    pub focus: String,
    /// How many passed in the last whole run, by the cluster's families.
    #[serde(default)]
    pub passes: BTreeMap<String, usize>,
    /// Specs that cannot pass here.
    #[serde(default)]
    pub skip: Vec<Skip>,
}

/// A spec that is not run, or that skips itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Its whole name.
    pub spec: String,
    /// The clusters' families that it is for; all if none is named.
    #[serde(default)]
    pub families: Vec<String>,
    /// Upstream's or the kernel's reason.
    pub reason: String,
}

impl Suite {
    /// The suite of that name, for a cluster of these families.
    pub fn read(name: &str, families: &str) -> Result<Self> {
        let path = checkout().join(format!("tests/upstream/{name}.toml"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut suite: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        if let Some(skip) = suite.skip.iter().find(|skip| skip.reason.trim().is_empty()) {
            bail!("{}: skip {:?}: reason = \"\": expected why", path.display(), skip.spec);
        }
        suite.skip.retain(|skip| skip.families.is_empty() || skip.families.iter().any(|of| of == families));
        Ok(suite)
    }

    /// Reasons by spec.
    #[must_use]
    pub fn skipped(&self) -> BTreeMap<&str, &str> {
        self.skip.iter().map(|skip| (skip.spec.as_str(), skip.reason.as_str())).collect()
    }

    /// A spec that skips itself must be on the list: else a run that does nothing would pass.
    #[must_use]
    pub fn judge(&self, verdict: Verdict) -> Verdict {
        if verdict.state != State::Skipped || self.skipped().contains_key(verdict.spec.as_str()) {
            return verdict;
        }
        let said = format!("it skipped itself, and is not on the list of those that may: {}", verdict.said);
        Verdict { state: State::Failed, said, ..verdict }
    }
}

/// A part of a suite: the `number`th of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("SHARD: {text:?}: expected i/n with i from 1 to n")),
        }
    }
}

impl Shard {
    /// Its specs: every n-th, so that neighbours, which take about as long, are spread.
    #[must_use]
    pub fn of<T>(self, specs: Vec<T>) -> Vec<T> {
        let mine = specs.into_iter().enumerate().filter(|(index, _)| index % self.of == self.number - 1);
        mine.map(|(_, spec)| spec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_every_spec_once() {
        let all: Vec<u32> = (0..17).collect();
        let mut seen: Vec<u32> = (1..=5)
            .flat_map(|number| format!("{number}/5").parse::<Shard>().unwrap().of(all.clone()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, all);
        for wrong in ["", "0/3", "4/3", "a/b", "1"] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("expected i/n"), "{wrong}");
        }
    }

    #[test]
    fn only_listed_specs_may_skip_themselves() {
        let suite: Suite =
            toml::from_str("focus = 'x'\n[[skip]]\nspec = 'a'\nreason = 'the kernel has no SCTP'\n").unwrap();
        let skipped = |spec: &str| Verdict {
            spec: spec.into(),
            state: State::Skipped,
            seconds: 0.0,
            said: "no".into(),
        };
        assert_eq!(suite.judge(skipped("a")).state, State::Skipped);
        assert_eq!(suite.judge(skipped("b")).state, State::Failed);
    }

    #[test]
    fn the_suites_of_the_repository_can_be_read() {
        for entry in std::fs::read_dir(checkout().join("tests/upstream")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let (one, two) = (Suite::read(name, "IPv4").unwrap(), Suite::read(name, "IPv4,IPv6").unwrap());
            assert!(one.skip.len() <= two.skip.len(), "{name}");
        }
    }
}
