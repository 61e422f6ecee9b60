//! What a project has of what it may have.

use std::collections::BTreeMap;

use ake_api_client::{Quota, Quotas};

use super::Service;
use crate::{
    decide::{
        access::Caller,
        quota::{Resource, Usage},
    },
    refusal::Refusal,
};

impl Service {
    /// What the caller's project has of what it may have, in numbers alone: whoever may write for one of its clusters
    /// meets the same quota as the others.
    pub async fn quota(&self, caller: &Caller) -> Result<Quotas, Refusal> {
        let usage = self.store.usage(&caller.project).await?;
        let quotas = self.of_project(&caller.project, &usage).collect();
        Ok(Quotas { project: caller.project.clone(), quotas })
    }

    /// Shows all projects' numbers to who reads the metrics.
    pub async fn measure_quotas(&self) -> Result<(), Refusal> {
        let usages = self.store.usages().await?;
        let measured: BTreeMap<_, _> = usages
            .iter()
            .map(|(project, usage)| (project.clone(), self.of_project(project, usage).collect()))
            .collect();
        self.metrics.quotas(&measured);
        Ok(())
    }

    fn of_project(&self, project: &str, usage: &Usage) -> impl Iterator<Item = (String, Quota)> {
        let quotas = self.config.quotas();
        Resource::ALL.into_iter().map(move |resource| {
            let quota = Quota { used: usage.get(resource), limit: quotas.limit(project, resource) };
            (resource.key().to_owned(), quota)
        })
    }
}
