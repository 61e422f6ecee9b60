//! Running programs and telling what went wrong.

use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed program's output stands in the error.
const TAIL: usize = 2000;

/// Runs a command to its end and gives its standard output; a failure names the command and what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{}: {}\n{}", line(command), output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever that is.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))
}

/// The end of what a program said, standard error first of all.
pub fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    tail(&text, TAIL).to_owned()
}

/// The last `most` bytes of a text, beginning with a whole line where there is one.
pub fn tail(text: &str, most: usize) -> &str {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let cut = &text[from..];
    match cut.find('\n') {
        Some(end) if from > 0 => &cut[end + 1..],
        _ => cut,
    }
}

/// A command as one would type it.
pub fn line(command: &Command) -> String {
    words(
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned()),
    )
}

/// Words as one would type them.
pub fn words(words: impl IntoIterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(&word);
        } else {
            // writing to a string cannot fail
            let _ = write!(line, "'{}'", word.replace('\'', r"'\''"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let failed = run(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"])).unwrap_err();
        let text = failed.to_string();
        assert!(text.contains("sh -c 'echo out; echo why >&2; exit 3'"), "{text}");
        assert!(text.contains("exit status: 3") && text.ends_with("why"), "{text}");
    }

    #[test]
    fn a_tail_begins_with_a_whole_line_and_a_whole_letter() {
        assert_eq!(tail("one\ntwo\nthree", 7), "three");
        assert_eq!(tail("ééé", 3), "é");
        assert_eq!(tail("all", 10), "all");
    }

    #[test]
    fn quotes_survive_the_shell() {
        let text = words(["printf".into(), "%s".into(), "it's $x".into()]);
        assert_eq!(run(Command::new("sh").args(["-c", &text])).unwrap(), "it's $x");
    }
}
