//! How much a project may have.

use std::collections::BTreeMap;

use ake_api_client::Write;
use serde::Deserialize;

use super::wanted::Wanted;
use crate::refusal::{Kind, Refusal};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Clusters, those that are being deleted among them.
    Clusters,
    /// VIPs, those that outlived their cluster among them.
    Addresses,
    /// Pools.
    Pools,
    /// Members of all pools.
    Members,
    /// Load balancers.
    LoadBalancers,
    /// Listeners of all load balancers.
    Listeners,
    /// VIPs that outlive their cluster, or have: one that no cluster has keeps its whole block from everybody else.
    Retained,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Clusters,
        Self::Addresses,
        Self::Pools,
        Self::Members,
        Self::LoadBalancers,
        Self::Listeners,
        Self::Retained,
    ];

    /// Its key in the configuration, and its name on the wire.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Addresses => "addresses",
            Self::Pools => "pools",
            Self::Members => "members",
            Self::LoadBalancers => "load_balancers",
            Self::Listeners => "listeners",
            Self::Retained => "retained",
        }
    }

    /// How much a project may have where the operator says nothing.
    fn usual(self) -> i64 {
        match self {
            Self::Clusters => 10,
            Self::Addresses | Self::Pools | Self::LoadBalancers => 500,
            Self::Members => 20_000,
            Self::Listeners => 2_000,
            Self::Retained => 20,
        }
    }
}

/// How much there is of each resource; of what is not named, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage(BTreeMap<Resource, u64>);

impl Usage {
    /// What one cluster has.
    #[must_use]
    pub fn of(wanted: &Wanted) -> Self {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut usage = Self::default();
        for (resource, number) in [
            (Resource::Clusters, 1),
            (Resource::Addresses, count(wanted.addresses.len())),
            (Resource::Pools, count(wanted.pools.len())),
            (Resource::Members, count(wanted.pools.values().map(|pool| pool.members.len()).sum())),
            (Resource::LoadBalancers, count(wanted.load_balancers.len())),
            (Resource::Listeners, count(wanted.load_balancers.values().map(|lb| lb.listeners.len()).sum())),
            (Resource::Retained, count(wanted.notes.values().filter(|note| note.retained).count())),
        ] {
            usage.add(resource, number);
        }
        usage
    }

    /// What one cluster would have of addresses after these writes, whether or not there are any left for it. The rest
    /// is as before.
    #[must_use]
    pub fn with_addresses_of(wanted: &Wanted, writes: &[Write]) -> Self {
        // each with whether it is retained
        let note = |name: &String| wanted.notes.get(name).is_some_and(|note| note.retained);
        let mut names: BTreeMap<&String, bool> =
            wanted.addresses.keys().map(|name| (name, note(name))).collect();
        for write in writes {
            match write {
                Write::PutAddress { name, request } => {
                    let retained = names.entry(name).or_default();
                    *retained = request.retain.unwrap_or(*retained);
                }
                Write::DeleteAddress { name } => {
                    names.remove(name);
                }
                _ => {}
            }
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut usage = Self::of(wanted);
        usage.0.retain(|resource, _| !matches!(resource, Resource::Addresses | Resource::Retained));
        usage.add(Resource::Addresses, count(names.len()));
        usage.add(Resource::Retained, count(names.values().filter(|retained| **retained).count()));
        usage
    }

    /// How much of one.
    #[must_use]
    pub fn get(&self, resource: Resource) -> u64 {
        self.0.get(&resource).copied().unwrap_or_default()
    }

    /// With so much more of one.
    pub fn add(&mut self, resource: Resource, more: u64) {
        if more > 0 {
            *self.0.entry(resource).or_default() += more;
        }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            one.0.into_iter().for_each(|(resource, more)| sum.add(resource, more));
            sum
        })
    }
}

/// At most this much of each resource for one project; -1 for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Clusters, those that are being deleted among them.
    pub clusters: Option<i64>,
    /// VIPs, those that outlived their cluster among them.
    pub addresses: Option<i64>,
    /// Pools.
    pub pools: Option<i64>,
    /// Members of all pools: a node counts in each pool that it is in.
    pub members: Option<i64>,
    /// Load balancers.
    pub load_balancers: Option<i64>,
    /// Listeners of all load balancers.
    pub listeners: Option<i64>,
    /// VIPs that outlive their cluster, or have: one that no cluster has keeps its whole block from everybody else.
    pub retained: Option<i64>,
}

impl Quota {
    /// What holds where the operator says nothing.
    #[cfg(test)]
    pub(crate) fn usual() -> Self {
        let usual = |resource: Resource| Some(resource.usual());
        Self {
            clusters: usual(Resource::Clusters),
            addresses: usual(Resource::Addresses),
            pools: usual(Resource::Pools),
            members: usual(Resource::Members),
            load_balancers: usual(Resource::LoadBalancers),
            listeners: usual(Resource::Listeners),
            retained: usual(Resource::Retained),
        }
    }

    fn get(&self, resource: Resource) -> Option<i64> {
        match resource {
            Resource::Clusters => self.clusters,
            Resource::Addresses => self.addresses,
            Resource::Pools => self.pools,
            Resource::Members => self.members,
            Resource::LoadBalancers => self.load_balancers,
            Resource::Listeners => self.listeners,
            Resource::Retained => self.retained,
        }
    }
}

/// How much each project may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Whoever is not named.
    pub general: Quota,
    /// Projects by id.
    pub projects: BTreeMap<String, Quota>,
}

impl Quotas {
    /// A project's limit of a resource; none where there is no limit.
    #[must_use]
    pub fn limit(&self, project: &str, resource: Resource) -> Option<u64> {
        let own = self.projects.get(project).and_then(|own| own.get(resource));
        let limit = own.or_else(|| self.general.get(resource)).unwrap_or_else(|| resource.usual());
        u64::try_from(limit).ok()
    }

    /// The key and the value of a limit that is none.
    #[must_use]
    pub fn wrong(&self) -> Option<(String, i64)> {
        let general = std::iter::once(("quota".to_owned(), &self.general));
        let own = self.projects.iter().map(|(project, own)| (format!("project_quota.{project}"), own));
        let limits = general.chain(own).flat_map(|(key, quota)| {
            Resource::ALL.map(|resource| (format!("{key}.{}", resource.key()), quota.get(resource)))
        });
        limits.filter_map(|(key, limit)| Some((key, limit?))).find(|(_, limit)| *limit < -1)
    }

    /// Whether a project may go from having `before` to having `after` in one cluster, with `others` in its others.
    /// What does not grow is never refused: a limit that was lowered takes nothing away.
    pub fn admit(&self, project: &str, others: &Usage, before: &Usage, after: &Usage) -> Result<(), Refusal> {
        for resource in Resource::ALL {
            let (had, wants) = (before.get(resource), after.get(resource));
            if let Some(limit) = self.limit(project, resource)
                && wants > had
                && others.get(resource) + wants > limit
            {
                let (key, used) = (resource.key(), others.get(resource) + had);
                let message = format!(
                    "quota {key}: {used} of {limit} in use by project {project}, and {} more asked for; expected room for \
                     them: delete some, or ask the operator for a higher quota",
                    wants - had
                );
                return Err(Refusal::new(Kind::Quota, message).of_field(key));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ake_api_client::AddressRequest;

    use super::*;

    fn usage(addresses: u64) -> Usage {
        let mut usage = Usage::default();
        usage.add(Resource::Addresses, addresses);
        usage
    }

    #[test]
    fn what_grows_past_the_limit_is_refused_and_named() {
        let general = Quota { addresses: Some(10), ..Quota::default() };
        let quotas = Quotas { general, ..Quotas::default() };
        for (others, before, after, expected) in
            [(7, 2, 3, true), (8, 2, 3, false), (20, 3, 3, true), (20, 3, 2, true), (10, 0, 1, false)]
        {
            let admitted = quotas.admit("p", &usage(others), &usage(before), &usage(after));
            assert_eq!(admitted.is_ok(), expected, "{others} {before} {after}");
            if let Err(refusal) = admitted {
                assert_eq!((refusal.kind, refusal.field.as_deref()), (Kind::Quota, Some("addresses")));
                let said = format!("quota addresses: {} of 10 in use by project p", others + before);
                assert!(refusal.message.starts_with(&said), "{refusal}");
            }
        }
    }

    #[test]
    fn a_project_may_have_limits_of_its_own_or_none() {
        let own = Quota { addresses: Some(-1), ..Quota::default() };
        let mut quotas = Quotas { projects: [("rich".to_owned(), own)].into(), ..Quotas::default() };
        assert_eq!(quotas.limit("rich", Resource::Addresses), None);
        assert_eq!(quotas.limit("rich", Resource::Clusters), Some(10));
        assert!(quotas.admit("rich", &usage(9_999_999), &usage(0), &usage(1)).is_ok());
        assert_eq!(quotas.wrong(), None);
        quotas.projects.entry("p".to_owned()).or_default().pools = Some(-2);
        assert_eq!(quotas.wrong(), Some(("project_quota.p.pools".to_owned(), -2)));
        quotas.general.clusters = Some(-5);
        assert_eq!(quotas.wrong(), Some(("quota.clusters".to_owned(), -5)));
    }

    #[test]
    fn addresses_are_counted_before_any_is_chosen() {
        let address = ("a".to_owned(), "203.0.113.17".parse().unwrap());
        let wanted = Wanted { addresses: [address].into(), ..Wanted::default() };
        let put = |name: &str| Write::PutAddress { name: name.into(), request: Default::default() };
        let delete = |name: &str| Write::DeleteAddress { name: name.into() };
        let keep = |name: &str, retain| {
            let request = AddressRequest { retain: Some(retain), ..AddressRequest::default() };
            Write::PutAddress { name: name.into(), request }
        };
        for (writes, count, retained) in [
            (vec![put("a")], 1, 0),
            (vec![put("b"), put("c"), put("b")], 3, 0),
            (vec![delete("a"), put("b")], 1, 0),
            (vec![put("b"), delete("b")], 1, 0),
            (vec![keep("a", true), keep("b", true), put("a")], 2, 2),
            (vec![keep("a", true), keep("b", true), keep("b", false)], 2, 1),
        ] {
            let usage = Usage::with_addresses_of(&wanted, &writes);
            let counts = (usage.get(Resource::Addresses), usage.get(Resource::Retained));
            assert_eq!(counts, (count, retained), "{writes:?}");
        }
    }
}
