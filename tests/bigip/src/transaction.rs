//! Transactions: commands are queued unread, and take effect together or not at all.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    answer::{Refusal, link},
    config::Config,
};

/// How long a transaction may stay open.
const TIMEOUT: u64 = 120;

/// A request that waits for its transaction.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) method: String,
    /// Below /mgmt/tm/.
    pub(crate) path: String,
    pub(crate) body: Value,
}

#[derive(Debug, Clone)]
struct Transaction {
    began: Instant,
    commands: Vec<Command>,
    state: &'static str,
    failure: String,
}

/// The transactions of a unit.
#[derive(Debug, Default, Clone)]
pub(crate) struct Transactions {
    open: BTreeMap<u64, Transaction>,
    count: u64,
}

fn missing(id: u64) -> (StatusCode, Value) {
    let refusal = Refusal::mcpd(404, format!("Transaction {id} is not found, it may have timed out."));
    (refusal.status, refusal.body())
}

impl Transactions {
    /// Open ones end as if their time were up.
    pub(crate) fn expire(&mut self) {
        self.open.clear();
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.values().filter(|transaction| transaction.state == "STARTED").count()
    }

    fn reap(&mut self) {
        self.open.retain(|_, transaction| transaction.began.elapsed() < Duration::from_secs(TIMEOUT));
    }

    fn shown(&self, id: u64) -> (StatusCode, Value) {
        let Some(transaction) = self.open.get(&id) else { return missing(id) };
        let answer = json!({
            "transId": id, "state": transaction.state, "timeoutSeconds": TIMEOUT, "asyncExecution": false,
            "validateOnly": false, "executionTimeout": 300, "executionTime": 0,
            "failureReason": transaction.failure, "kind": "tm:transactionstate",
            "selfLink": link(&format!("transaction/{id}")),
        });
        (StatusCode::OK, answer)
    }

    /// POST /mgmt/tm/transaction.
    pub(crate) fn begin(&mut self) -> (StatusCode, Value) {
        self.reap();
        self.count += 1;
        let id = 1_526_674_837_169_915 + self.count;
        let fresh = Transaction {
            began: Instant::now(),
            commands: Vec::new(),
            state: "STARTED",
            failure: String::new(),
        };
        self.open.insert(id, fresh);
        self.shown(id)
    }

    /// A request with the header X-F5-REST-Coordination-Id.
    pub(crate) fn queue(&mut self, id: u64, command: Command) -> (StatusCode, Value) {
        self.reap();
        let Some(transaction) = self.open.get_mut(&id).filter(|transaction| transaction.state == "STARTED")
        else {
            return missing(id);
        };
        transaction.commands.push(command);
        (StatusCode::OK, command_shown(id, transaction.commands.len(), transaction.commands.last()))
    }

    /// Everything below /mgmt/tm/transaction/ID. A transaction that is to be executed is given to `run` with
    /// its commands.
    pub(crate) fn answer(
        &mut self,
        method: &str,
        id: u64,
        rest: &[&str],
        body: &Value,
        config: &mut Config,
        run: impl Fn(&mut Config, &Command) -> Result<(), Refusal>,
    ) -> (StatusCode, Value) {
        self.reap();
        let Some(transaction) = self.open.get_mut(&id) else { return missing(id) };
        match (method, rest) {
            ("GET", []) => self.shown(id),
            ("DELETE", []) => {
                self.open.remove(&id);
                (StatusCode::OK, json!({}))
            }
            ("GET", ["commands"]) => {
                let items: Vec<_> = (1..=transaction.commands.len())
                    .map(|n| command_shown(id, n, transaction.commands.get(n - 1)))
                    .collect();
                let path = link(&format!("transaction/{id}/commands"));
                (
                    StatusCode::OK,
                    json!({"kind": "tm:transaction:commandscollectionstate", "selfLink": path, "items": items}),
                )
            }
            ("PATCH", []) if body["state"] == "VALIDATING" => {
                if transaction.state != "STARTED" {
                    return self.shown(id);
                }
                let mut next = config.clone();
                let ran = transaction.commands.iter().try_for_each(|command| run(&mut next, command));
                match ran {
                    Ok(()) => {
                        transaction.state = "COMPLETED";
                        if body["validateOnly"] != true {
                            *config = next;
                        }
                        self.shown(id)
                    }
                    Err(refusal) => {
                        transaction.state = "FAILED";
                        transaction.failure = refusal.message.clone();
                        let message = format!("transaction failed:{}", refusal.message);
                        let failed = Refusal { message, api_error: 2, ..refusal };
                        (failed.status, failed.body())
                    }
                }
            }
            _ => {
                let refusal = Refusal::rest("operation is not supported on this transaction");
                (refusal.status, refusal.body())
            }
        }
    }
}

fn command_shown(id: u64, number: usize, command: Option<&Command>) -> Value {
    let Some(command) = command else { return Value::Null };
    json!({
        "method": command.method, "uri": format!("https://localhost/mgmt/tm/{}", command.path),
        "body": command.body, "evalOrder": number, "commandId": number,
        "kind": "tm:transaction:commandsstate",
        "selfLink": link(&format!("transaction/{id}/commands/{number}")),
    })
}
