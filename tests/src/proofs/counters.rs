//! Counters of frames in the lab's switch, made for one proof and removed with it.

use std::process::Stdio;

use ake_lab::Lab;
use anyhow::{Context, Result};

use crate::output;

/// One nftables table in the switch, a counter per condition.
pub struct Counters<'a> {
    lab: &'a Lab,
    table: String,
    count: usize,
}

impl<'a> Counters<'a> {
    /// Begins counting frames that enter the bridge and meet each condition.
    pub fn start(lab: &'a Lab, name: &str, conditions: &[&str]) -> Result<Self> {
        Self::at(lab, name, "prerouting priority -400", conditions)
    }

    /// Begins counting frames that are about to leave the bridge and meet each condition.
    pub fn leaving(lab: &'a Lab, name: &str, conditions: &[&str]) -> Result<Self> {
        Self::at(lab, name, "postrouting priority 400", conditions)
    }

    fn at(lab: &'a Lab, name: &str, hook: &str, conditions: &[&str]) -> Result<Self> {
        let table = format!("proof-{name}");
        let rules: String = conditions.iter().map(|condition| format!("    {condition} counter\n")).collect();
        let text = format!(
            "table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n  chain seen {{\n    \
             type filter hook {hook};\n{rules}  }}\n}}\n"
        );
        let mut child = lab.command("switch", "nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("nft without an input")?, text.as_bytes())?;
        anyhow::ensure!(child.wait()?.success(), "nft refused:\n{text}");
        Ok(Self { lab, table, count: conditions.len() })
    }

    /// Frames so far, condition by condition.
    pub fn read(&self) -> Result<Vec<u64>> {
        let text =
            output(self.lab.command("switch", "nft").args(["-j", "list", "table", "bridge", &self.table]))?;
        let read: serde_json::Value = serde_json::from_str(&text)?;
        let counts: Vec<u64> = read["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["rule"]["expr"].as_array())
            .filter_map(|expressions| expressions.iter().find_map(|e| e["counter"]["packets"].as_u64()))
            .collect();
        anyhow::ensure!(
            counts.len() == self.count,
            "{} counters were made, {} read",
            self.count,
            counts.len()
        );
        Ok(counts)
    }
}

impl Drop for Counters<'_> {
    fn drop(&mut self) {
        let _ = self.lab.command("switch", "nft").args(["delete", "table", "bridge", &self.table]).output();
    }
}
