//! Compiles the data plane, bpf/balancer.bpf.c, with Debian's clang.

use std::{env, io, path::PathBuf, process::Command};

fn main() {
    let source = "bpf/balancer.bpf.c";
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=BPF_CLANG");
    let Ok(out) = env::var("OUT_DIR") else { return println!("cargo::error=OUT_DIR is not set") };
    let object = PathBuf::from(out).join("balancer.bpf.o");
    let named = env::var("BPF_CLANG").ok();
    let candidates = named.as_deref().map_or(vec!["clang-14", "clang"], |clang| vec![clang]);
    for clang in &candidates {
        // The kernel's headers include <asm/types.h>, which Debian keeps in a folder per architecture.
        let multiarch = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
        let run = Command::new(clang)
            .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3"])
            .args(["-idirafter", &multiarch, "-c", source, "-o"])
            .arg(&object)
            .output();
        match run {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return println!("cargo::error={clang}: {error}"),
            Ok(run) if run.status.success() => return,
            Ok(run) => {
                let text = String::from_utf8_lossy(&run.stderr);
                text.lines().for_each(|line| println!("cargo::error={line}"));
                return println!(
                    "cargo::error={clang} could not compile {source}; it needs Debian's packages \
                     libbpf-dev (bpf/bpf_helpers.h) and linux-libc-dev (linux/bpf.h)"
                );
            }
        }
    }
    println!(
        "cargo::error={source} needs a clang with the BPF target: none of {} found; \
         install Debian's packages clang-14 and libbpf-dev, or name one in BPF_CLANG",
        candidates.join(", ")
    );
}
