//! The lab's OpenStack is the stock one, and what stands in for hypervisor, switch, disks and broker does what
//! services expect of those.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests stand outside of them

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ake_lab::balancers::Balancers;
use ake_lab::lab::Extent;
use ake_lab::openstack::install::{Programs, sources};
use ake_lab::{Dirs, Lab, shell, switch};
use serde_json::Value;

/// A lab that ends with the test, however that ends.
struct Ends(Lab);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(self.0.name()) {
            eprintln!("the lab did not end well: {error:#}");
        }
    }
}

impl Ends {
    fn json(&self, user: &str, words: &str) -> Value {
        let said =
            shell::run(self.0.tenant(user).args(words.split_whitespace()).args(["-f", "json"])).unwrap();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words}: {error}: {said}"))
    }

    fn run(&self, user: &str, words: &str) {
        shell::run(self.0.tenant(user).args(words.split_whitespace())).unwrap();
    }

    /// What the stock client says of a thing that is refused.
    fn refused(&self, user: &str, words: &str) -> String {
        let output = shell::output(self.0.tenant(user).args(words.split_whitespace())).unwrap();
        assert!(!output.status.success(), "{words} was not refused");
        shell::said(&output)
    }

    fn eventually(&self, what: &str, so: impl Fn() -> bool) {
        for _ in 0..600 {
            if so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("not within a minute: {what}");
    }
}

#[test]
fn the_broker_does_what_services_expect() {
    let dirs = Dirs::of("none").unwrap();
    let programs = Programs::install(&dirs, &mut |text| println!("{text}")).unwrap();
    shell::run(
        Command::new(programs.services.join("bin/python"))
            .args(["-B", "-W", "ignore", "-m", "unittest", "discover", "-q", "-s", "tests"])
            .env("PYTHONPATH", "standins")
            .current_dir(sources()),
    )
    .unwrap();
}

#[test]
fn an_openstack_with_stock_limits_and_what_stands_in_for_its_machines() {
    let lab =
        Lab::start("test-openstack", Extent::Cloud, Balancers::Two, &mut |text| println!("{text}")).unwrap();
    let lab = Ends(lab);
    stock_limits(&lab);
    the_switch_is_told(&lab);
    what_cannot_start_says_why(&lab);
    volumes_are_sparse_files(&lab);
    services_come_back(&lab);
    let state = lab.0.dirs().state.clone();
    drop(lab);
    assert!(!state.exists());
}

fn stock_limits(lab: &Ends) {
    let quotas = lab.json("demo", "quota show");
    let stock = |name: &str, limit: i64| {
        let row = quotas.as_array().unwrap().iter().find(|row| row["Resource"] == name).unwrap();
        assert_eq!(row["Limit"], limit, "{name}");
    };
    for (name, limit) in
        [("instances", 10), ("cores", 20), ("ports", 500), ("volumes", 10), ("security_groups", 10)]
    {
        stock(name, limit);
    }
    let token = lab.json("demo", "token issue");
    let expires = token["expires"].as_str().unwrap().replace("+0000", "Z");
    let left = expires.parse::<jiff::Timestamp>().unwrap().duration_since(jiff::Timestamp::now());
    assert!((3500..=3600).contains(&left.as_secs()), "a token lives {left}");
    assert!(
        lab.refused("demo", "port create --network provider --fixed-ip ip-address=192.168.77.50 p")
            .contains("403")
    );
    assert!(lab.refused("demo", "network create --share mine").contains("403"));
}

fn the_switch_is_told(lab: &Ends) {
    lab.run("demo", "security group create web");
    lab.run("demo", "port create --network provider --security-group web p");
    let port = lab.json("demo", "port show p");
    let id = port["id"].as_str().unwrap();
    let table = || switch::current(lab.0.dirs()).unwrap();
    let find = || table().ports.into_iter().find(|port| port.id == id);
    let told = find().unwrap();
    assert_eq!(told.mac_address, port["mac_address"].as_str().unwrap());
    let group = &told.security_groups[0];
    let before = table().groups[group].len();
    lab.run("demo", "security group rule create --protocol tcp --dst-port 80 web");
    lab.eventually("the switch has the rule", || table().groups[group].len() == before + 1);
    lab.run("admin", &format!("port set --allowed-address ip-address=203.0.113.17 {id}"));
    assert_eq!(find().unwrap().allowed_address_pairs.len(), 1);
    lab.run("demo", "port delete p");
    assert!(find().is_none());
}

fn what_cannot_start_says_why(lab: &Ends) {
    let image = Path::new(&lab.0.dirs().state).join("image.raw");
    std::fs::write(&image, b"small").unwrap();
    lab.run(
        "admin",
        &format!(
            "image create --public --disk-format raw --container-format bare --file {} i",
            image.display()
        ),
    );
    lab.run("demo", "server create --image i --flavor m1.node --network provider v");
    lab.eventually("the server is in ERROR", || lab.json("demo", "server show v")["status"] == "ERROR");
    let fault = lab.json("demo", "server show v")["fault"]["message"].as_str().unwrap().to_owned();
    assert!(fault.contains("hook spawn: ") && fault.contains("ake_image_hash"), "{fault}");
    lab.run("demo", "server delete --wait v");
}

fn volumes_are_sparse_files(lab: &Ends) {
    lab.run("demo", "volume create --size 2 d");
    lab.eventually("the volume is there", || lab.json("demo", "volume show d")["status"] == "available");
    let id = lab.json("demo", "volume show d")["id"].as_str().unwrap().to_owned();
    let file = lab.0.dirs().openstack().join(format!("data/cinder/volumes/volume-{id}"));
    let seen = std::fs::metadata(&file).unwrap();
    assert_eq!((seen.len(), seen.blocks()), (2 << 30, 0));
    lab.run("demo", "volume set --size 3 d");
    lab.eventually("it has grown", || std::fs::metadata(&file).unwrap().len() == 3 << 30);
    lab.eventually("it is free", || lab.json("demo", "volume show d")["status"] == "available");
    lab.run("demo", "volume delete d");
    lab.eventually("the file is gone", || !file.exists());
}

fn services_come_back(lab: &Ends) {
    let before = lab.0.pid("neutron").unwrap();
    lab.0.kill("neutron").unwrap();
    lab.0.restart("neutron").unwrap();
    assert_ne!(lab.0.pid("neutron").unwrap(), before);
    lab.0.new_project("third").unwrap();
    let networks = lab.json("third", "network list");
    assert_eq!(networks.as_array().unwrap().len(), 1, "{networks}");
    let log = std::fs::read_to_string(lab.0.access_log("neutron")).unwrap();
    let line = log.lines().last().unwrap();
    assert!(line.contains(" 198.51.100.2 third third GET /v2.0/networks 200 "), "{line}");
}
