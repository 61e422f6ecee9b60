//! Members whose MAC address the state does not tell.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use lb_driver::model::State;
use tokio::sync::watch;

use super::{Engine, Inner, PutError};
use crate::neighbours::Macs;

/// What neighbours said, and who is asked.
pub struct Learned {
    /// What is known.
    pub macs: Macs,
    /// Addresses of the members that are looked for.
    pub asks: watch::Sender<BTreeSet<IpAddr>>,
}

impl Inner {
    /// A state with what was learned.
    pub(super) fn completed<'a>(&self, state: &'a State) -> Cow<'a, State> {
        let Some(learned) = &self.learned else { return Cow::Borrowed(state) };
        if unknown(state).next().is_none() {
            return Cow::Borrowed(state);
        }
        let mut state = state.clone();
        for member in state.pools.values_mut().flat_map(|pool| pool.members.values_mut()) {
            member.mac = member.mac.or_else(|| learned.macs.get(&member.address).copied());
        }
        Cow::Owned(state)
    }

    /// Has neighbours asked for what a state does not tell.
    pub(super) fn ask(&self, state: &State) {
        if let Some(learned) = &self.learned {
            let wanted: BTreeSet<IpAddr> = unknown(state).collect();
            learned.asks.send_if_modified(|asked| {
                let other = *asked != wanted;
                *asked = wanted;
                other
            });
        }
    }
}

impl Engine {
    /// Takes in what neighbours say.
    pub fn learn(&self, macs: Macs) -> Result<(), PutError> {
        let mut inner = self.lock();
        let Some(learned) = &mut inner.learned else { return Ok(()) };
        if learned.macs == macs {
            return Ok(());
        }
        learned.macs = macs;
        let Some(state) = inner.state.clone() else { return Ok(()) };
        let (book, tables, health) = inner.plan(&state, false)?;
        let enforced = inner.enforce(state, book, &tables, health);
        self.mark();
        enforced
    }
}

/// Addresses of members without a MAC address.
fn unknown(state: &State) -> impl Iterator<Item = IpAddr> {
    let members = state.pools.values().flat_map(|pool| pool.members.values());
    members.filter(|member| member.mac.is_none()).map(|member| member.address)
}
