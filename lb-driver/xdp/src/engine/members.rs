//! What is asked of members, and what the answers say of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_driver::model::{Check, MacAddr, Member, Owner, Pool, State};

use super::Inner;
use crate::{
    health::{Health, Silence, Target},
    memory::Identity,
    plan::Standing,
};

impl Inner {
    /// Takes results of checks in. Whether members stand otherwise than before, and whether anything is news.
    pub(super) fn hear(&mut self, reports: impl IntoIterator<Item = (Target, Health)>) -> (bool, bool) {
        let returns = |(_, health): &(&Target, &Health)| health.silence == Some(Silence::OfTheWell);
        // Who stands as before once somebody is heard again.
        let were_well: Vec<Target> = match Signs::of(&self.health).deaf() {
            true => self.health.iter().filter(returns).map(|(target, _)| target.clone()).collect(),
            false => vec![],
        };
        let (mut changed, mut news) = (false, false);
        for (target, health) in reports {
            if let Some(known) = self.health.get_mut(&target).filter(|known| **known != health) {
                let of = |health: &Health| (health.verdict().is_ok(), health.heard());
                changed |= of(known) != of(&health);
                news = true;
                *known = health;
            }
        }
        if !were_well.is_empty() && !Signs::of(&self.health).deaf() {
            // What was not heard meanwhile says nothing of who did not speak: as after a restart.
            for target in &were_well {
                if let Some(health) =
                    self.health.get_mut(target).filter(|health| health.healthy != Some(true))
                {
                    *health = Health { presumed: true, ..Health::default() };
                    self.checker.forget([target]);
                }
            }
        }
        (changed, news)
    }

    /// Targets of the members that took packets when the process before us stopped; all of them where no process was.
    pub(super) fn took(&self, state: &State) -> BTreeSet<Target> {
        let memory = self.plane.memory();
        let alive = memory.alive();
        let took = |pool: &Owner, name: &str, member: &Member| {
            memory.places.is_empty() || alive.contains(&Identity::member(pool, name, member.address))
        };
        let members = state.pools.iter().flat_map(|(owner, pool)| {
            pool.members
                .iter()
                .filter(move |(name, member)| took(owner, name, member))
                .map(move |m| (pool, m.1))
        });
        members.flat_map(|(pool, member)| targets_of(pool, member)).collect()
    }
}

/// What is asked of a member.
fn targets_of(pool: &Pool, member: &Member) -> impl Iterator<Item = Target> {
    pool.checks.iter().map(|check| Target { address: member.address, check: check.clone() })
}

/// The members by way of which a VIP is checked.
pub(super) fn ways(state: &State) -> BTreeMap<IpAddr, Option<MacAddr>> {
    let asked = |pool: &&Pool| pool.checks.iter().any(|check| matches!(check, Check::Vip { .. }));
    let pools = state.pools.values().filter(asked);
    pools.flat_map(|pool| pool.members.values().map(|member| (member.address, member.mac))).collect()
}

pub(super) fn targets(state: &State) -> BTreeSet<Target> {
    state.pools.values().flat_map(|pool| pool.members.values().flat_map(|m| targets_of(pool, m))).collect()
}

/// What checks say together: not well if one says so, well if all do.
pub(super) fn healthy(health: &BTreeMap<Target, Health>, pool: &Pool, member: &Member) -> Option<bool> {
    let said: Vec<_> = targets_of(pool, member).map(|target| health.get(&target)?.healthy).collect();
    match said.contains(&Some(false)) {
        true => Some(false),
        false => (!said.contains(&None)).then_some(true),
    }
}

/// Who gives a sign of life, of those who were asked.
#[derive(Debug, Default)]
pub(super) struct Signs {
    heard: BTreeSet<IpAddr>,
    silent: BTreeSet<IpAddr>,
}

impl Signs {
    /// A machine whose one program says nothing is there as long as another one does.
    pub(super) fn of(health: &BTreeMap<Target, Health>) -> Self {
        let with = |sign| {
            let targets = health.iter().filter(move |(_, health)| health.heard() == Some(sign));
            targets.map(|(target, _)| target.address).collect()
        };
        let heard: BTreeSet<_> = with(true);
        Self { silent: &with(false) - &heard, heard }
    }

    /// Whether nobody is heard who was: then it is more likely that we are cut off than that all of them are gone.
    pub(super) fn deaf(&self) -> bool {
        self.heard.is_empty() && !self.silent.is_empty()
    }

    fn gone(&self, address: IpAddr) -> bool {
        !self.deaf() && self.silent.contains(&address)
    }
}

/// What a member takes.
pub(super) fn standing(
    health: &BTreeMap<Target, Health>,
    signs: &Signs,
    pool: &Pool,
    member: &Member,
) -> Standing {
    let returns = |target: Target| {
        let known = health.get(&target);
        known.is_some_and(|known| known.verdict().is_ok() || known.silence == Some(Silence::OfTheWell))
    };
    match verdict(health, pool, member) {
        Ok(()) => Standing::Well,
        Err(_) if signs.gone(member.address) => Standing::Down,
        Err(_) if signs.deaf() && targets_of(pool, member).all(returns) => Standing::Unheard,
        Err(_) => Standing::Unwell,
    }
}

/// Whether a member takes all packets, and if not, why.
pub(super) fn verdict(health: &BTreeMap<Target, Health>, pool: &Pool, member: &Member) -> Result<(), String> {
    if member.mac.is_none() {
        return Err("its MAC address is not known".to_owned());
    }
    targets_of(pool, member)
        .try_for_each(|target| health.get(&target).map_or(Err("not checked yet".to_owned()), Health::verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of targets by address and port.
    fn signs(targets: &[(u8, u16, Option<bool>)]) -> Signs {
        let health = targets.iter().map(|(address, port, heard)| {
            let check = Check::Tcp { port: (*port).try_into().unwrap() };
            let health = Health {
                healthy: heard.map(|_| false),
                silence: (*heard == Some(false)).then_some(Silence::OfTheWell),
                ..Health::default()
            };
            (Target { address: [192, 168, 77, *address].into(), check }, health)
        });
        Signs::of(&health.collect())
    }

    #[test]
    fn a_machine_is_gone_when_all_of_it_is_silent_and_another_is_not() {
        let (heard, silent) = (Some(true), Some(false));
        for (targets, deaf, gone) in [
            (vec![], false, vec![]),
            (vec![(1, 80, None)], false, vec![]),
            (vec![(1, 80, silent)], true, vec![]),
            (vec![(1, 80, silent), (2, 80, silent)], true, vec![]),
            (vec![(1, 80, silent), (2, 80, heard)], false, vec![1]),
            (vec![(1, 80, silent), (1, 81, heard), (2, 80, heard)], false, vec![]),
            (vec![(1, 80, silent), (1, 81, None), (2, 80, heard)], false, vec![1]),
            (vec![(1, 80, silent), (2, 80, silent), (3, 80, heard)], false, vec![1, 2]),
        ] {
            let signs = signs(&targets);
            let are_gone: Vec<u8> = (1..4).filter(|a| signs.gone([192, 168, 77, *a].into())).collect();
            assert_eq!((signs.deaf(), are_gone), (deaf, gone), "{targets:?}");
        }
    }
}
