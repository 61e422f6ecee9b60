//! Traffic as `ake-probe` sends it, and what came of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a loop of requests met.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    /// Requests sent.
    pub sent: u32,
    /// Requests without a good answer.
    pub lost: u32,
    /// Seconds from the start to the end of the first request that failed.
    pub first_lost: Option<f64>,
    /// Seconds from the start to the end of the last request that failed.
    pub last_lost: Option<f64>,
    /// The last complaint.
    pub complaint: Option<String>,
}

impl Loop {
    /// Seconds from the first failure until none fails.
    #[must_use]
    pub fn seconds_of_loss(&self) -> f64 {
        match (self.first_lost, self.last_lost) {
            (Some(first), Some(last)) => last - first,
            _ => 0.0,
        }
    }

    /// Notes one request's end.
    fn note(&mut self, at: f64, answer: Result<(), String>) {
        self.sent += 1;
        if let Err(complaint) = answer {
            self.lost += 1;
            self.first_lost.get_or_insert(at);
            self.last_lost = Some(at);
            self.complaint = Some(complaint);
        }
    }
}

/// Answers by what they said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How often each answer came.
    pub answers: std::collections::BTreeMap<String, u32>,
    /// Connections without a good answer.
    pub lost: u32,
}

/// Round trips, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The fastest.
    pub minimum: f64,
    /// Half are faster.
    pub median: f64,
    /// Of 100, 99 are faster.
    pub p99: f64,
    /// How many were measured.
    pub count: usize,
}

/// One GET over a connection of its own; the body.
pub fn get(target: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(|e| format!("connect: {e}"))?;
    let said = |e: std::io::Error| format!("answer: {e}");
    stream.set_read_timeout(Some(PATIENCE)).map_err(said)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(said)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").map_err(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(said)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("answer: no end of header")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("answer: status {}", status.unwrap_or("none"))),
    }
}

/// Requests at a steady pace until `length` has passed or `stop` says so.
pub fn request_loop(
    target: SocketAddr,
    path: &str,
    pace: Duration,
    length: Duration,
    mut stop: impl FnMut() -> bool,
) -> Loop {
    let started = Instant::now();
    let mut seen = Loop::default();
    while started.elapsed() < length && !stop() {
        let begun = Instant::now();
        let answer = get(target, path).map(drop);
        seen.note(started.elapsed().as_secs_f64(), answer);
        std::thread::sleep(pace.saturating_sub(begun.elapsed()));
    }
    seen
}

/// Asks until there is a good answer; the moment it came, in seconds of the Unix epoch.
pub fn first_answer(target: SocketAddr, path: &str, length: Duration) -> Result<f64, String> {
    let end = Instant::now() + length;
    // A SYN that meets nobody is not sent again for a second, so each try is short and its own.
    let patience = Duration::from_millis(100);
    loop {
        let met = TcpStream::connect_timeout(&target, patience).is_ok().then(|| get(target, path));
        match met {
            Some(Ok(_)) => break,
            _ if Instant::now() > end => return Err(format!("no answer within {} s", length.as_secs())),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.map_err(|e| e.to_string())?.as_secs_f64())
}

/// `count` connections one after the other, and who answered them.
pub fn spread(target: SocketAddr, path: &str, count: u32) -> Spread {
    let mut seen = Spread::default();
    for _ in 0..count {
        match get(target, path) {
            Ok(answer) => *seen.answers.entry(answer.trim().to_owned()).or_default() += 1,
            Err(_) => seen.lost += 1,
        }
    }
    seen
}

/// Round trips of small requests over one connection each: the time from SYN to the end of the answer.
pub fn latency(target: SocketAddr, path: &str, count: usize) -> Latency {
    let mut times: Vec<f64> = (0..count)
        .filter_map(|_| {
            let begun = Instant::now();
            get(target, path).ok().map(|_| begun.elapsed().as_secs_f64() * 1e6)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    };
    Latency { minimum: at(0.0), median: at(0.5), p99: at(0.99), count: times.len() }
}

/// A datagram and its answer: what it said, and from where it came.
pub fn udp(target: SocketAddr, text: &str) -> Result<(String, SocketAddr), String> {
    let said = |e: std::io::Error| e.to_string();
    let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).map_err(said)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(said)?;
    socket.send_to(text.as_bytes(), target).map_err(said)?;
    let mut answer = [0; 2048];
    let (length, from) = socket.recv_from(&mut answer).map_err(said)?;
    Ok((String::from_utf8_lossy(&answer[..length]).into_owned(), from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(answers: Vec<&'static str>) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    #[test]
    fn a_loop_counts_what_was_lost_and_for_how_long() {
        let mut seen = Loop::default();
        for (at, good) in [(0.1, true), (0.5, false), (0.9, true), (1.5, false), (2.0, true)] {
            seen.note(at, if good { Ok(()) } else { Err("no".into()) });
        }
        assert_eq!((seen.sent, seen.lost), (5, 2));
        assert!((seen.seconds_of_loss() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn only_an_answer_of_200_is_good() {
        let address = server(vec!["HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 503 No\r\n\r\n", "garbage"]);
        assert_eq!(get(address, "/").unwrap(), "hello");
        assert!(get(address, "/").unwrap_err().contains("503"));
        assert!(get(address, "/").is_err());
    }

    #[test]
    fn answers_are_counted_by_what_they_say() {
        let address =
            server(vec!["HTTP/1.1 200 OK\r\n\r\na", "HTTP/1.1 200 OK\r\n\r\nb", "HTTP/1.1 200 OK\r\n\r\na"]);
        let seen = spread(address, "/hostname", 3);
        assert_eq!((seen.answers["a"], seen.answers["b"], seen.lost), (2, 1, 0));
    }
}
