//! `ake-probe`: sends the traffic of the proofs, from whichever namespace it is started in, and prints what
//! came of it as one line of JSON. Every loop is bounded in time and count, but a server's.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use scenarios::{
    load,
    many::{Many, Wish},
    traffic,
};

#[derive(Parser)]
#[command(about = "Sends the traffic of AKE's proofs and prints what came of it")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Requests at a steady pace
    Loop {
        /// Address and port
        target: SocketAddr,
        /// Path of the request
        #[arg(long, default_value = "/")]
        path: String,
        /// Requests a second
        #[arg(long, default_value_t = 20)]
        rate: u32,
        /// Longest run, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Ends early when this file is there
        #[arg(long)]
        until: Option<PathBuf>,
        /// And when none failed for so many seconds
        #[arg(long, default_value_t = 0)]
        calm: u64,
    },
    /// Requests over one connection that stays, or datagrams from one port
    Flow {
        /// Address and port
        target: SocketAddr,
        /// Path of the request
        #[arg(long, default_value = "/hostname")]
        path: String,
        /// Datagrams with this text, whether they are answered or not
        #[arg(long)]
        udp: Option<String>,
        /// Requests a second
        #[arg(long, default_value_t = 20)]
        rate: u32,
        /// Longest run, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Ends early when this file is there
        #[arg(long)]
        until: Option<PathBuf>,
    },
    /// Many connections that stay; what came of them, at each line on standard input
    Many {
        /// Address and port, and how many connections: 203.0.113.17:80=800
        #[arg(required = true)]
        targets: Vec<Wish>,
        /// Path of the request
        #[arg(long, default_value = "/hostname")]
        path: String,
        /// Seconds in which each is asked once
        #[arg(long, default_value_t = 2)]
        pace: u64,
        /// Longest run, in seconds
        #[arg(long, default_value_t = 900)]
        seconds: u64,
    },
    /// Connections one after the other, and who answered
    Spread {
        /// Address and port
        target: SocketAddr,
        /// Path of the request
        #[arg(long, default_value = "/hostname")]
        path: String,
        /// How many
        #[arg(long, default_value_t = 1000)]
        count: u32,
    },
    /// Round trips of small requests
    Latency {
        /// Address and port
        target: SocketAddr,
        /// Path of the request
        #[arg(long, default_value = "/hostname")]
        path: String,
        /// How many
        #[arg(long, default_value_t = 200)]
        count: usize,
    },
    /// Asks until there is an answer, and tells when it came (seconds of the Unix epoch)
    First {
        /// Address and port
        target: SocketAddr,
        /// Path of the request
        #[arg(long, default_value = "/hostname")]
        path: String,
        /// Longest wait, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Small requests, each as soon as the one before is answered
    Load {
        /// Address and port
        target: SocketAddr,
        /// How many at a time
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Longest run
        #[arg(long, default_value_t = 1000)]
        milliseconds: u64,
        /// Many requests over one connection, instead of one
        #[arg(long)]
        kept: bool,
    },
    /// Answers everything with 200
    Serve {
        /// Addresses and ports
        addresses: Vec<SocketAddr>,
    },
    /// One datagram and its answer
    Udp {
        /// Address and port
        target: SocketAddr,
        /// What to send
        text: String,
    },
}

fn main() -> anyhow::Result<()> {
    let text = match Arguments::parse().verb {
        Verb::Loop { target, path, rate, seconds, until, calm } => {
            let pace = Duration::from_secs(1) / rate.max(1);
            let stop = || until.as_ref().is_some_and(|file| file.exists());
            let length = Duration::from_secs(seconds.min(600));
            serde_json::to_string(&traffic::request_loop(
                target,
                &path,
                pace,
                length,
                Duration::from_secs(calm),
                stop,
            ))?
        }
        Verb::Flow { target, path, udp, rate, seconds, until } => {
            let pace = Duration::from_secs(1) / rate.max(1);
            let stop = || until.as_ref().is_some_and(|file| file.exists());
            let length = Duration::from_secs(seconds.min(600));
            let seen = match udp {
                Some(text) => traffic::udp_flow(target, &text, pace, length, stop),
                None => traffic::flow(target, &path, pace, length, stop),
            };
            serde_json::to_string(&seen)?
        }
        Verb::Many { targets, path, pace, seconds } => {
            let length = Duration::from_secs(seconds.min(1800));
            let mut many = Many::open(&targets, &path, Duration::from_secs(pace.clamp(1, 60)))?;
            many.run(length, std::io::stdin(), std::io::stdout())?;
            return Ok(());
        }
        Verb::Spread { target, path, count } => {
            serde_json::to_string(&traffic::spread(target, &path, count.min(100_000)))?
        }
        Verb::Latency { target, path, count } => {
            let seen = traffic::latency(target, &path, count.min(100_000)).map_err(anyhow::Error::msg)?;
            serde_json::to_string(&seen)?
        }
        Verb::First { target, path, seconds } => {
            match traffic::first_answer(target, &path, Duration::from_secs(seconds.min(600))) {
                Ok(moment) => moment.to_string(),
                Err(complaint) => anyhow::bail!("{target}: {complaint}"),
            }
        }
        Verb::Load { target, connections, milliseconds, kept } => {
            let length = Duration::from_millis(milliseconds.min(60_000));
            serde_json::to_string(&load::load(target, connections.min(1000), length, kept)?)?
        }
        Verb::Serve { addresses } => return load::serve(&addresses),
        Verb::Udp { target, text } => match traffic::udp(target, &text) {
            Ok((answer, from)) => serde_json::json!({"answer": answer, "from": from}).to_string(),
            Err(complaint) => anyhow::bail!("{target}: {complaint}"),
        },
    };
    println!("{text}");
    Ok(())
}
