//! What the device answers besides objects: pages, errors, transactions, logins.

use serde::Deserialize;
use serde_json::Value;

use super::forms::text;

/// A page of a collection.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// What is on it; absent where the collection is empty.
    #[serde(default)]
    pub items: Vec<Value>,
    /// How many there are on all pages.
    pub total_items: Option<usize>,
    /// Where the next page is.
    pub next_link: Option<String>,
}

/// An answer that is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// In the device's words.
    pub message: String,
}

/// An open or finished transaction.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// Its number.
    pub trans_id: u64,
    /// `STARTED`, `UPDATING`, `VALIDATING`, `COMPLETED` or `FAILED`.
    pub state: String,
    /// Why it failed.
    #[serde(default)]
    pub failure_reason: String,
}

/// The answer to a login.
#[derive(Deserialize)]
pub struct Login {
    /// What was given.
    pub token: Token,
}

/// A token.
#[derive(Deserialize)]
pub struct Token {
    /// What requests carry.
    pub token: String,
    /// Seconds that it lives.
    pub timeout: u64,
}

/// A unit as `cm device` shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// `active`, `standby`, `offline`, `forced-offline`.
    #[serde(default)]
    pub failover_state: String,
    /// `true` for the one that answers.
    #[serde(default, deserialize_with = "text")]
    pub self_device: String,
}
