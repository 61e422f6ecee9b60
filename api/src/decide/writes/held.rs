//! Who holds what of a cluster's addresses, found at once however many there are.

use std::{collections::BTreeMap, net::IpAddr};

use ake_api_client::{Listener, LoadBalancerRequest, Protocol};

use crate::decide::wanted::Wanted;

/// Holders of addresses and of their ports.
pub(super) struct Held {
    /// Name of each address.
    pub(super) addresses: BTreeMap<IpAddr, String>,
    /// The load balancer on each port of an address' name.
    ports: BTreeMap<(String, Protocol, u16), String>,
}

impl Held {
    pub(super) fn new(wanted: &Wanted) -> Self {
        let addresses = wanted.addresses.iter().map(|(name, address)| (*address, name.clone()));
        let mut held = Self { addresses: addresses.collect(), ports: BTreeMap::new() };
        for (name, balancer) in &wanted.load_balancers {
            held.take(name, balancer);
        }
        held
    }

    /// The load balancer that has a listener's port on an address.
    pub(super) fn listens(&self, address: &str, listener: &Listener) -> Option<&str> {
        self.ports.get(&(address.to_owned(), listener.protocol, listener.port)).map(String::as_str)
    }

    /// One of the load balancers on an address; each has a port.
    pub(super) fn user_of(&self, address: &str) -> Option<&str> {
        let mut from = self.ports.range((address.to_owned(), Protocol::Tcp, 0)..);
        from.next().filter(|((held, ..), _)| held == address).map(|(_, user)| user.as_str())
    }

    /// A load balancer has its ports now.
    pub(super) fn take(&mut self, name: &str, balancer: &LoadBalancerRequest) {
        for key in keys(balancer) {
            self.ports.insert(key, name.to_owned());
        }
    }

    /// One has them no more.
    pub(super) fn let_go(&mut self, balancer: &LoadBalancerRequest) {
        for key in keys(balancer) {
            self.ports.remove(&key);
        }
    }
}

fn keys(balancer: &LoadBalancerRequest) -> impl Iterator<Item = (String, Protocol, u16)> + '_ {
    balancer.listeners.iter().map(|listener| (balancer.address.clone(), listener.protocol, listener.port))
}
