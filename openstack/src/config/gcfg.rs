//! cloud.conf's language: the dialect of git's configuration that Go's gcfg reads.
//!
//! `#` and `;` begin a comment anywhere outside quotes. A value may mix quoted and unquoted parts; escapes are
//! `\\`, `\"`, `\n` and `\t`, and a backslash before the line's end continues the line. A key without `=` is
//! true. Keys and section names know no case, and `_` is `-`. A repeated key is a list.

use std::{iter::Peekable, str::Chars};

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In lower case.
    pub section: String,
    /// What stands in quotes behind the section's name, as written.
    pub subsection: Option<String>,
    /// In lower case, with `-` for `_`.
    pub key: String,
    /// `None` for a key without `=`.
    pub value: Option<String>,
    /// Where it stands, from 1.
    pub line: usize,
}

/// What is wrong with the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {found}: expected {expected}")]
pub struct SyntaxError {
    /// Where, from 1.
    pub line: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

/// Reads the text.
pub fn parse(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut reader = Reader { chars: text.trim_start_matches('\u{feff}').chars().peekable(), line: 1 };
    let mut entries = Vec::new();
    let mut section: Option<(String, Option<String>)> = None;
    loop {
        reader.skip_space();
        match reader.chars.peek() {
            None => return Ok(entries),
            Some('\n') => {
                reader.next();
            }
            Some('#' | ';') => reader.skip_comment(),
            Some('[') => section = Some(reader.section()?),
            Some(_) => {
                let line = reader.line;
                let key = reader.word();
                if key.is_empty() {
                    return Err(reader.wrong("a [section], a key or a comment"));
                }
                let value = reader.value(&key)?;
                let Some((section, subsection)) = section.clone() else {
                    let found = format!("{key:?} outside of any section");
                    return Err(SyntaxError { line, found, expected: "a [section] before the first key" });
                };
                entries.push(Entry { section, subsection, key: canonical(&key), value, line });
            }
        }
    }
}

/// A truth value as gcfg knows them; `None` if it is something else.
#[must_use]
pub fn truth(value: Option<&str>) -> Option<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "yes" | "on" | "1") => Some(true),
        Some("false" | "no" | "off" | "0") => Some(false),
        Some(_) => None,
    }
}

fn canonical(word: &str) -> String {
    word.to_lowercase().replace('_', "-")
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn skip_space(&mut self) {
        while self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
    }

    fn skip_comment(&mut self) {
        while self.chars.next_if(|c| *c != '\n').is_some() {}
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
            word.push(c);
        }
        word
    }

    /// An error about what stands here.
    fn wrong(&mut self, expected: &'static str) -> SyntaxError {
        let found = match self.chars.peek() {
            None => "the end of the file".to_owned(),
            Some('\n') => "the end of the line".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        SyntaxError { line: self.line, found, expected }
    }

    /// `[name]` or `[name "sub"]`.
    fn section(&mut self) -> Result<(String, Option<String>), SyntaxError> {
        self.next();
        self.skip_space();
        let name = self.word();
        if name.is_empty() {
            return Err(self.wrong("a section's name behind ["));
        }
        self.skip_space();
        let mut subsection = None;
        if self.chars.peek() == Some(&'"') {
            self.next();
            subsection = Some(self.quoted()?);
            self.skip_space();
        }
        if self.chars.peek() != Some(&']') {
            return Err(self.wrong("] behind the section's name"));
        }
        self.next();
        self.skip_space();
        match self.chars.peek() {
            None | Some('\n' | '#' | ';') => Ok((canonical(&name), subsection)),
            Some(_) => Err(self.wrong("nothing behind ]")),
        }
    }

    /// A subsection's name up to its closing quote.
    fn quoted(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        loop {
            match self.chars.peek() {
                None | Some('\n') => return Err(self.wrong("a closing quote")),
                Some('"') => {
                    self.next();
                    return Ok(text);
                }
                Some('\\') => {
                    self.next();
                    text.push(self.escape(false)?.unwrap_or_default());
                }
                Some(_) => text.extend(self.next()),
            }
        }
    }

    /// What a backslash stands for, or nothing if it continues the line.
    fn escape(&mut self, may_continue: bool) -> Result<Option<char>, SyntaxError> {
        if may_continue {
            self.chars.next_if_eq(&'\r');
        }
        let meaning = match self.chars.peek() {
            Some('\\') => '\\',
            Some('"') => '"',
            Some('n') => '\n',
            Some('t') => '\t',
            Some('\n') if may_continue => {
                self.next();
                return Ok(None);
            }
            _ => return Err(self.wrong(r#"\\, \", \n, \t or the line's end behind a backslash"#)),
        };
        self.next();
        Ok(Some(meaning))
    }

    /// What stands behind a key, to the end of its line.
    fn value(&mut self, key: &str) -> Result<Option<String>, SyntaxError> {
        self.skip_space();
        match self.chars.peek() {
            None | Some('\n' | '#' | ';') => return Ok(None),
            Some('=') => {
                self.next();
                self.skip_space();
            }
            Some(_) => {
                let mut error = self.wrong("= behind the key");
                error.found = format!("{key:?} followed by {}", error.found);
                return Err(error);
            }
        }
        let begun = self.line;
        let (mut text, mut kept, mut quoted) = (String::new(), 0, false);
        loop {
            match self.chars.peek().copied() {
                None | Some('\n') if quoted => {
                    let found = format!("the value of {key:?}");
                    return Err(SyntaxError { line: begun, found, expected: "a closing quote" });
                }
                None | Some('\n' | '#' | ';') if !quoted => break,
                Some('"') => {
                    self.next();
                    quoted = !quoted;
                    kept = text.len();
                }
                Some('\\') => {
                    self.next();
                    if let Some(c) = self.escape(!quoted)? {
                        text.push(c);
                        kept = text.len();
                    }
                }
                Some(c) => {
                    self.next();
                    text.push(c);
                    if quoted || !matches!(c, ' ' | '\t' | '\r') {
                        kept = text.len();
                    }
                }
                None => break,
            }
        }
        // White space before a comment or the line's end is not the value's.
        text.truncate(kept);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, Option<String>)> {
        parse(text).unwrap().into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    fn one(line: &str) -> Option<String> {
        values(&format!("[g]\n{line}\n")).remove(0).1
    }

    #[test]
    fn the_dialect() {
        for (line, value) in [
            ("k = plain words", Some("plain words")),
            ("k=v  # a comment", Some("v")),
            ("k=v; another", Some("v")),
            (r#"k = "pa#ss;w\"o\\rd" # real"#, Some(r#"pa#ss;w"o\rd"#)),
            (r#"k = a" b "c"#, Some("a b c")),
            (r#"k = "trailing  " "#, Some("trailing  ")),
            ("k = one \\\n two", Some("one  two")),
            ("k", None),
            ("k # blank", None),
            ("k =", Some("")),
            (r#"k = "tab\there""#, Some("tab\there")),
        ] {
            assert_eq!(one(line).as_deref(), value, "{line}");
        }
    }

    #[test]
    fn names() {
        let entries =
            parse("[Load_Balancer \"My Class\"]\nSubnet_ID = x\nsubnet-id = y\r\n[AKE]\r\nA=b\r\n").unwrap();
        assert_eq!(entries[0].section, "load-balancer");
        assert_eq!(entries[0].subsection.as_deref(), Some("My Class"));
        assert_eq!((entries[0].key.as_str(), entries[1].key.as_str()), ("subnet-id", "subnet-id"));
        assert_eq!((entries[2].value.as_deref(), entries[2].line), (Some("b"), 5));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, message) in [
            ("a = b", r#"line 1: "a" outside of any section: expected a [section] before the first key"#),
            ("[g]\n\nk = \"open\n", r#"line 3: the value of "k": expected a closing quote"#),
            ("[g\n", "line 1: the end of the line: expected ] behind the section's name"),
            ("[g]\nk v", r#"line 2: "k" followed by 'v': expected = behind the key"#),
            ("[g]\n= v", "line 2: '=': expected a [section], a key or a comment"),
            ("[g]\nk = \\x", r#"line 2: 'x': expected \\, \", \n, \t or the line's end behind a backslash"#),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    fn quote(value: &str) -> String {
        let escaped =
            value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").replace('\t', r"\t");
        format!("\"{escaped}\"")
    }

    proptest::proptest! {
        #[test]
        fn any_value_survives_quoting(value in "\\PC{0,40}") {
            proptest::prop_assert_eq!(one(&format!("k = {} # c", quote(&value))), Some(value));
        }

        #[test]
        fn plain_values_need_no_quotes(value in "[A-Za-z0-9./:_-]([A-Za-z0-9 ./:_-]{0,20}[A-Za-z0-9./:_-])?") {
            proptest::prop_assert_eq!(one(&format!("k={value}")), Some(value));
        }

        #[test]
        fn never_panics(text in "[\\[\\]\"\\\\#;=a-z \n\r\t]{0,60}") {
            let _ = parse(&text);
        }
    }
}
