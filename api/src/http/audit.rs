//! The trail: one line of JSON per write, refused ones too.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    net::IpAddr,
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

use crate::decide::access::Caller;

/// The file of the trail.
pub struct Audit {
    file: Mutex<File>,
}

/// A write that was answered.
pub(super) struct Entry<'a> {
    pub(super) request: &'a str,
    pub(super) peer: Option<IpAddr>,
    pub(super) caller: Option<&'a Caller>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) status: u16,
    pub(super) reason: Option<&'a str>,
}

impl Audit {
    /// Opens the file; lines are added at its end.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Opens the file anew, where it was moved away. If that fails, the old one is written on.
    pub fn reopen(&self, path: &Path) -> std::io::Result<()> {
        let Self { file } = Self::open(path)?;
        let file = file.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    pub(super) fn write(&self, entry: &Entry<'_>) {
        let line = line(&jiff::Timestamp::now().to_string(), entry);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::error!(%error, line, "the audit log cannot be written");
        }
    }
}

fn line(time: &str, entry: &Entry<'_>) -> String {
    let Entry { request, peer, caller, method, path, status, reason } = entry;
    let line = json!({
        "time": time,
        "request": request,
        "peer": peer,
        "user": caller.map(|c| &c.user),
        "project": caller.map(|c| &c.project),
        "trust": caller.and_then(|c| c.trust.as_ref()),
        "application_credential": caller.and_then(|c| c.credential.as_ref()),
        "method": method,
        "path": path,
        "status": status,
        "outcome": if *status < 400 { "done" } else { "refused" },
        "reason": reason,
    });
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_did_what_with_which_outcome() {
        let caller = Caller {
            user: "u".into(),
            project: "p".into(),
            roles: vec![],
            credential: Some("c".into()),
            rules: None,
            trust: None,
        };
        let entry = Entry {
            request: "req-1",
            peer: Some("192.0.2.9".parse().unwrap()),
            caller: Some(&caller),
            method: "PUT",
            path: "/v1/clusters/x",
            status: 409,
            reason: Some("two\nlines"),
        };
        let line = line("2026-01-01T00:00:00Z", &entry);
        assert_eq!(line.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["application_credential"], "c");
        assert_eq!((&read["outcome"], &read["request"]), (&json!("refused"), &json!("req-1")));
    }
}
