//! What Nova and Neutron tell the world behind them: `ake-lab hook EVENT`, the document on standard input.
//!
//! A status other than 0 fails the request, with the last line of standard error as the fault that the tenant sees.
//! Every event may come twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cage::Cage;
use crate::machine::{self, Record};
use crate::network::{self, Card};
use crate::switch::{self, Table};
use crate::{disk, internal};

/// The network that the switch is.
const PROVIDER: &str = "provider";
/// The property of a Glance image that names the baked image: `image-<hash>` in the cache.
pub const IMAGE_PROPERTY: &str = "ake_image_hash";

/// An event of Nova.
#[derive(Debug, Deserialize)]
struct Event {
    instance: Instance,
    dir: PathBuf,
    #[serde(default)]
    networks: Vec<Network>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    uuid: String,
    name: String,
    hostname: String,
    project_id: String,
    #[serde(default)]
    image_properties: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Network {
    port: String,
    mac: String,
    name: String,
    mtu: Option<u32>,
}

impl From<&Network> for Card {
    fn from(network: &Network) -> Self {
        Self { port: network.port.clone(), mac: network.mac.clone(), mtu: network.mtu.unwrap_or(1500) }
    }
}

#[derive(Debug, Deserialize)]
struct Volume {
    volume: String,
    path: PathBuf,
    device: Option<String>,
}

/// Handles one event, whose document is on standard input.
pub fn run(event: &str) -> Result<()> {
    let document = std::io::read_to_string(std::io::stdin()).context("the event's document")?;
    handle(&Cage::running(&internal::own_dirs()?)?, event, &document)
}

/// Handles one event.
pub fn handle(cage: &Cage, event: &str, document: &str) -> Result<()> {
    if event == "network" {
        let table: Table = serde_json::from_str(document).context("the document of the event network")?;
        switch::apply(cage, &table)?;
        return Ok(());
    }
    let document: Event =
        serde_json::from_str(document).with_context(|| format!("the document of the event {event}"))?;
    let id = document.instance.uuid.as_str();
    let volume = || document.volumes.first().with_context(|| format!("the event {event} names no volume"));
    let dirs = cage.dirs();
    match event {
        "spawn" => spawn(cage, &document).inspect_err(|_| {
            // Nova does not ask for the removal of what was never there.
            let _ = destroy(cage, &document);
        }),
        "destroy" => destroy(cage, &document),
        "power_off" => machine::stop(dirs, id, true),
        "power_on" => machine::start(cage, &machine::find(dirs, id)?),
        "reboot" => {
            machine::stop(dirs, id, true)?;
            machine::start(cage, &machine::find(dirs, id)?)
        }
        "attach_volume" => attach(cage, id, volume()?),
        "detach_volume" => disk::detach(cage, id, &volume()?.volume),
        "extend_volume" => disk::extend(cage, id, &volume()?.volume),
        "attach_interface" => attach_interface(cage, &document),
        "detach_interface" => detach_interface(cage, &document),
        other => bail!("no such event: {other:?}"),
    }
}

/// The directory of the baked image that a server boots.
fn image(cage: &Cage, instance: &Instance) -> Result<PathBuf> {
    if let Some(hash) = instance.image_properties.get(IMAGE_PROPERTY).and_then(|value| value.as_str()) {
        if hash.is_empty() || !hash.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            bail!("image property {IMAGE_PROPERTY} {hash:?}: expected letters, digits and \"-\"");
        }
        return Ok(cage.dirs().cache.join(format!("image-{hash}")));
    }
    let file = cage.dirs().state.join("image");
    let text = fs::read_to_string(&file).with_context(|| {
        format!("the image has no property {IMAGE_PROPERTY}, and there is no {}", file.display())
    })?;
    Ok(Path::new(text.trim()).to_path_buf())
}

fn cards(document: &Event) -> Result<Vec<Card>> {
    if let Some(other) = document.networks.iter().find(|network| network.name != PROVIDER) {
        bail!("network {:?}: a server of this lab can only be on the network {PROVIDER:?}", other.name);
    }
    Ok(document.networks.iter().map(Card::from).collect())
}

fn spawn(cage: &Cage, document: &Event) -> Result<()> {
    let Instance { uuid, name, hostname, project_id, .. } = &document.instance;
    let record = Record {
        id: uuid.clone(),
        name: name.clone(),
        hostname: hostname.clone(),
        project: project_id.clone(),
        dir: document.dir.clone(),
        layers: machine::layers(&image(cage, &document.instance)?)?,
        cards: cards(document)?,
    };
    if machine::running(cage.dirs(), uuid).is_some() {
        return Ok(());
    }
    machine::create(cage.dirs(), &record)?;
    network::plug(cage, uuid, &record.cards)?;
    for volume in &document.volumes {
        attach(cage, uuid, volume)?;
    }
    machine::start(cage, &record)
}

fn destroy(cage: &Cage, document: &Event) -> Result<()> {
    let id = &document.instance.uuid;
    let known = machine::find(cage.dirs(), id).ok();
    machine::remove(cage.dirs(), id)?;
    let mut cards: Vec<Card> = document.networks.iter().map(Card::from).collect();
    cards.extend(known.into_iter().flat_map(|record| record.cards));
    network::unplug(cage, id, &cards)
}

fn attach(cage: &Cage, server: &str, volume: &Volume) -> Result<()> {
    disk::attach(cage, server, &volume.volume, &volume.path, volume.device.as_deref())?;
    Ok(())
}

fn attach_interface(cage: &Cage, document: &Event) -> Result<()> {
    let mut record = machine::find(cage.dirs(), &document.instance.uuid)?;
    for card in cards(document)? {
        if record.cards.iter().any(|known| known.port == card.port) {
            continue;
        }
        network::plug_card(cage, &network::namespace(&record.id), record.cards.len(), &card)?;
        record.cards.push(card);
        machine::save(cage.dirs(), &record)?;
    }
    Ok(())
}

fn detach_interface(cage: &Cage, document: &Event) -> Result<()> {
    let mut record = machine::find(cage.dirs(), &document.instance.uuid)?;
    for network in &document.networks {
        network::unplug_card(cage, &network.port)?;
        record.cards.retain(|card| card.port != network.port);
    }
    machine::save(cage.dirs(), &record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_nova_is_understood() {
        let text = r#"{"event":"spawn","instance":{"uuid":"u","name":"n","hostname":"h","project_id":"p",
            "user_id":"x","host":"lab","zone":"nova","metadata":{},"key_name":null,"image":"i","state":"running",
            "image_properties":{"ake_image_hash":"abc"},"flavor":{"name":"m1.node","vcpus":2,"ram":4096,"disk":10}},
            "dir":"/d","networks":[{"port":"0a1b","mac":"fa:16:3e:00:00:01","network":"net","name":"provider",
            "mtu":null,"device":"tap0a1b","subnets":[]}],"volumes":[{"volume":"v","path":"/f","device":null}]}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(
            cards(&event).unwrap(),
            [Card { port: "0a1b".to_owned(), mac: "fa:16:3e:00:00:01".to_owned(), mtu: 1500 }]
        );
        let elsewhere: Event = serde_json::from_str(&text.replace("\"provider\"", "\"other\"")).unwrap();
        let error = cards(&elsewhere).unwrap_err().to_string();
        assert!(error.contains("\"other\"") && error.contains("\"provider\""), "{error}");
    }

    #[test]
    fn the_document_of_neutron_is_understood() {
        let text = r#"{"event":"network","generation":1764000000000000000,"ports":[{"id":"a","name":"",
            "network_id":"n","tenant_id":"p","project_id":"p","mac_address":"fa:16:3e:00:00:01","admin_state_up":true,
            "status":"ACTIVE","device_id":"d","device_owner":"compute:nova","fixed_ips":[{"subnet_id":"s",
            "ip_address":"192.168.77.10"}],"allowed_address_pairs":[{"ip_address":"10.240.1.0/24",
            "mac_address":"fa:16:3e:00:00:01"}],"port_security_enabled":true,"security_groups":["g"]}],
            "groups":{"g":[{"id":"r","direction":"ingress","ethertype":"IPv4","protocol":null,"port_range_min":null,
            "port_range_max":null,"remote_ip_prefix":null,"remote_group_id":"g","description":""}]},"networks":{}}"#;
        let table: Table = serde_json::from_str(text).unwrap();
        assert!(table.ports[0].of_server());
        assert_eq!(table.groups["g"][0].remote_group_id.as_deref(), Some("g"));
    }
}
