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
    /// What failed requests met, and how often.
    pub complaints: std::collections::BTreeMap<String, u32>,
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
            *self.complaints.entry(complaint).or_default() += 1;
        }
    }
}

/// What one flow met that asks again and again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Answers.
    pub answers: u32,
    /// The longest time, in seconds: TCP, from a request to its answer; UDP, from an answer to the next one.
    pub longest: f64,
    /// How it ended, if not by our will.
    pub broken: Option<String>,
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
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(said)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("answer: no end of header")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("answer: status {}", status.unwrap_or("none"))),
    }
}

/// Requests at a steady pace until `length` has passed, or `stop` says so and none failed for as long as `calm`.
pub fn request_loop(
    target: SocketAddr,
    path: &str,
    pace: Duration,
    length: Duration,
    calm: Duration,
    mut stop: impl FnMut() -> bool,
) -> Loop {
    let started = Instant::now();
    let mut seen = Loop::default();
    let is_calm = |seen: &Loop| {
        seen.last_lost.is_none_or(|last| started.elapsed().as_secs_f64() - last >= calm.as_secs_f64())
    };
    while started.elapsed() < length && !(stop() && is_calm(&seen)) {
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

/// Requests at a steady pace over one connection, until `length` has passed or `stop` says so.
pub fn flow(
    target: SocketAddr,
    path: &str,
    pace: Duration,
    length: Duration,
    mut stop: impl FnMut() -> bool,
) -> Flow {
    let started = Instant::now();
    let mut seen = Flow::default();
    let mut stream = match TcpStream::connect_timeout(&target, PATIENCE) {
        Ok(stream) => stream,
        Err(error) => return Flow { broken: Some(format!("connect: {error}")), ..seen },
    };
    while started.elapsed() < length && !stop() {
        let begun = Instant::now();
        let answer =
            stream.set_read_timeout(Some(10 * PATIENCE)).and_then(|()| again(&mut stream, target, path));
        seen.longest = seen.longest.max(begun.elapsed().as_secs_f64());
        if let Err(error) = answer {
            seen.broken = Some(error.to_string());
            return seen;
        }
        seen.answers += 1;
        std::thread::sleep(pace.saturating_sub(begun.elapsed()));
    }
    seen
}

/// Datagrams at a steady pace from one port, whether they are answered or not, until `length` has passed or `stop`
/// says so.
pub fn udp_flow(
    target: SocketAddr,
    text: &str,
    pace: Duration,
    length: Duration,
    mut stop: impl FnMut() -> bool,
) -> Flow {
    let mut seen = Flow::default();
    let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let opened = UdpSocket::bind(local).and_then(|socket| {
        socket.connect(target)?;
        socket.set_read_timeout(Some(pace.max(Duration::from_millis(1))))?;
        Ok(socket)
    });
    let socket = match opened {
        Ok(socket) => socket,
        Err(error) => return Flow { broken: Some(error.to_string()), ..seen },
    };
    let started = Instant::now();
    let mut last = started;
    while started.elapsed() < length && !stop() {
        let begun = Instant::now();
        // Both may fail by an ICMP message about an earlier datagram: lost, as others are.
        let sent = socket.send(text.as_bytes());
        if sent.and_then(|_| socket.recv(&mut [0; 2048])).is_ok() {
            seen.answers += 1;
            seen.longest = seen.longest.max(last.elapsed().as_secs_f64());
            last = Instant::now();
        }
        std::thread::sleep(pace.saturating_sub(begun.elapsed()));
    }
    seen.longest = seen.longest.max(last.elapsed().as_secs_f64());
    seen
}

/// One GET over a connection that stays.
fn again(stream: &mut TcpStream, target: SocketAddr, path: &str) -> std::io::Result<()> {
    let wrong = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 2048];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(wrong("the other end closed the connection"));
        }
        answer.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let size = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let size: usize = size.and_then(|(_, value)| value.parse().ok()).ok_or_else(|| wrong("no length"))?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(wrong(head.lines().next().unwrap_or_default()));
        }
        if body.len() >= size {
            return Ok(());
        }
    }
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
    fn a_loop_goes_on_until_it_is_calm() {
        let address = server(vec![
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 503 Busy\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ]);
        let (pace, calm) = (Duration::from_millis(40), Duration::from_millis(100));
        let mut asked = 0;
        let stop = || {
            asked += 1;
            asked > 2
        };
        let seen = request_loop(address, "/", pace, Duration::from_secs(5), calm, stop);
        assert!(seen.sent > 3, "{seen:?}");
        assert_eq!(seen.complaints.get("answer: status 503"), Some(&1), "{seen:?}");
    }

    #[test]
    fn a_flow_tells_how_its_connection_ended() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            ] {
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let seen = flow(address, "/", Duration::ZERO, Duration::from_secs(5), || false);
        assert_eq!(seen.answers, 2);
        assert!(seen.broken.is_some() && seen.longest < 5.0, "{seen:?}");
    }

    #[test]
    fn a_flow_of_datagrams_measures_the_longest_silence() {
        let answering = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = answering.local_addr().unwrap();
        std::thread::spawn(move || {
            for number in 0..40 {
                let Ok((_, from)) = answering.recv_from(&mut [0; 16]) else { return };
                // Ten datagrams, 10 ms apart, get no answer.
                if !(10..20).contains(&number) {
                    let _ = answering.send_to(b"x", from);
                }
            }
        });
        let mut left = 40;
        let seen = udp_flow(address, "x", Duration::from_millis(10), Duration::from_secs(9), || {
            left -= 1;
            left < 0
        });
        assert!(seen.answers > 20 && seen.longest >= 0.1 && seen.broken.is_none(), "{seen:?}");
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
