//! Writes of addresses.

use std::net::IpAddr;

use ake_api_client::{AddressRequest, Family};

use super::{Judge, Stop, vip_checked};
use crate::{
    decide::{
        addresses::{self, Choice},
        wanted::Note,
    },
    refusal::Refusal,
};

impl Judge<'_> {
    pub(super) fn put_address(&mut self, name: &str, request: &AddressRequest) -> Result<(), Stop> {
        if let Some(has) = self.wanted.addresses.get(name) {
            let family = if has.is_ipv4() { Family::V4 } else { Family::V6 };
            return match request.address {
                Some(other) if other != *has => Err(Refusal::conflict(format!(
                    "address {name}: {other}: it is {has}, and an address is never changed; delete it and ask anew"
                ))
                .of_field("address")
                .into()),
                None if request.family != family => Err(Refusal::conflict(format!(
                    "address {name}: family: it is {has}, and an address is never changed; delete it and ask anew"
                ))
                .of_field("family")
                .into()),
                _ => {
                    self.note(name, request);
                    Ok(())
                }
            };
        }
        if let Some(adopted) = &request.adopt {
            return self.adopt(name, request, adopted);
        }
        match addresses::choose(request, &self.cluster.blocks, &self.held.addresses)? {
            Choice::Address(address) => {
                self.held.addresses.insert(address, name.to_owned());
                self.wanted.addresses.insert(name.to_owned(), address);
                self.note(name, request);
                Ok(())
            }
            Choice::NeedsBlock(family) => Err(Stop::NeedsBlock(family)),
        }
    }

    fn adopt(&mut self, name: &str, request: &AddressRequest, adopted: &str) -> Result<(), Stop> {
        let project = &self.cluster.project;
        let adoption = match adopted.parse::<IpAddr>() {
            Ok(address) => {
                let found = self.facts.retained.get(&address);
                addresses::adopt_retained(request, address, project, found)?
            }
            Err(_) => {
                let fact = self.known.with_id(adopted).filter(|fact| fact.project == *project);
                addresses::adopt(request, adopted, project, fact, &self.facts.vip_networks)?
            }
        };
        let address = adoption.address;
        if let Some(holder) = self.held.addresses.get(&address) {
            return Err(Refusal::conflict(format!(
                "adopt: {adopted}: its address {address} is address {holder} of this cluster already"
            ))
            .of_field("adopt")
            .into());
        }
        if !self.cluster.blocks.contains(&address.into()) {
            return Err(Stop::NeedsAdoption(adoption));
        }
        self.held.addresses.insert(address, name.to_owned());
        self.wanted.addresses.insert(name.to_owned(), address);
        self.note(name, request);
        Ok(())
    }

    /// Keeps what is said of an address; what is not said stays as it was.
    fn note(&mut self, name: &str, request: &AddressRequest) {
        let before = self.wanted.notes.get(name).cloned().unwrap_or_default();
        let note = Note {
            retained: request.retain.unwrap_or(before.retained),
            about: request.about.clone().or(before.about).filter(|about| !about.is_empty()),
        };
        self.wanted.note(name.to_owned(), note);
    }

    pub(super) fn delete_address(&mut self, name: &str) -> Result<(), Refusal> {
        if let Some(user) = self.held.user_of(name) {
            return Err(Refusal::conflict(format!(
                "address {name}: load balancer {user} uses it; delete that first"
            )));
        }
        if self.cluster.deleting {
            for pool in self.wanted.pools.values_mut() {
                pool.checks.retain(|check| vip_checked(check) != Some(name));
            }
        }
        for (port, askers) in &mut self.wanted.node_ports {
            for (asker, ask) in askers {
                if self.cluster.deleting {
                    ask.addresses.retain(|address| address != name);
                } else if ask.addresses.iter().any(|address| address == name) {
                    return Err(Refusal::conflict(format!(
                        "address {name}: node port {port} has it as an address pair, which {asker} asked for; delete \
                         that first"
                    )));
                }
            }
        }
        if let Some(address) = self.wanted.addresses.remove(name) {
            self.held.addresses.remove(&address);
        }
        self.wanted.notes.remove(name);
        Ok(())
    }
}
