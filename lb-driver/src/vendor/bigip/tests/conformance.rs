//! The suite that every driver passes, against the stand-in.

use ake_bigip::Fault as Blow;
use serde_json::{Value, json};

use super::*;
use crate::{
    conformance::{self, Deed, Fault, Outcome},
    driver::DriverError,
};

/// The request that takes effect.
const COMMIT: &str = "PATCH /mgmt/tm/transaction";
/// The partition of the project that most of the suite's objects are of.
const PARTITION: &str = "ake-conformance";

struct Harness {
    device: Device,
    settings: Settings,
    writes: u64,
    _served: Served,
}

fn done(outcome: Outcome) -> Deed<'static, Outcome> {
    Box::pin(async { Ok(outcome) })
}

impl Harness {
    async fn new() -> Self {
        let device = Device::new(Options::default());
        let served = Served::start(device.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let settings = Settings {
            urls: vec![served.url.clone()],
            username: USER.to_owned(),
            password: PASSWORD.to_owned(),
            ca: served.ca.clone().into_bytes(),
            partition_prefix: "ake-".to_owned(),
            traffic_group: "/Common/traffic-group-1".to_owned(),
            sync_group: None,
            timeout: Duration::from_secs(2),
            patience: Duration::from_millis(300),
        };
        Self { device, settings, writes: 0, _served: served }
    }

    /// An address is in one partition only, so who listens on a VIP of ours beside us does so in our partition.
    fn put(&self, name: &str, vip: IpAddr, endpoint: Endpoint) -> Result<(), String> {
        let ours = json!({"name": PARTITION, "description": "ake project conformance"});
        if !self.device.paths("auth/partition").contains(&PARTITION.to_owned()) {
            self.device.elsewhere("POST", "auth/partition", ours)?;
        }
        let destination = format!("/{PARTITION}/{}", forms::with_port(vip, endpoint.port.get()));
        let protocol = derive::protocol(endpoint.protocol);
        let node = json!({"name": "192.168.77.21:80"});
        let pool = json!({"name": name, "partition": PARTITION, "members": [node]});
        let body = json!({
            "name": name, "partition": PARTITION, "destination": destination, "ipProtocol": protocol,
            "pool": format!("/{PARTITION}/{name}"), "description": "made by hand",
        });
        self.device.elsewhere("POST", "ltm/pool", pool)?;
        self.device.elsewhere("POST", "ltm/virtual", body)
    }
}

/// Whether an object of the device is AKE's: by its mark, and one by its name.
fn is_ours(key: &str, fields: &Value) -> bool {
    let marked = fields["description"].as_str().is_some_and(|text| text.split(' ').next() == Some("ake"));
    marked || (key.starts_with("ltm/persistence/source-addr /ake-") && key.ends_with("/client-ip"))
}

impl conformance::Device for Harness {
    fn driver(&self) -> Result<Box<dyn Driver>, DriverError> {
        Ok(Box::new(BigIpDriver::new(&self.settings)?))
    }

    fn clean(&mut self) -> Deed<'_, ()> {
        self.device.wipe();
        Box::pin(async { Ok(()) })
    }

    fn put_foreign<'a>(&'a mut self, name: &'a str, vip: IpAddr, endpoint: Endpoint) -> Deed<'a, Outcome> {
        let put = self.put(name, vip, endpoint).map(|()| Outcome::Done);
        Box::pin(async { put })
    }

    fn foreign(&mut self) -> Deed<'_, BTreeMap<String, String>> {
        let all = self.device.snapshot();
        let all = all.as_object().into_iter().flatten().filter(|(key, fields)| !is_ours(key, fields));
        let foreign = all.map(|(key, value)| (key.clone(), value.to_string())).collect();
        Box::pin(async { Ok(foreign) })
    }

    fn inject(&mut self, fault: Fault) -> Deed<'_, Outcome> {
        match fault {
            Fault::Refused { write } => {
                let message = "transaction failed:01070734:3: Configuration error";
                let body = json!({"code": 400, "message": message, "errorStack": [], "apiError": 2});
                let refuse = Blow::Refuse { status: 400, body: body.to_string() };
                self.device.fault(COMMIT, write, 1, refuse);
            }
            Fault::Busy { write } => self.device.fault(COMMIT, write, 1, Blow::booting()),
            Fault::AnswerLost { write } => self.device.fault(COMMIT, write, 1, Blow::LostAfter),
            Fault::Stops { after } => self.device.halt_after(after),
            Fault::Reboot => {
                self.device.reboot();
                self.device.halt_after(0);
            }
            Fault::SessionExpired => self.device.expire_tokens(),
            Fault::OtherForm => self.device.tell_in_other_forms(),
        }
        done(Outcome::Done)
    }

    fn heal(&mut self) -> Deed<'_, ()> {
        self.device.heal();
        Box::pin(async { Ok(()) })
    }

    fn writes(&mut self) -> Deed<'_, u64> {
        let log = self.device.take_log();
        let asks = |line: &&String| {
            line.starts_with("GET ") || line.contains("/authn/login") || line.contains("/authz/tokens")
        };
        self.writes += log.iter().filter(|line| !asks(line)).count() as u64;
        let writes = self.writes;
        Box::pin(async move { Ok(writes) })
    }
}

#[tokio::test]
async fn the_driver_conforms() {
    let mut harness = Harness::new().await;
    let report = conformance::run(&mut harness).await.unwrap_or_else(|problem| panic!("{problem}"));
    assert!(report.not_of_this_device.is_empty(), "{report:?}");
    assert_eq!(report.held.len(), 11, "{report:?}");
}
