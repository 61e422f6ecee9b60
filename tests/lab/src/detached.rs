//! Programs of the lab that run in the background: started, found again by another `ake-lab`, ended.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cage::Cage;
use crate::shell;

/// How long a program may take to end after SIGTERM before it is killed.
const STOP: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(30);

/// Starts what is written in `"$@"` in a session of its own, its output appended to `$0`, and tells its pid and
/// when it was born. The process is a shell's child, so that it does not end with the one that asked for it.
const START: &str = r#"
setsid "$@" >>"$0" 2>&1 </dev/null &
pid=$!
read -r stat </proc/$pid/stat
set -- ${stat##*) }
echo $pid ${20}
"#;

/// The process of the program `name`, as the cage numbers it, if it runs.
pub fn pid(cage: &Cage, name: &str) -> Option<String> {
    let text = fs::read_to_string(file(cage, name)).ok()?;
    let (pid, born) = text.trim().split_once(' ')?;
    let stat = shell::output(cage.command(None, "cat").arg(format!("/proc/{pid}/stat"))).ok()?;
    let stat = String::from_utf8_lossy(&stat.stdout).into_owned();
    let fields: Vec<&str> = stat.trim_end().rsplit_once(") ")?.1.split(' ').collect();
    (fields.first() != Some(&"Z") && fields.get(19) == Some(&born)).then(|| pid.to_owned())
}

/// Starts a command of the cage in the background; what it says goes to the log `name`.
pub fn start(cage: &Cage, netns: &str, name: &str, program: &std::path::Path, args: &[&str]) -> Result<()> {
    let log = cage.dirs().log().join(format!("{name}.log"));
    let mut shell = cage.command(Some(netns), "sh");
    shell.env("NO_COLOR", "1").args(["-c", START]).arg(&log).arg(program).args(args);
    let born = shell::run(&mut shell)?;
    fs::write(file(cage, name), born).with_context(|| format!("cannot note down the process of {name}"))
}

/// Ends programs: asks first, and kills after a while.
pub fn stop(cage: &Cage, names: &[&str]) -> Result<()> {
    for signal in ["-TERM", "-KILL"] {
        let deadline = Instant::now() + STOP;
        let pids: Vec<String> = names.iter().filter_map(|name| pid(cage, name)).collect();
        if pids.is_empty() {
            return Ok(());
        }
        // one that ended meanwhile is no failure
        shell::output(cage.command(None, "kill").arg(signal).args(&pids))?;
        while names.iter().any(|name| pid(cage, name).is_some()) {
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    match names.iter().find(|name| pid(cage, name).is_some()) {
        Some(name) => bail!("{name} does not end, not even when killed"),
        None => Ok(()),
    }
}

/// Sends a signal to a program, by the name that `kill` knows.
pub fn signal(cage: &Cage, name: &str, signal: &str) -> Result<()> {
    let pid = pid(cage, name).with_context(|| format!("{name} does not run"))?;
    let mut kill: Command = cage.command(None, "kill");
    shell::run(kill.arg(format!("-{signal}")).arg(pid))?;
    Ok(())
}

fn file(cage: &Cage, name: &str) -> PathBuf {
    cage.dirs().run().join(format!("{name}.pid"))
}
