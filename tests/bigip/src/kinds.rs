//! The kinds of objects that are imitated, with the values that the device gives what is not set.

use serde_json::{Value, json};

/// One kind of object.
pub(crate) struct Kind {
    /// Its collection below /mgmt/tm/.
    pub(crate) path: &'static str,
    /// How the device calls it in errors.
    pub(crate) label: &'static str,
    /// Values of what is not set, as JSON; later ones hold.
    defaults: &'static [&'static str],
    /// Properties that have no value unless set.
    pub(crate) optional: &'static [&'static str],
    /// The property, and values it may have.
    pub(crate) words: &'static [(&'static str, &'static [&'static str])],
}

/// One that has no property but its name and its parent.
const BARE: Kind =
    Kind { path: "", label: "Profile", defaults: &[], optional: &["defaultsFrom"], words: &[] };

const ABLED: &[&str] = &["enabled", "disabled"];

impl Kind {
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.path == path)
    }

    /// `tm:ltm:pool`.
    fn stem(&self) -> String {
        format!("tm:{}", self.path.replace('/', ":"))
    }

    fn last(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    /// `tm:ltm:pool:poolstate`.
    pub(crate) fn state(&self) -> String {
        format!("{}:{}state", self.stem(), self.last())
    }

    /// `tm:ltm:pool:poolcollectionstate`.
    pub(crate) fn collection(&self) -> String {
        format!("{}:{}collectionstate", self.stem(), self.last())
    }

    pub(crate) fn defaults(&self) -> Value {
        let mut all = json!({});
        for part in self.defaults {
            if let (Some(all), Ok(Value::Object(part))) = (all.as_object_mut(), serde_json::from_str(part)) {
                all.extend(part);
            }
        }
        all
    }
}

const MONITOR: &str = r#"{"adaptive": "disabled", "adaptiveDivergenceType": "relative",
    "adaptiveDivergenceValue": 25, "adaptiveLimit": 200, "adaptiveSamplingTimespan": 300, "destination": "*:*",
    "interval": 5, "ipDscp": 0, "manualResume": "disabled", "recv": "none", "recvDisable": "none",
    "reverse": "disabled", "send": "none", "timeUntilUp": 0, "timeout": 16, "transparent": "disabled",
    "upInterval": 0}"#;
const MONITOR_WORDS: &[(&str, &[&str])] =
    &[("transparent", ABLED), ("reverse", ABLED), ("manualResume", ABLED)];

/// Objects that a new device has, in /Common: collection, name.
pub(crate) const BUILT_IN: &[(&str, &str)] = &[
    ("ltm/profile/fastl4", "fastL4"),
    ("ltm/profile/tcp", "tcp"),
    ("ltm/profile/udp", "udp"),
    ("ltm/profile/sctp", "sctp"),
    ("ltm/monitor/tcp", "tcp"),
    ("ltm/monitor/http", "http"),
    ("ltm/persistence/source-addr", "source_addr"),
];

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        path: "auth/partition",
        label: "Partition",
        defaults: &[r#"{"defaultRouteDomain": 0}"#],
        optional: &["description"],
        words: &[],
    },
    Kind {
        path: "ltm/node",
        label: "Node",
        defaults: &[
            r#"{"connectionLimit": 0, "dynamicRatio": 1, "ephemeral": "false", "logging": "disabled",
            "fqdn": {"addressFamily": "ipv4", "autopopulate": "disabled", "downInterval": 5, "interval": "3600"},
            "monitor": "default", "rateLimit": "disabled", "ratio": 1, "session": "user-enabled", "state": "unchecked"}"#,
        ],
        optional: &["address", "description", "metadata"],
        words: &[],
    },
    Kind {
        path: "ltm/pool",
        label: "Pool",
        defaults: &[r#"{"allowNat": "yes", "allowSnat": "yes", "ignorePersistedWeight": "disabled",
            "ipTosToClient": "pass-through", "ipTosToServer": "pass-through", "linkQosToClient": "pass-through",
            "linkQosToServer": "pass-through", "loadBalancingMode": "round-robin", "minActiveMembers": 0,
            "minUpMembers": 0, "minUpMembersAction": "failover", "minUpMembersChecking": "disabled",
            "queueDepthLimit": 0, "queueOnConnectionLimit": "disabled", "queueTimeLimit": 0, "reselectTries": 0,
            "serviceDownAction": "none", "slowRampTime": 10}"#],
        optional: &["description", "monitor", "metadata", "members", "profiles"],
        words: &[
            ("serviceDownAction", &["none", "reset", "drop", "reselect"]),
            (
                "loadBalancingMode",
                &[
                    "round-robin",
                    "ratio-member",
                    "least-connections-member",
                    "observed-member",
                    "predictive-member",
                    "ratio-node",
                    "least-connections-node",
                    "fastest-node",
                    "observed-node",
                    "predictive-node",
                    "dynamic-ratio-member",
                    "weighted-least-connections-member",
                    "weighted-least-connections-node",
                    "ratio-session",
                    "ratio-least-connections-member",
                    "ratio-least-connections-node",
                    "dynamic-ratio-node",
                    "fastest-app-response",
                    "least-sessions",
                ],
            ),
        ],
    },
    Kind {
        path: "ltm/pool/members",
        label: "Pool Member",
        defaults: &[r#"{"connectionLimit": 0, "dynamicRatio": 1, "ephemeral": "false",
            "fqdn": {"autopopulate": "disabled"}, "inheritProfile": "enabled", "logging": "disabled",
            "monitor": "default", "priorityGroup": 0, "rateLimit": "disabled", "ratio": 1,
            "session": "user-enabled", "state": "unchecked"}"#],
        optional: &["address", "description", "metadata", "profiles"],
        words: &[],
    },
    Kind {
        path: "ltm/monitor/tcp",
        label: "Monitor",
        defaults: &[MONITOR],
        optional: &["defaultsFrom", "description"],
        words: MONITOR_WORDS,
    },
    Kind {
        path: "ltm/monitor/http",
        label: "Monitor",
        defaults: &[MONITOR, r#"{"send": "GET /\\r\\n"}"#],
        optional: &["defaultsFrom", "description", "username", "password"],
        words: MONITOR_WORDS,
    },
    Kind {
        path: "ltm/profile/fastl4",
        label: "Profile",
        defaults: &[
            r#"{"clientTimeout": "30", "explicitFlowMigration": "disabled", "hardwareSynCookie": "enabled",
            "idleTimeout": "300", "ipDfMode": "preserve", "ipTosToClient": "pass-through",
            "ipTosToServer": "pass-through", "ipTtlMode": "decrement", "ipTtlV4": 255, "ipTtlV6": 64,
            "keepAliveInterval": "disabled", "lateBinding": "disabled", "linkQosToClient": "pass-through",
            "linkQosToServer": "pass-through", "looseClose": "disabled", "looseInitialization": "disabled",
            "mssOverride": 0, "otherPvaClientpktsThreshold": 1, "priorityToClient": "pass-through",
            "priorityToServer": "pass-through", "pvaAcceleration": "full", "reassembleFragments": "disabled",
            "receiveWindowSize": 0, "resetOnTimeout": "enabled", "rttFromClient": "disabled",
            "rttFromServer": "disabled", "serverSack": "disabled", "serverTimestamp": "disabled",
            "softwareSynCookie": "disabled", "synCookieEnable": "enabled", "synCookieMss": 0,
            "synCookieWhitelist": "disabled", "tcpCloseTimeout": "5", "tcpGenerateIsn": "disabled",
            "tcpHandshakeTimeout": "5", "tcpStripSack": "disabled", "tcpTimeWaitTimeout": 0,
            "tcpTimestampMode": "preserve", "tcpWscaleMode": "preserve", "timeoutRecovery": "disconnect"}"#,
        ],
        optional: &["appService", "defaultsFrom", "description"],
        words: &[
            ("looseClose", ABLED),
            ("looseInitialization", ABLED),
            ("resetOnTimeout", ABLED),
            ("synCookieEnable", ABLED),
            ("pvaAcceleration", &["full", "partial", "dedicated", "none", "guaranteed"]),
        ],
    },
    Kind { path: "ltm/profile/tcp", ..BARE },
    Kind { path: "ltm/profile/udp", ..BARE },
    Kind { path: "ltm/profile/sctp", ..BARE },
    Kind {
        path: "ltm/persistence/source-addr",
        label: "Persistence Profile",
        defaults: &[r#"{"hashAlgorithm": "default", "mapProxies": "enabled", "mask": "none",
            "matchAcrossPools": "disabled", "matchAcrossServices": "disabled", "matchAcrossVirtuals": "disabled",
            "mirror": "disabled", "mode": "source-addr", "overrideConnectionLimit": "disabled", "timeout": "180"}"#],
        optional: &["appService", "defaultsFrom", "description"],
        words: &[
            ("matchAcrossServices", ABLED),
            ("matchAcrossVirtuals", ABLED),
            ("matchAcrossPools", ABLED),
            ("mirror", ABLED),
        ],
    },
    Kind {
        path: "ltm/data-group/internal",
        label: "Data-group",
        defaults: &[],
        optional: &["description", "records", "type"],
        words: &[("type", &["ip", "string", "integer"])],
    },
    Kind {
        path: "ltm/virtual-address",
        label: "Virtual Address",
        defaults: &[r#"{"arp": "enabled", "autoDelete": "true", "connectionLimit": 0, "enabled": "yes",
            "floating": "enabled", "icmpEcho": "enabled", "inheritedTrafficGroup": "false",
            "routeAdvertisement": "disabled", "serverScope": "any", "spanning": "disabled",
            "trafficGroup": "/Common/traffic-group-1", "unit": 1}"#],
        optional: &["address", "description", "mask", "metadata"],
        words: &[("arp", ABLED), ("autoDelete", &["true", "false"])],
    },
    Kind {
        path: "ltm/virtual",
        label: "Virtual Server",
        defaults: &[
            r#"{"addressStatus": "yes", "autoLasthop": "default", "cmpEnabled": "yes", "connectionLimit": 0,
            "enabled": true, "evictionProtected": "disabled", "gtmScore": 0, "ipProtocol": "any",
            "mirror": "disabled", "mobileAppTunnel": "disabled", "nat64": "disabled", "rateLimit": "disabled",
            "rateLimitDstMask": 0, "rateLimitMode": "object", "rateLimitSrcMask": 0,
            "serviceDownImmediateAction": "none", "sourceAddressTranslation": {"type": "none"},
            "sourcePort": "preserve", "synCookieStatus": "not-activated", "translateAddress": "enabled",
            "translatePort": "enabled", "vlansDisabled": true}"#,
        ],
        optional: &[
            "description",
            "destination",
            "disabled",
            "fallbackPersistence",
            "mask",
            "metadata",
            "persist",
            "policies",
            "pool",
            "profiles",
            "rules",
            "source",
            "vlans",
            "vlansEnabled",
        ],
        words: &[
            ("ipProtocol", &["any", "tcp", "udp", "sctp"]),
            ("translateAddress", ABLED),
            ("translatePort", ABLED),
            ("mirror", ABLED),
            ("sourcePort", &["preserve", "preserve-strict", "change"]),
        ],
    },
];
