//! OpenStack as its projects publish it: one process per project in the namespace `control`, no agents, no
//! broker, SQLite. What stands in for what is listed in `docs/reference/stand-ins.md`.

pub mod admin;
pub mod bake;
pub mod cloud;
pub mod configure;
pub mod install;
pub mod operator;
pub mod services;

/// The address of every API.
pub const HOST: &str = "192.0.2.2";
/// The one region.
pub const REGION: &str = "RegionOne";
/// Everybody's password.
pub const PASSWORD: &str = "secret";

/// One OpenStack project of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Project {
    /// The project's name: of its process, its user in Keystone, its logs.
    pub name: &'static str,
    /// Where its API listens; Nova's metadata API listens one port higher.
    pub port: u16,
    /// Its type in the catalog.
    pub kind: &'static str,
    /// What follows the port in the catalog.
    pub path: &'static str,
    /// The databases it keeps.
    pub databases: &'static [&'static str],
    /// A request that proves it to work.
    pub probe: &'static str,
}

/// The projects, in the order in which they are started.
pub const PROJECTS: [Project; 7] = [
    Project {
        name: "keystone",
        port: 5000,
        kind: "identity",
        path: "/v3",
        databases: &["keystone.db"],
        probe: "/projects",
    },
    Project {
        name: "placement",
        port: 8778,
        kind: "placement",
        path: "",
        databases: &["placement.db"],
        probe: "/resource_providers",
    },
    Project {
        name: "nova",
        port: 8774,
        kind: "compute",
        path: "/v2.1",
        // cell0 is named after cell1, so that both can be templates of one setting
        databases: &["nova_api.db", "nova_cell1.db", "nova_cell1.db.cell0"],
        probe: "/os-services",
    },
    Project {
        name: "heat",
        port: 8004,
        kind: "orchestration",
        path: "/v1/%(tenant_id)s",
        databases: &["heat.db"],
        probe: "/services",
    },
    Project {
        name: "neutron",
        port: 9696,
        kind: "network",
        path: "",
        databases: &["neutron.db"],
        probe: "/v2.0/networks",
    },
    Project {
        name: "cinder",
        port: 8776,
        kind: "block-storage",
        path: "/v3",
        databases: &["cinder.db"],
        probe: "/os-services",
    },
    Project {
        name: "glance",
        port: 9292,
        kind: "image",
        path: "",
        databases: &["glance.db"],
        probe: "/v2/images",
    },
];

impl Project {
    /// The project called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROJECTS.iter().find(|project| project.name == name)
    }

    /// The root of its API, without the catalog's path.
    pub fn url(&self) -> String {
        format!("http://{HOST}:{}", self.port)
    }
}

/// Where clients log in.
pub fn auth_url() -> String {
    format!("http://{HOST}:5000/v3")
}

/// The environment of an OpenStack client that logs in as `user`, in the project of the same name.
pub fn login(user: &str) -> [(&'static str, String); 9] {
    [
        ("OS_AUTH_URL", auth_url()),
        ("OS_USERNAME", user.to_owned()),
        ("OS_PASSWORD", PASSWORD.to_owned()),
        ("OS_PROJECT_NAME", user.to_owned()),
        ("OS_USER_DOMAIN_ID", "default".to_owned()),
        ("OS_PROJECT_DOMAIN_ID", "default".to_owned()),
        ("OS_REGION_NAME", REGION.to_owned()),
        ("OS_IDENTITY_API_VERSION", "3".to_owned()),
        ("PYTHONWARNINGS", "ignore".to_owned()),
    ]
}
