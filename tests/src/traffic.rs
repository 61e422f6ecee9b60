//! Traffic as `ake-probe` sends it, and what came of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest wait for an answer, which a program gives: it may have to wait for a processor.
const ANSWER: Duration = Duration::from_secs(20);

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
    /// UDP: the most datagrams in a row that nobody answered in time.
    pub missed: u32,
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
    /// What those met, and how often.
    #[serde(default)]
    pub complaints: std::collections::BTreeMap<String, u32>,
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
    let stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(|e| format!("connect: {e}"))?;
    get_over(stream, target, path)
}

/// One GET over a connection that ends with it; the body.
fn get_over(mut stream: TcpStream, target: SocketAddr, path: &str) -> Result<String, String> {
    let said = |e: std::io::Error| format!("answer: {e}");
    stream.set_read_timeout(Some(ANSWER)).map_err(said)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(said)?;
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
    // A SYN that meets nobody is not sent again for a second, so each try is short. The request goes over the connection
    // that came about: another one might meet a node that is not ready yet.
    let patience = Duration::from_millis(100);
    let once = || get_over(TcpStream::connect_timeout(&target, patience).ok()?, target, path).ok();
    while once().is_none() {
        if Instant::now() > end {
            return Err(format!("no answer within {} s", length.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
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
        let answer = stream.set_read_timeout(Some(ANSWER)).and_then(|()| again(&mut stream, target, path));
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
    let (mut last, mut missed) = (started, 0);
    while started.elapsed() < length && !stop() {
        let begun = Instant::now();
        // Both may fail by an ICMP message about an earlier datagram: lost, as others are.
        let sent = socket.send(text.as_bytes());
        if sent.and_then(|_| socket.recv(&mut [0; 2048])).is_ok() {
            seen.answers += 1;
            seen.longest = seen.longest.max(last.elapsed().as_secs_f64());
            last = Instant::now();
            missed = 0;
        } else {
            missed += 1;
            seen.missed = seen.missed.max(missed);
        }
        std::thread::sleep(pace.saturating_sub(begun.elapsed()));
    }
    seen.longest = seen.longest.max(last.elapsed().as_secs_f64());
    seen
}

/// One GET over a connection that stays.
fn again(stream: &mut TcpStream, target: SocketAddr, path: &str) -> std::io::Result<()> {
    ask(stream, target, path)?;
    answer(stream).map(drop)
}

/// Sends a GET over a connection that stays.
pub(crate) fn ask(stream: &mut TcpStream, target: SocketAddr, path: &str) -> std::io::Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
}

/// Reads the answer to it; its body.
pub(crate) fn answer(stream: &mut TcpStream) -> std::io::Result<String> {
    let wrong = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
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
            return Ok(body.to_owned());
        }
    }
}

/// `count` connections one after the other, and who answered them.
pub fn spread(target: SocketAddr, path: &str, count: u32) -> Spread {
    let mut seen = Spread::default();
    for _ in 0..count {
        match get(target, path) {
            Ok(answer) => *seen.answers.entry(answer.trim().to_owned()).or_default() += 1,
            Err(complaint) => {
                seen.lost += 1;
                *seen.complaints.entry(complaint).or_default() += 1;
            }
        }
    }
    seen
}

/// Round trips of small requests over one connection each: the time from SYN to the end of the answer. Those without an
/// answer are not counted; where none has one, the last one's complaint is the error.
pub fn latency(target: SocketAddr, path: &str, count: usize) -> Result<Latency, String> {
    let mut times = Vec::with_capacity(count);
    let mut complaint = "no request".to_owned();
    for _ in 0..count {
        let begun = Instant::now();
        match get(target, path) {
            Ok(_) => times.push(begun.elapsed().as_secs_f64() * 1e6),
            Err(said) => complaint = said,
        }
    }
    if times.is_empty() {
        return Err(format!("{target}: no answer to {count} requests for {path}, the last: {complaint}"));
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    Ok(Latency { minimum: at(0.0), median: at(0.5), p99: at(0.99), count: times.len() })
}

/// A datagram and its answer: what it said, and from where it came.
pub fn udp(target: SocketAddr, text: &str) -> Result<(String, SocketAddr), String> {
    let said = |e: std::io::Error| e.to_string();
    let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).map_err(said)?;
    socket.set_read_timeout(Some(ANSWER)).map_err(said)?;
    socket.send_to(text.as_bytes(), target).map_err(said)?;
    let mut answer = [0; 2048];
    let (length, from) = socket.recv_from(&mut answer).map_err(said)?;
    Ok((String::from_utf8_lossy(&answer[..length]).into_owned(), from))
}

#[cfg(test)]
mod tests;
