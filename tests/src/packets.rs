//! Nanoseconds per packet of the balancer's data plane, as `lb-driver/xdp/benches/packets.rs` measures them.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{checkout, measure::Row, output, page::Section};

#[derive(Deserialize)]
struct Line {
    what: String,
    unit: String,
    least: f64,
    middle: f64,
    most: f64,
    times: u32,
    aim: Option<f64>,
}

impl Line {
    fn row(&self) -> Row {
        let Self { what, unit, least, middle, most, times, aim } = self;
        let measured = format!("{middle:.2} {unit} (minimum {least:.2}, maximum {most:.2}, {times} times)");
        Row::new(what, measured, aim.map(|aim| format!("{aim:.1} {unit}")).unwrap_or_default())
    }
}

/// Measures them; takes about a minute.
pub fn measure() -> Result<Section> {
    let mut command = Command::new("cargo");
    command.args(["bench", "--quiet", "--profile", "dev", "--package", "ake-xdp", "--bench", "packets"]);
    let printed = output(command.current_dir(checkout()))?;
    let rows = printed.lines().map(|line| {
        let line: Line = serde_json::from_str(line).with_context(|| format!("no row: {line}"))?;
        Ok(line.row())
    });
    Ok(Section {
        title: "Packets",
        text: "Nanoseconds per packet of the balancer's data plane, by `BPF_PROG_TEST_RUN` on one processor: 1,000 VIPs of each \
               family with two ports, a pool of 100 members, the flow table of the default configuration. The limit is a program that only rewrites the \
               MAC addresses; it and ours run in turns of 10,000 packets, and ratios (x) are of neighbouring turns. Where flows vary, a \
               program before both makes each packet another flow's.",
        rows: rows.collect::<Result<_>>()?,
    })
}
