//! Fuzzing on the stable compiler: good inputs are damaged at random for a bounded time, and what does harm is
//! shrunk to little.
//!
//! A fuzz target is a test named `fuzz_...` beside the code that it tries; it calls [`fuzz`] with good inputs, words
//! that mean something there, and what must hold. It runs for two seconds, or for `FUZZ_SECONDS`. Coverage-guided
//! engines want the nightly compiler's instrumentation; what they find by it, the good inputs and words give here.

#![allow(clippy::panic, reason = "what this is for: a test fails by panicking")]

use std::time::{Duration, Instant};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};

/// How long a target runs where nobody says it.
const SECONDS: u64 = 2;
/// Inputs between two looks at the clock.
const ROUND: u32 = 64;
/// The most that one input grows by.
const MOST_DAMAGE: usize = 6;

/// One way to damage an input.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Word(Index, Index),
    Replace(Index, Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    Cut(Index),
    /// Goes on as another good input does.
    Cross(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let edges = proptest::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xfe, 0xff]);
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), prop_oneof![edges, any::<u8>()]).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), at()).prop_map(|(at, word)| Damage::Word(at, word)),
        (at(), at()).prop_map(|(at, word)| Damage::Replace(at, word)),
        (at(), 1u8..17).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), 1u8..65).prop_map(|(at, length)| Damage::Repeat(at, length)),
        at().prop_map(Damage::Cut),
        (at(), at()).prop_map(|(at, other)| Damage::Cross(at, other)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage], good: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    for damage in all {
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        let end = |from: usize, count: u8| (from + usize::from(count)).min(length);
        match damage {
            Damage::Flip(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
            Damage::Set(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
            Damage::Insert(at, more) => drop(bytes.splice(place(at)..place(at), more.iter().copied())),
            Damage::Word(at, word) if !words.is_empty() => {
                drop(bytes.splice(place(at)..place(at), word.get(words).iter().copied()));
            }
            Damage::Replace(at, word) if !words.is_empty() => {
                // what stands there, up to where a number or a word ends
                let from = place(at);
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
                let until = from + bytes[from..].iter().take_while(|byte| is_word(byte)).count();
                drop(bytes.splice(from..until, word.get(words).iter().copied()));
            }
            Damage::Remove(at, count) => drop(bytes.drain(place(at)..end(place(at), *count))),
            Damage::Repeat(at, count) => {
                let again = bytes[place(at)..end(place(at), *count)].to_vec();
                drop(bytes.splice(place(at)..place(at), again));
            }
            Damage::Cut(at) => bytes.truncate(place(at)),
            Damage::Cross(at, other) => {
                let (from, other) = (place(at), other.get(good));
                bytes.truncate(from);
                bytes.extend(other.iter().skip(from));
            }
            _ => {}
        }
    }
    bytes
}

/// Runs `target` over damaged inputs for two seconds, or for `FUZZ_SECONDS`. The undamaged ones come first.
///
/// # Panics
/// With the least input that it found, where `target` answers with an error or panics.
pub fn fuzz(good: &[Vec<u8>], words: &[&[u8]], target: impl Fn(&[u8]) -> Result<(), String>) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    for input in good {
        if let Err(problem) = target(input) {
            panic!("{problem}: {}", shown(input));
        }
    }
    let strategy = (any::<Index>(), vec(damage(), 1..=MOST_DAMAGE))
        .prop_map(|(which, all)| damaged(which.get(good).clone(), &all, good, words));
    let config =
        Config { cases: ROUND, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let mut inputs = good.len() as u64;
    while Instant::now() < until {
        // a runner counts over all its runs, and is done after the first
        let tried = TestRunner::new(config.clone())
            .run(&strategy, |input| target(&input).map_err(TestCaseError::fail));
        if let Err(TestError::Fail(reason, input)) = tried {
            panic!("{reason}: {}", shown(&input));
        }
        inputs += u64::from(ROUND);
    }
    eprintln!("{inputs} inputs in {seconds} s");
}

/// An input as a test can take it in.
fn shown(input: &[u8]) -> String {
    match std::str::from_utf8(input) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("{input:02x?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harm_is_found_and_shrunk() {
        let good = [br#"{"port": 80}"#.to_vec()];
        let words: [&[u8]; 1] = [b"65536"];
        let found = std::panic::catch_unwind(|| {
            fuzz(&good, &words, |input| {
                let text = String::from_utf8_lossy(input);
                if text.contains("65536") { Err("too high".to_owned()) } else { Ok(()) }
            });
        });
        let message = found.unwrap_err().downcast::<String>().unwrap();
        assert!(message.starts_with("too high: ") && message.len() < 60, "{message}");
    }
}
