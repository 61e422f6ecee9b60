//! Compiles the programs in bpf/ with Debian's clang, and names the layout of the
//! tables that survive a restart.

use std::{
    collections::hash_map::DefaultHasher, env, fs, hash::Hasher as _, io, path::Path, process::Command,
};

/// What a process must know of flows and counters to take those of another one over.
const SURVIVING: [&str; 7] =
    ["flow_key", "flow", "bucket", "bucket_keys", "traffic", "listener_key", "port_drop_key"];

/// Its loads stay in order, and so do its stores, which bpf/flows.h needs.
const ORDERED: &str = "x86_64";

fn main() {
    let processor = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if processor != ORDERED {
        return println!(
            "cargo::error=ake-xdp for {processor}: expected {ORDERED}: its flow table relies on that one's order \
             of loads and of stores"
        );
    }
    // where a flow stands in its table, and what it is called there, is as good as a structure
    let read = |file| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    let layout = read("bpf/layout.h").and_then(|structures| layout(&structures, &read("bpf/print.h")?));
    match layout {
        Ok(layout) => println!("cargo::rustc-env=AKE_XDP_LAYOUT={layout:016x}"),
        Err(error) => return println!("cargo::error={error}"),
    }
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=BPF_CLANG");
    let Ok(out) = env::var("OUT_DIR") else { return println!("cargo::error=OUT_DIR is not set") };
    for name in ["balancer", "probe", "bench"] {
        let source = format!("bpf/{name}.bpf.c");
        if let Err(lines) = compile(&source, &Path::new(&out).join(format!("{name}.bpf.o"))) {
            return lines.iter().for_each(|line| println!("cargo::error={line}"));
        }
    }
}

fn compile(source: &str, object: &Path) -> Result<(), Vec<String>> {
    let named = env::var("BPF_CLANG").ok();
    let candidates = named.as_deref().map_or(vec!["clang-14", "clang"], |clang| vec![clang]);
    for clang in &candidates {
        // The kernel's headers include <asm/types.h>, which Debian keeps in a folder per architecture.
        let multiarch = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
        let run = Command::new(clang)
            .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3"])
            .args(["-idirafter", &multiarch, "-c", source, "-o"])
            .arg(object)
            .output();
        match run {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(vec![format!("{clang}: {error}")]),
            Ok(run) if run.status.success() => return Ok(()),
            Ok(run) => {
                let mut lines: Vec<String> =
                    String::from_utf8_lossy(&run.stderr).lines().map(str::to_owned).collect();
                lines.push(format!(
                    "{clang} could not compile {source}; it needs Debian's packages libbpf-dev \
                     (bpf/bpf_helpers.h) and linux-libc-dev (linux/bpf.h)"
                ));
                return Err(lines);
            }
        }
    }
    Err(vec![format!(
        "{source} needs a clang with the BPF target: none of {} found; install Debian's packages clang-14 \
         and libbpf-dev, or name one in BPF_CLANG",
        candidates.join(", ")
    )])
}

/// A number of the structures that survive, and of the rules for prints: the same for the same text, comments and white
/// space aside.
fn layout(header: &str, prints: &str) -> Result<u64, String> {
    let mut hasher = DefaultHasher::new();
    for name in SURVIVING {
        let begin = format!("\nstruct {name} {{");
        let (_, rest) = header.split_once(&begin).ok_or_else(|| format!("no struct {name}"))?;
        let (body, _) = rest.split_once("\n}").ok_or_else(|| format!("struct {name} has no end"))?;
        hasher.write(format!("{name} {}", bare(body)?).as_bytes());
    }
    hasher.write(bare(prints)?.as_bytes());
    Ok(hasher.finish())
}

/// Code without comments, its words one space apart.
fn bare(code: &str) -> Result<String, String> {
    let mut code = String::from(code);
    while let Some((before, comment)) = code.split_once("/*") {
        let (_, after) = comment.split_once("*/").ok_or("a comment without an end")?;
        code = format!("{before}{after}");
    }
    Ok(code.split_whitespace().collect::<Vec<_>>().join(" "))
}
