//! From the entries of a cloud.conf to a configuration.

use std::path::PathBuf;

use super::{
    Ake, Auth, BlockStorage, CloudConfig, CredentialId, Identifier, Interface, elsewhere,
    gcfg::{self, Entry},
};

/// What is wrong with a cloud.conf.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {reason}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The same, with the file's name.
    #[error("{}: {error}", .path.display())]
    InFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        error: Box<ConfigError>,
    },
    /// It is not written as it should be.
    #[error(transparent)]
    Syntax(#[from] gcfg::SyntaxError),
    /// A value makes no sense.
    #[error("line {line}: [{section}] {key} = {value}: expected {expected}")]
    Value {
        /// Where, from 1.
        line: usize,
        /// The section as we call it.
        section: &'static str,
        /// The key.
        key: String,
        /// Its value; a secret's is not shown.
        value: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// Something needed is not there.
    #[error("[{section}] {key} is missing: expected {expected}")]
    Missing {
        /// The section as we call it.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
}

/// Keys of `[Global]` that we read.
const GLOBAL: &[&str] = &[
    "auth-url",
    "username",
    "user-id",
    "password",
    "tenant-id",
    "tenant-name",
    "domain-id",
    "domain-name",
    "tenant-domain-id",
    "tenant-domain-name",
    "user-domain-id",
    "user-domain-name",
    "region",
    "os-endpoint-type",
    "ca-file",
    "application-credential-id",
    "application-credential-name",
    "application-credential-secret",
];
pub(super) fn read(text: &str) -> Result<CloudConfig, ConfigError> {
    let all = Entries(gcfg::parse(text)?);
    let global = "Global";
    let auth_url = all.needed(global, "auth-url", "the URL of Keystone")?;
    let mut config = CloudConfig::new(&auth_url.value.clone().unwrap_or_default(), read_auth(&all)?);
    if !(config.auth_url.starts_with("http://") || config.auth_url.starts_with("https://")) {
        return Err(wrong(global, auth_url, "a URL that begins with https:// or http://"));
    }
    config.region = all.text(global, "region");
    config.ca_file = all.text(global, "ca-file").map(PathBuf::from);
    if let Some(entry) = all.last(global, "os-endpoint-type") {
        config.interface = match entry.value.as_deref().map(|v| v.trim_end_matches("URL")) {
            Some("public" | "") => Interface::Public,
            Some("internal") => Interface::Internal,
            Some("admin") => Interface::Admin,
            _ => return Err(wrong(global, entry, "public, internal or admin")),
        };
    }
    config.ake = Ake {
        cluster_id: all.text("AKE", "cluster-id"),
        security_group: all.text("AKE", "security-group"),
        api_ca_file: all.text("AKE", "api-ca-file").map(PathBuf::from),
        api_url: all.text("AKE", "api-url"),
    };
    if let Some(entry) = all.last("AKE", "cluster-id").filter(|entry| !is_uuid(entry.value.as_deref())) {
        return Err(wrong("AKE", entry, "a UUID, as 01234567-89ab-cdef-0123-456789abcdef"));
    }
    if let Some(entry) = all.last("AKE", "api-url").filter(|entry| !is_https(entry.value.as_deref())) {
        return Err(wrong("AKE", entry, "a URL that begins with https://"));
    }
    config.block_storage = BlockStorage { ignore_volume_az: all.truth("BlockStorage", "ignore-volume-az")? };
    // Of no effect, and still not to be nonsense: other programs may read the same file.
    check_limit(&all)?;
    all.truth("BlockStorage", "rescan-on-resize")?;
    config.warnings = all.0.iter().filter(|entry| !is_known(entry)).map(warning).collect();
    Ok(config)
}

/// Whether the files that it names can be read.
pub(super) fn check_files(text: &str) -> Result<(), ConfigError> {
    let all = Entries(gcfg::parse(text)?);
    for (section, key) in [("Global", "ca-file"), ("AKE", "api-ca-file")] {
        let Some(entry) = all.last(section, key) else { continue };
        let path = entry.value.as_deref().unwrap_or_default();
        if !path.is_empty() && std::fs::read(path).is_err() {
            return Err(wrong(section, entry, "a file of PEM certificates that can be read"));
        }
    }
    Ok(())
}

fn read_auth(all: &Entries) -> Result<Auth, ConfigError> {
    let global = "Global";
    let text = |key| all.text(global, key);
    let secret = |key, expected| {
        all.needed(global, key, expected).map(|entry| entry.value.clone().unwrap_or_default().into())
    };
    if let Some(id) = text("application-credential-id") {
        let secret = secret("application-credential-secret", "the secret of the application credential")?;
        return Ok(Auth::ApplicationCredential { id: CredentialId::Id(id), secret });
    }
    if let Some(name) = text("application-credential-name") {
        let user_id = text("user-id").ok_or(ConfigError::Missing {
            section: global,
            key: "user-id",
            expected: "the id of the user that made the application credential, or application-credential-id",
        })?;
        let secret = secret("application-credential-secret", "the secret of the application credential")?;
        return Ok(Auth::ApplicationCredential { id: CredentialId::Name { name, user_id }, secret });
    }
    let username = text("username").ok_or(ConfigError::Missing {
        section: global,
        key: "application-credential-id",
        expected: "the id of an application credential, or a username and a password",
    })?;
    let user_domain =
        text("user-domain-name").or_else(|| text("domain-name")).unwrap_or_else(|| "Default".into());
    let password = secret("password", "the user's password")?;
    let project = match (text("tenant-id"), text("tenant-name")) {
        (Some(id), _) => Identifier::Id(id),
        (None, Some(name)) => Identifier::Name(name),
        (None, None) => {
            let expected = "the name of the project to act in, or tenant-id";
            return Err(ConfigError::Missing { section: global, key: "tenant-name", expected });
        }
    };
    let project_domain = match (&project, text("tenant-domain-id").or_else(|| text("domain-id"))) {
        (Identifier::Id(_), _) => None,
        (Identifier::Name(_), Some(id)) => Some(Identifier::Id(id)),
        (Identifier::Name(_), None) => {
            Some(Identifier::Name(text("tenant-domain-name").unwrap_or_else(|| user_domain.clone())))
        }
    };
    Ok(Auth::Password { username, user_domain, password, project, project_domain })
}

fn check_limit(all: &Entries) -> Result<(), ConfigError> {
    let Some(entry) = all.last("BlockStorage", "node-volume-attach-limit") else { return Ok(()) };
    match entry.value.as_deref().map(str::parse::<u16>) {
        Some(Ok(1..=256)) => Ok(()),
        _ => Err(wrong("BlockStorage", entry, "a number from 1 to 256")),
    }
}

struct Entries(Vec<Entry>);

impl Entries {
    /// The last one counts, as with gcfg.
    fn last(&self, section: &str, key: &str) -> Option<&Entry> {
        let section = section.to_lowercase();
        self.0.iter().rfind(|e| e.section == section && e.subsection.is_none() && e.key == key)
    }

    /// A value that is not empty.
    fn text(&self, section: &str, key: &str) -> Option<String> {
        self.last(section, key).and_then(|entry| entry.value.clone()).filter(|value| !value.is_empty())
    }

    fn needed(
        &self,
        section: &'static str,
        key: &'static str,
        expected: &'static str,
    ) -> Result<&Entry, ConfigError> {
        self.last(section, key)
            .filter(|entry| entry.value.as_deref().is_some_and(|value| !value.is_empty()))
            .ok_or(ConfigError::Missing { section, key, expected })
    }

    fn truth(&self, section: &'static str, key: &str) -> Result<bool, ConfigError> {
        let Some(entry) = self.last(section, key) else { return Ok(false) };
        gcfg::truth(entry.value.as_deref()).ok_or_else(|| wrong(section, entry, "true or false"))
    }
}

fn wrong(section: &'static str, entry: &Entry, expected: &'static str) -> ConfigError {
    let secret = entry.key.contains("password") || entry.key.contains("secret") || entry.key == "token";
    let value = match &entry.value {
        Some(_) if secret => "(not shown)".to_owned(),
        Some(value) => format!("{value:?}"),
        None => "(no value)".to_owned(),
    };
    ConfigError::Value { line: entry.line, section, key: entry.key.clone(), value, expected }
}

fn is_uuid(value: Option<&str>) -> bool {
    value.is_some_and(|value| {
        let parts: Vec<_> = value.split('-').map(str::len).collect();
        parts == [8, 4, 4, 4, 12] && value.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
    })
}

fn is_https(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.starts_with("https://"))
}

fn is_known(entry: &Entry) -> bool {
    let key = entry.key.as_str();
    match entry.section.as_str() {
        "global" => GLOBAL.contains(&key),
        "ake" => ["cluster-id", "security-group", "api-ca-file", "api-url"].contains(&key),
        "blockstorage" => key == "ignore-volume-az",
        other => elsewhere::is_others(other),
    }
}

fn warning(entry: &Entry) -> String {
    let Entry { line, section, key, .. } = entry;
    match elsewhere::instead(section, key) {
        Some(instead) => format!("line {line}: [{section}] {key} has no effect here: {instead}"),
        None => format!("line {line}: [{section}] {key} means nothing here and is ignored"),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const GOOD: &str = "[Global]\nauth-url = https://keystone:5000/v3\nregion = RegionOne\n\
        application-credential-id = abc\napplication-credential-secret = \"s#cret\"\n\
        [AKE]\ncluster-id = 01234567-89ab-cdef-0123-456789abcdef\nsecurity_group = sg\n\
        [BlockStorage]\nignore-volume-az\n[LoadBalancer]\nsubnet-id = x\n[Global]\nfoo = bar\n";

    #[test]
    fn a_good_one() {
        let config = CloudConfig::parse(GOOD).unwrap();
        assert_eq!(config.region.as_deref(), Some("RegionOne"));
        assert_eq!(config.ake.security_group.as_deref(), Some("sg"));
        assert!(config.block_storage.ignore_volume_az);
        assert_eq!(
            config.warnings,
            [
                "line 12: [loadbalancer] subnet-id has no effect here: VIPs are of the cluster's blocks; ake.dev/range and \
                 ake.dev/address on a Service choose among them",
                "line 14: [global] foo means nothing here and is ignored"
            ]
        );
        let Auth::ApplicationCredential { id, secret } = &config.auth else { panic!("{:?}", config.auth) };
        assert_eq!((id.to_string().as_str(), secret.expose_secret()), ("abc", "s#cret"));
        assert!(!format!("{config:?}").contains("s#cret"));
    }

    #[test]
    fn files_that_it_names_are_looked_at() {
        for (line, message) in [
            ("[Global]\nca-file = \"\"", None),
            ("[Global]\nca-file = /dev/null", None),
            (
                "[Global]\nca-file = /nonexistent/ca.pem",
                Some("line 16: [Global] ca-file = \"/nonexistent/ca.pem\""),
            ),
            ("[AKE]\napi-ca-file = /nonexistent/ca.pem", Some("line 16: [AKE] api-ca-file")),
        ] {
            let said = check_files(&format!("{GOOD}{line}\n")).err().map(|error| error.to_string());
            match message {
                None => assert_eq!(said, None),
                Some(message) => {
                    assert!(said.as_ref().is_some_and(|said| said.contains(message)), "{said:?}")
                }
            }
        }
    }

    #[test]
    fn a_password() {
        let text = "[Global]\nauth-url=http://k\nusername=u\npassword=p\ntenant-name=t\ndomain-name=d\n";
        let Auth::Password { user_domain, project, project_domain, .. } =
            CloudConfig::parse(text).unwrap().auth
        else {
            panic!("not a password")
        };
        assert_eq!(user_domain, "d");
        assert_eq!(project, Identifier::Name("t".into()));
        assert_eq!(project_domain, Some(Identifier::Name("d".into())));
    }

    #[test]
    fn broken_ones_say_line_key_value_and_expectation() {
        for (from, to, message) in [
            (
                "https://keystone:5000/v3",
                "keystone",
                r#"line 2: [Global] auth-url = "keystone": expected a URL that begins with https:// or http://"#,
            ),
            (
                "cluster-id = 0",
                "cluster-id = ",
                "line 7: [AKE] cluster-id = \"1234567-89ab-cdef-0123-456789abcdef\": expected a UUID, as \
                 01234567-89ab-cdef-0123-456789abcdef",
            ),
            (
                "ignore-volume-az",
                "ignore-volume-az = maybe",
                r#"line 10: [BlockStorage] ignore-volume-az = "maybe": expected true or false"#,
            ),
            (
                "application-credential-secret = \"s#cret\"",
                "",
                "[Global] application-credential-secret is missing: expected the secret of the application credential",
            ),
            (
                "auth-url = https",
                "auth = https",
                "[Global] auth-url is missing: expected the URL of Keystone",
            ),
            (
                "\"s#cret\"",
                "\"s#cret",
                "line 5: the value of \"application-credential-secret\": expected a closing quote",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_eq!(CloudConfig::parse(&text).unwrap_err().to_string(), message);
        }
    }
}
