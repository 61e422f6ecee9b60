//! Many connections at once that stay open: each is asked again and again, and tells when it broke.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    str::FromStr,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::traffic::{answer, ask};

/// Longest wait for a connection to open.
const OPENING: Duration = Duration::from_secs(5);
/// Longest wait for an answer, from the last request of a round: room for several retransmissions.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most connections.
const MOST: usize = 10_000;

/// How many connections to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Address and port.
    pub target: SocketAddr,
    /// How many.
    pub count: usize,
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || format!("{text:?}: expected address:port=count, up to {MOST}");
        let (target, count) = text.rsplit_once('=').ok_or_else(expected)?;
        let target = target.parse().map_err(|_| expected())?;
        let count = count.parse().ok().filter(|count| *count <= MOST).ok_or_else(expected)?;
        Ok(Self { target, count })
    }
}

/// What one connection met so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Its own end.
    pub local: SocketAddr,
    /// Where it goes to.
    pub target: SocketAddr,
    /// Who answers: its first answer.
    pub server: String,
    /// Answers.
    pub answers: u32,
    /// The longest time from a request to its answer, in seconds.
    pub longest: f64,
    /// How it broke, if it did.
    pub broken: Option<String>,
}

struct Open {
    stream: TcpStream,
    seen: Seen,
    /// When it was asked what is not answered yet.
    asked: Option<Instant>,
}

/// The connections.
pub struct Many {
    open: Vec<Open>,
    path: String,
    pace: Duration,
}

impl Many {
    /// Opens them, each with one request; `pace` is the time in which each is asked once.
    pub fn open(wishes: &[Wish], path: &str, pace: Duration) -> Result<Self> {
        let mut open = Vec::new();
        // in turns, so that all targets meet the same moments
        for number in 0..wishes.iter().map(|wish| wish.count).max().unwrap_or_default() {
            for wish in wishes.iter().filter(|wish| number < wish.count) {
                let told = || format!("connection {} to {}", number + 1, wish.target);
                open.push(connect(wish.target, path).with_context(told)?);
            }
        }
        ensure!(!open.is_empty(), "no connection was asked for");
        Ok(Self { open, path: path.to_owned(), pace })
    }

    /// What they met so far.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.open.iter().map(|open| &open.seen)
    }

    /// Asks each that is not broken, one after the other at an even pace, and waits for all answers.
    pub fn round(&mut self) {
        let begun = Instant::now();
        let count = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        for (number, open) in (0..count).zip(&mut self.open) {
            if open.seen.broken.is_some() {
                continue;
            }
            std::thread::sleep(
                (begun + self.pace * number / count).saturating_duration_since(Instant::now()),
            );
            open.asked = Some(Instant::now());
            if let Err(error) = ask(&mut open.stream, open.seen.target, &self.path) {
                open.end(Err(error));
            }
        }
        std::thread::sleep((begun + self.pace).saturating_duration_since(Instant::now()));
        let until = Instant::now() + PATIENCE;
        for open in self.open.iter_mut().filter(|open| open.asked.is_some()) {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let answered = open.stream.set_read_timeout(Some(left)).and_then(|()| answer(&mut open.stream));
            open.end(answered);
        }
    }

    /// Round after round, until `length` has passed or `asks` ends. To each line of `asks` the answer is a line of JSON
    /// with what every connection met, after a round that began when the line was there.
    pub fn run(
        &mut self,
        length: Duration,
        asks: impl Read + Send + 'static,
        mut said: impl Write,
    ) -> Result<()> {
        let begun = Instant::now();
        let (sender, lines) = mpsc::channel();
        // ends with `asks`, or with the process
        std::thread::spawn(move || {
            let _ = BufReader::new(asks).lines().map_while(Result::ok).try_for_each(|_| sender.send(()));
        });
        while begun.elapsed() < length {
            let mut asked = 0;
            let ended = loop {
                match lines.try_recv() {
                    Ok(()) => asked += 1,
                    Err(error) => break error == mpsc::TryRecvError::Disconnected,
                }
            };
            if ended && asked == 0 {
                return Ok(());
            }
            self.round();
            for _ in 0..asked {
                serde_json::to_writer(&mut said, &self.seen().collect::<Vec<_>>())?;
                said.write_all(b"\n")?;
                said.flush()?;
            }
        }
        Ok(())
    }
}

impl Open {
    /// Notes the end of a request.
    fn end(&mut self, answer: std::io::Result<String>) {
        let Some(asked) = self.asked.take() else { return };
        let seen = &mut self.seen;
        match answer {
            Ok(server) if server == seen.server => {
                seen.answers += 1;
                seen.longest = seen.longest.max(asked.elapsed().as_secs_f64());
            }
            Ok(server) => seen.broken = Some(format!("{server} answers in place of {}", seen.server)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                seen.broken = Some(format!("no answer within {} s", PATIENCE.as_secs()));
            }
            Err(error) => seen.broken = Some(error.to_string()),
        }
    }
}

fn connect(target: SocketAddr, path: &str) -> Result<Open> {
    let mut stream = TcpStream::connect_timeout(&target, OPENING)?;
    stream.set_read_timeout(Some(OPENING))?;
    stream.set_nodelay(true)?;
    ask(&mut stream, target, path)?;
    let server = answer(&mut stream)?;
    let local = stream.local_addr()?;
    let seen = Seen { local, target, server, answers: 1, longest: 0.0, broken: None };
    Ok(Open { stream, seen, asked: None })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers with these words, then closes.
    fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    for word in answers {
                        let _ = stream.read(&mut [0; 512]);
                        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}", word.len());
                        let _ = stream.write_all(text.as_bytes());
                    }
                    let _ = stream.read(&mut [0; 512]);
                });
            }
        });
        address
    }

    #[test]
    fn a_wish_is_an_address_and_a_number() {
        let wish: Wish = "[2001:db8::1]:80=20".parse().unwrap();
        assert_eq!((wish.target.to_string().as_str(), wish.count), ("[2001:db8::1]:80", 20));
        for bad in ["203.0.113.17:80", "203.0.113.17=3", "203.0.113.17:80=x", "203.0.113.17:80=99999"] {
            assert!(bad.parse::<Wish>().unwrap_err().contains("address:port=count"), "{bad}");
        }
    }

    #[test]
    fn who_breaks_is_told_and_the_others_go_on() {
        let (steady, other, short) =
            (server(&["a"; 999]), server(&["a", "a", "b", "a"]), server(&["a", "a"]));
        let wishes = [(steady, 3), (other, 1), (short, 2)].map(|(target, count)| Wish { target, count });
        let mut many = Many::open(&wishes, "/", Duration::from_millis(10)).unwrap();
        let (asks, mut input) = std::io::pipe().unwrap();
        let mut said = Vec::new();
        input.write_all(b"look\n").unwrap();
        many.round();
        many.round();
        drop(input);
        many.run(Duration::from_secs(60), asks, &mut said).unwrap();
        let seen: Vec<Seen> = serde_json::from_slice(&said).unwrap();
        let broken = |target| {
            let those = seen.iter().filter(|seen| seen.target == target);
            those.map(|seen| seen.broken.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(broken(steady), [""; 3]);
        assert_eq!(broken(other), ["b answers in place of a"]);
        assert_eq!(broken(short).len(), 2);
        assert!(broken(short).iter().all(|why| !why.is_empty()), "{seen:?}");
        assert!(seen.iter().all(|seen| seen.server == "a" && seen.answers >= 2));
    }
}
