//! `docs/reference/performance.md`: sections, each replaced by the run that measured it.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result};

use crate::measure::Row;

const HEAD: &str =
    "# Performance\n\nWritten by `make bench`: each section by the last run that measured it.\n";

/// What was measured together.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What was measured, where and how, for the reader.
    pub text: &'static str,
    /// What came out.
    pub rows: Vec<Row>,
}

impl Section {
    fn markdown(&self) -> String {
        let mut text =
            format!("## {}\n\n{}\n\n| what | measured | aim |\n|---|---|---|\n", self.title, self.text);
        for row in &self.rows {
            // writing to a String cannot fail
            let _ = writeln!(text, "| {} | {} | {} |", row.what, row.measured, row.aim);
        }
        text
    }
}

/// A page with a section put in its place, or at the end.
#[must_use]
pub fn with(page: &str, section: &Section) -> String {
    let mut parts: Vec<String> =
        page.split("\n## ").skip(1).map(|part| format!("## {}", part.trim_end())).collect();
    let new = section.markdown().trim_end().to_owned();
    let begin = format!("## {}\n", section.title);
    match parts.iter_mut().find(|part| part.starts_with(&begin)) {
        Some(part) => *part = new,
        None => parts.push(new),
    }
    parts.iter().fold(HEAD.to_owned(), |page, part| format!("{page}\n{part}\n"))
}

/// Puts a section into the page of a checkout, and prints it.
pub fn write(checkout: &Path, section: &Section) -> Result<()> {
    for row in &section.rows {
        println!("{:60} {:60} {}", row.what, row.measured, row.aim);
    }
    let path = checkout.join("docs/reference/performance.md");
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    std::fs::write(&path, with(&page, section)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_one_before() {
        let section =
            |title, measured: &str| Section { title, text: "How.", rows: vec![Row::new("a", measured, "")] };
        let both = with(&with("# Old\n\n| no | sections |\n", &section("One", "1")), &section("Two", "2"));
        assert_eq!(with(&both, &section("Two", "2")), both);
        let changed = with(&both, &section("One", "3"));
        assert_eq!(changed, both.replace("| a | 1 |", "| a | 3 |"));
        assert!(changed.starts_with(HEAD) && changed.ends_with("| a | 2 |  |\n"), "{changed}");
    }
}
