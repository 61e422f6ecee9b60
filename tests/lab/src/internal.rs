//! The hidden commands of `ake-lab`: what the lab's own processes run when it starts itself again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{Dirs, cage, disk, machine, metadata};

/// The lab whose process this is, by the environment that [`cage::Cage::command`] gives.
pub fn own_dirs() -> Result<Dirs> {
    let name = std::env::var("AKE_LAB_NAME").context("AKE_LAB_NAME is not set: not a process of a lab")?;
    Dirs::of(&name)
}

/// Runs a hidden command if the arguments name one.
pub fn dispatch(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != "internal" {
        return None;
    }
    let args: Vec<OsString> = args.collect();
    Some(run(&args).unwrap_or_else(|error| {
        eprintln!("ake-lab: {error:#}");
        ExitCode::FAILURE
    }))
}

fn run(args: &[OsString]) -> Result<ExitCode> {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    match words.as_slice() {
        ["cage-init", state] => cage::init(&PathBuf::from(state))?,
        ["machine", server] => return machine::boot::supervise(&own_dirs()?, server),
        ["enter", server, command @ ..] => machine::enter(&own_dirs()?, server, command)?,
        ["leader", server] => println!("{}", machine::leader_here(&own_dirs()?, server)?),
        ["disk-hold", file, note] => disk::hold(&PathBuf::from(file), &PathBuf::from(note))?,
        ["metadata", upstream, secret] => metadata::serve(&own_dirs()?, upstream, secret)?,
        other => bail!("internal {other:?}: no such command"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hidden_commands_are_taken() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(dispatch(words(&["ake-lab", "up"])).is_none());
        assert!(dispatch(words(&["ake-lab"])).is_none());
        assert!(dispatch(words(&["ake-lab", "internal", "nonsense"])).is_some());
    }
}
