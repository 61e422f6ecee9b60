//! Requests as fast as they are answered, and the server that answers them: both on one thread, and small, so that
//! what lies between them is most of what is measured.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wait after a request that failed.
const REST: Duration = Duration::from_millis(10);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// What the server says to everything.
const BODY: &str = "0123456789012345678901234567890123456789012345678901234567890123";

/// What came of requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests with an answer.
    pub requests: u64,
    /// Requests without one.
    pub failed: u64,
    /// What those met, and how often.
    pub complaints: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Microseconds: half of the answers came within.
    pub p50: f64,
    /// Microseconds: of 100 answers, 99 came within.
    pub p99: f64,
}

/// The value that this share of the others does not exceed; the values are put in order.
#[must_use]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// Sends requests over so many connections, each the next one as soon as it has its answer. `kept`: on one connection
/// after the other, or each on a connection of its own, which the server ends.
pub fn load(target: SocketAddr, connections: usize, length: Duration, kept: bool) -> Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut times, mut complaints) = (Vec::new(), BTreeMap::<String, u64>::new());
    let begun = Instant::now();
    runtime.block_on(async {
        let asking = (0..connections).map(|_| tokio::spawn(ask(target, begun + length, kept)));
        for asked in asking.collect::<Vec<_>>() {
            let (of_one, lost) = asked.await?;
            times.extend(of_one);
            for complaint in lost {
                *complaints.entry(complaint).or_default() += 1;
            }
        }
        anyhow::Ok(())
    })?;
    Ok(Load {
        requests: times.len() as u64,
        failed: complaints.values().sum(),
        complaints,
        seconds: begun.elapsed().as_secs_f64(),
        p50: quantile(&mut times, 0.5),
        p99: quantile(&mut times, 0.99),
    })
}

/// One request after the other until `end`: microseconds of each, and what failed ones met.
async fn ask(target: SocketAddr, end: Instant, kept: bool) -> (Vec<f64>, Vec<String>) {
    let (mut times, mut complaints, mut open) = (Vec::new(), Vec::new(), None);
    while Instant::now() < end {
        let begun = Instant::now();
        let complaint = match tokio::time::timeout(PATIENCE, exchange(open.take(), target, kept)).await {
            Ok(Ok(stream)) => {
                times.push(begun.elapsed().as_secs_f64() * 1e6);
                open = stream;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        complaints.push(complaint);
        tokio::time::sleep(REST).await;
    }
    (times, complaints)
}

/// A request and its whole answer; the connection, if it is kept.
pub async fn exchange(
    open: Option<TcpStream>,
    target: SocketAddr,
    kept: bool,
) -> io::Result<Option<TcpStream>> {
    let mut stream = match open {
        Some(stream) => stream,
        None => TcpStream::connect(target).await?,
    };
    stream.set_nodelay(true)?;
    let request: &[u8] = if kept {
        b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
    } else {
        b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    };
    stream.write_all(request).await?;
    let (mut answer, mut length) = ([0; 512], 0);
    loop {
        let more = stream.read(&mut answer[length..]).await?;
        length += more;
        let whole = is_whole(&answer[..length]);
        match (more, whole, kept) {
            (0, true, false) => return Ok(None),
            (0, ..) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, true, true) => return Ok(Some(stream)),
            _ => {}
        }
    }
}

/// Whether it is all that the server answers.
fn is_whole(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(BODY.as_bytes())
}

/// Answers everything on these addresses with 200; ends with the process.
pub fn serve(addresses: &[SocketAddr]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut serving = tokio::task::JoinSet::new();
        for address in addresses {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(*address).with_context(|| format!("cannot listen on {address}"))?;
            serving.spawn(accept(socket.listen(BACKLOG)?));
        }
        println!("ready");
        while let Some(ended) = serving.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Whoever goes in the middle of a request is missed by nobody.
                tokio::spawn(async move { answer(stream).await.ok() });
            }
            // Out of file descriptors, most likely.
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
    let (mut request, mut length) = ([0; 1024], 0);
    loop {
        let more = stream.read(&mut request[length..]).await?;
        length += more;
        if more == 0 {
            return Ok(());
        }
        if !request[..length].ends_with(b"\r\n\r\n") {
            continue;
        }
        stream.write_all(said.as_bytes()).await?;
        let close: &[u8] = b"Connection: close";
        if request[..length].windows(close.len()).any(|words| words == close) {
            return stream.shutdown().await;
        }
        length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), 100.0);
        assert_eq!(quantile(&mut values, 0.99), 198.0);
        assert_eq!(quantile(&mut [7.0], 0.99), 7.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn requests_are_answered_counted_and_timed() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = runtime.spawn(accept(listener));
        for kept in [true, false] {
            let seen = load(address, 4, Duration::from_millis(100), kept).unwrap();
            assert!(seen.requests > 4 && seen.failed == 0, "{seen:?}");
            assert!(seen.p50 > 0.0 && seen.p50 <= seen.p99, "{seen:?}");
        }
        serving.abort();
        runtime.block_on(async { serving.await.unwrap_err() });
        let seen = load(address, 2, Duration::from_millis(30), false).unwrap();
        assert!(seen.requests == 0 && seen.failed > 0, "{seen:?}");
    }
}
