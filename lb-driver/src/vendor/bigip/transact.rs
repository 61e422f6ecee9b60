//! Transactions: commands are queued, take effect together, and the device is asked what became of them when
//! the answer is lost.

use std::time::Duration;

use serde_json::json;

use super::{
    plan::Command,
    replies,
    unit::{Failure, Request, Unit},
};
use crate::driver::DriverError;

/// How often a transaction is begun anew.
const TRIES: usize = 3;
/// Wait between two looks at one that goes on.
const LOOK: Duration = Duration::from_millis(500);

/// Does commands together or not at all.
pub(super) async fn transact(unit: &Unit, commands: &[Command]) -> Result<(), DriverError> {
    let mut tries = 1;
    loop {
        let queued = queue(unit, commands).await;
        let id = match queued {
            Ok(id) => id,
            // nothing has taken effect yet
            Err(Failure::Lost(_) | Failure::Doubtful(_) | Failure::Absent(_)) if tries < TRIES => {
                tries += 1;
                continue;
            }
            Err(failure) => return Err(unit.error(failure)),
        };
        return match commit(unit, id).await {
            Ok(()) => Ok(()),
            // somebody changed what was read; the next look sees it
            Err(Failure::Absent(reason)) => Err(DriverError::Failed {
                device: unit.url.clone(),
                reason: format!("it was changed meanwhile: {reason}"),
                retry_after: None,
            }),
            Err(failure) => Err(unit.error(failure)),
        };
    }
}

async fn queue(unit: &Unit, commands: &[Command]) -> Result<u64, Failure> {
    let body = json!({});
    let begun: replies::Transaction = unit.read(Request::post("tm/transaction", &body)).await?;
    let id = begun.trans_id;
    for command in commands {
        let (method, path, body) = command.request();
        let path = format!("tm/{path}");
        let request =
            Request { method, path: &path, body: body.as_ref(), transaction: Some(id), repeatable: false };
        if let Err(failure) = unit.ask(request).await {
            let path = format!("tm/transaction/{id}");
            let request = Request { method: "DELETE", repeatable: false, ..Request::get(&path) };
            // one that stays ends by itself
            let _ = unit.ask(request).await;
            return Err(failure);
        }
    }
    Ok(id)
}

async fn commit(unit: &Unit, id: u64) -> Result<(), Failure> {
    let (path, body) = (format!("tm/transaction/{id}"), json!({"state": "VALIDATING"}));
    let request =
        Request { method: "PATCH", path: &path, body: Some(&body), transaction: None, repeatable: false };
    let mut state = match unit.read::<replies::Transaction>(request.clone()).await {
        Ok(transaction) => Ok(transaction),
        Err(Failure::Lost(_) | Failure::Doubtful(_)) => unit.read(Request::get(&path)).await,
        Err(failure) => return Err(failure),
    };
    for _ in 0..TRIES * 10 {
        match state {
            Ok(done) if done.state == "COMPLETED" => return Ok(()),
            Ok(done) if done.state == "FAILED" => return Err(Failure::Refused(done.failure_reason)),
            // it was not told to begin
            Ok(open) if open.state == "STARTED" => state = unit.read(request.clone()).await,
            Ok(_) => {
                tokio::time::sleep(LOOK).await;
                state = unit.read(Request::get(&path)).await;
            }
            // it is no longer known what became of it
            Err(Failure::Absent(said)) => {
                return Err(Failure::Lost(format!("outcome of a transaction: {said}")));
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Lost("a transaction does not end".to_owned()))
}
