//! Services, from their creation to the first answer through their VIP.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    kubernetes::Kubernetes,
    site::{Site, at_port},
};
use crate::load;

const SERVICES: &str = "/api/v1/namespaces/default/services";
/// Of the Services that share a VIP, the first one's.
pub(super) const FIRST_PORT: u16 = 80;
/// Most that share a VIP.
pub(super) const MOST_SHARING: u16 = 10;
/// Longest wait for one try of an answer.
const TRY: Duration = Duration::from_millis(300);

/// A Service that is to be made.
pub(super) struct Wish {
    name: String,
    port: u16,
    share: Option<String>,
}

impl Wish {
    /// `sharing`: as many with neighbouring numbers share one VIP.
    pub(super) fn new(group: &str, number: usize, sharing: usize) -> Self {
        let port = FIRST_PORT + u16::try_from(number % sharing).unwrap_or_default();
        let share = (sharing > 1).then(|| format!("{group}-{}", number / sharing));
        Self { name: format!("{group}-{number}"), port, share }
    }

    /// Where the API server has it.
    pub(super) fn path(&self) -> String {
        format!("{SERVICES}/{}", self.name)
    }

    fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name},
            "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "selector": {"app": "web"},
                     "ports": [{"port": self.port}]},
        });
        if let Some(share) = &self.share {
            object["metadata"]["annotations"] = json!({"ake.dev/share": share});
        }
        object
    }
}

/// Makes Services, several at a time; seconds of each from the API server's acceptance to the first answer.
pub(super) async fn make(site: &Site, wishes: Vec<Wish>, longest: Duration) -> Result<Vec<f64>> {
    let end = tokio::time::Instant::now() + longest;
    let (tell, mut told) = mpsc::unbounded_channel();
    let only = match wishes.as_slice() {
        [one] => format!("&fieldSelector=metadata.name%3D{}", one.name),
        _ => String::new(),
    };
    let watching = tokio::spawn(watch(site.kubernetes.clone(), only, tell));
    let mut waiting: HashMap<String, u16> =
        wishes.iter().map(|wish| (wish.name.clone(), wish.port)).collect();
    let (names, objects): (Vec<_>, Vec<_>) =
        wishes.iter().map(|wish| (wish.name.clone(), wish.object())).unzip();
    let answers = async {
        let mut asking = JoinSet::new();
        while let Some((name, vip)) = told.recv().await {
            if let Some(port) = waiting.remove(&name) {
                asking.spawn(first_answer(name, vip, port, end));
            }
            if waiting.is_empty() {
                break;
            }
        }
        asking.join_all().await.into_iter().collect::<Result<HashMap<String, Instant>>>()
    };
    let accepted = async {
        let mut moments = HashMap::new();
        site.kubernetes
            .create_all(SERVICES, objects, |place| {
                moments.insert(names[place].clone(), Instant::now());
            })
            .await?;
        anyhow::Ok(moments)
    };
    let both = tokio::time::timeout_at(end, async { tokio::try_join!(accepted, answers) }).await;
    watching.abort();
    let (accepted, answered) = match both {
        Ok(both) => both?,
        Err(_) => return site.until("answers of all Services", Duration::ZERO, async || Ok(None)).await,
    };
    let times = names.iter().map(|name| {
        let (accepted, answered) =
            accepted.get(name).zip(answered.get(name)).context("a Service that was lost")?;
        Ok(answered.saturating_duration_since(*accepted).as_secs_f64())
    });
    times.collect()
}

/// Tells of Services that have a VIP.
async fn watch(
    kubernetes: Arc<Kubernetes>,
    only: String,
    tell: mpsc::UnboundedSender<(String, String)>,
) -> Result<()> {
    let mut stream = kubernetes.stream(&format!("{SERVICES}?watch=true{only}")).await?;
    let mut text = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        text.extend_from_slice(&chunk);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            let object = &event["object"];
            if let (Some(name), Some(vip)) = (
                object["metadata"]["name"].as_str(),
                object["status"]["loadBalancer"]["ingress"][0]["ip"].as_str(),
            ) {
                tell.send((name.to_owned(), vip.to_owned()))?;
            }
        }
    }
    bail!("the watch has ended")
}

async fn first_answer(
    name: String,
    vip: String,
    port: u16,
    end: tokio::time::Instant,
) -> Result<(String, Instant)> {
    let target = at_port(&vip, port)?;
    loop {
        if let Ok(Ok(_)) = tokio::time::timeout(TRY, load::exchange(None, target, false)).await {
            return Ok((name, Instant::now()));
        }
        if tokio::time::Instant::now() > end {
            bail!("Service {name}: {target} does not answer");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
