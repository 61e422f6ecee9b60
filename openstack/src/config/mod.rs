//! Where the cloud is, who we are, and what cloud.conf says besides.

mod elsewhere;
pub mod gcfg;
mod read;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;

pub use read::ConfigError;

/// Everything that is needed to be logged in, and AKE's own settings.
#[derive(Debug, Clone)]
pub struct CloudConfig {
    /// Keystone's URL, with or without `/v3`.
    pub auth_url: String,
    /// The region to look endpoints up in; any, if absent.
    pub region: Option<String>,
    /// Which of a service's endpoints to use.
    pub interface: Interface,
    /// PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Who we are.
    pub auth: Auth,
    /// How long we wait.
    pub timeouts: Timeouts,
    /// What we call ourselves in the services' access logs: `program/version`.
    pub user_agent: String,
    /// Section `[AKE]`.
    pub ake: Ake,
    /// Section `[BlockStorage]`.
    pub block_storage: BlockStorage,
    /// Keys that mean nothing to us, worth a line in the log.
    pub warnings: Vec<String>,
}

impl CloudConfig {
    /// Nothing but the login; all else as it is by default.
    #[must_use]
    pub fn new(auth_url: &str, auth: Auth) -> Self {
        Self {
            auth_url: auth_url.to_owned(),
            region: None,
            interface: Interface::default(),
            ca_file: None,
            auth,
            timeouts: Timeouts::default(),
            user_agent: user_agent(),
            ake: Ake::default(),
            block_storage: BlockStorage::default(),
            warnings: Vec::new(),
        }
    }

    /// Reads the text of a cloud.conf.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        read::read(text)
    }

    /// Reads a cloud.conf; the files that it names must be there.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError::Unreadable { path: path.to_owned(), reason: e.to_string() })?;
        let in_file = |e| ConfigError::InFile { path: path.to_owned(), error: Box::new(e) };
        let config = Self::parse(&text).map_err(in_file)?;
        read::check_files(&text).map_err(in_file)?;
        Ok(config)
    }
}

/// The running program's name and our version.
fn user_agent() -> String {
    let program =
        std::env::current_exe().ok().and_then(|path| path.file_stem()?.to_str().map(ToOwned::to_owned));
    format!("{}/{}", program.as_deref().unwrap_or("ake"), env!("CARGO_PKG_VERSION"))
}

/// Who we are.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A user's name and password, for one project.
    Password {
        /// The user's name.
        username: String,
        /// Name of the domain that the user is in.
        user_domain: String,
        /// The user's password.
        password: SecretString,
        /// The project to act in.
        project: Identifier,
        /// The domain that the project is in; not needed with a project's id.
        project_domain: Option<Identifier>,
    },
    /// An application credential, which knows its project itself.
    ApplicationCredential {
        /// Which one.
        id: CredentialId,
        /// Its secret.
        secret: SecretString,
    },
    /// A token that somebody else got. It is used as it is.
    Token {
        /// The token.
        token: SecretString,
    },
}

/// An id, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identifier {
    /// Unique in the cloud.
    Id(String),
    /// Unique in its domain.
    Name(String),
}

/// Which application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialId {
    /// By its id.
    Id(String),
    /// By its name, which is unique per user.
    Name {
        /// Its name.
        name: String,
        /// Id of the user that made it.
        user_id: String,
    },
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => f.write_str(id),
            Self::Name { name, user_id } => write!(f, "{name:?} of user {user_id}"),
        }
    }
}

/// Which of a service's endpoints to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interface {
    /// For everyone.
    #[default]
    Public,
    /// Within the cloud's own networks.
    Internal,
    /// For administrators.
    Admin,
}

impl Interface {
    /// The catalog's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// How long we wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the answer to one request.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), answer: Duration::from_secs(60) }
    }
}

/// Section `[AKE]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ake {
    /// `cluster-id`: the cluster's UUID. Default: the UID of the namespace kube-system.
    pub cluster_id: Option<String>,
    /// `security-group`: id of the cluster's security group, whose rules the controller keeps.
    pub security_group: Option<String>,
    /// `api-ca-file`: PEM certificates to trust ake-api with. Default: `[Global] ca-file`, then the system's.
    pub api_ca_file: Option<PathBuf>,
    /// `api-url`: where ake-api is. Default: the catalog's endpoint of type `ake`.
    pub api_url: Option<String>,
}

/// Section `[BlockStorage]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockStorage {
    /// `ignore-volume-az`: volumes can be attached in every availability zone. Default: false.
    pub ignore_volume_az: bool,
}
