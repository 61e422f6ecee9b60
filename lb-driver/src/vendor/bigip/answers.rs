//! What an answer means: done, again, log in, or no.

use super::replies::Problem;

/// What an answer means for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was done.
    Done,
    /// The token is no longer known; nothing was done.
    LogIn,
    /// The device is busy or begins; nothing was done.
    Busy(String),
    /// The device failed on the way; what was asked may have been done.
    Doubtful(String),
    /// What is named is not there.
    Absent(String),
    /// No, and it will be no again.
    Refused(String),
}

/// Text of an error page that is worth showing.
const LONGEST: usize = 300;

/// Reads an answer. Exactly these are worth repeating: 429, 502, 503, 504; a 404 of a path that is not
/// registered yet, which is how the REST daemon answers while it starts; a 500 that says that the
/// configuration daemon was lost, or that the web server gave up waiting.
pub(super) fn verdict(status: u16, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(body);
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let message = if problem.message.is_empty() { page(&text) } else { problem.message };
    let said = format!("{status}: {message}");
    match status {
        200..=299 => Verdict::Done,
        401 if message.contains("X-F5-Auth-Token") || message.contains("token detected") => Verdict::LogIn,
        404 if message.contains("URI path") && message.contains("not registered") => Verdict::Busy(said),
        404 => Verdict::Absent(message),
        429 | 503 => Verdict::Busy(said),
        502 | 504 => Verdict::Doubtful(said),
        500 if message.contains("connection to mcpd has been lost")
            || message.contains("AsyncContext timeout") =>
        {
            Verdict::Doubtful(said)
        }
        400 if message.contains("maximum active login tokens") => Verdict::Busy(said),
        _ => Verdict::Refused(message),
    }
}

/// A page of HTML without its marks.
fn page(text: &str) -> String {
    let mut bare = String::new();
    let mut inside = false;
    for letter in text.chars() {
        match letter {
            '<' => inside = true,
            '>' => {
                inside = false;
                bare.push(' ');
            }
            letter if !inside => bare.push(letter),
            _ => {}
        }
    }
    let mut words = bare.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.len() > LONGEST {
        let cut = (0..=LONGEST).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
        words.truncate(cut);
    }
    if words.is_empty() { "no text".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_these_answers_are_repeated() {
        let error = |message: &str| format!(r#"{{"code":0,"message":"{message}"}}"#);
        for (status, body, expected) in [
            (200, "{}".to_owned(), "done"),
            (401, error("X-F5-Auth-Token does not exist."), "log in"),
            (
                401,
                error("Authorization failed: no user authentication header or token detected. Uri:x"),
                "log in",
            ),
            (401, error("Authentication failed."), "refused"),
            (401, error("Maximum number of login attempts exceeded."), "refused"),
            (403, error("Forbidden"), "refused"),
            (400, error("user ake has reached maximum active login tokens"), "busy"),
            (400, error("01070734:3: Configuration error"), "refused"),
            (404, error("01020036:3: The requested Pool (/P/x) was not found."), "absent"),
            (404, error("Public URI path not registered: /shared/authn/login"), "busy"),
            (404, error("URI path /mgmt/tm/ltm not registered. Please verify"), "busy"),
            (409, error("01020066:3: The requested Pool (/P/x) already exists in partition P."), "refused"),
            (429, String::new(), "busy"),
            (500, error("The connection to mcpd has been lost, try again."), "doubtful"),
            (500, "<html><h1>AsyncContext timeout</h1></html>".to_owned(), "doubtful"),
            (500, error("java.lang.NullPointerException"), "refused"),
            (502, String::new(), "doubtful"),
            (503, "<body>Configuration Utility restarting...</body>".to_owned(), "busy"),
            (504, String::new(), "doubtful"),
        ] {
            let verdict = verdict(status, body.as_bytes());
            let word = match verdict {
                Verdict::Done => "done",
                Verdict::LogIn => "log in",
                Verdict::Busy(_) => "busy",
                Verdict::Doubtful(_) => "doubtful",
                Verdict::Absent(_) => "absent",
                Verdict::Refused(_) => "refused",
            };
            assert_eq!(word, expected, "{status} {body}");
        }
    }

    #[test]
    fn a_page_is_told_without_its_marks() {
        let page =
            "<html><head><title>503</title></head><body>Configuration Utility restarting...</body></html>";
        assert_eq!(
            verdict(503, page.as_bytes()),
            Verdict::Busy("503: 503 Configuration Utility restarting...".into())
        );
    }
}
