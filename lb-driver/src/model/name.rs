//! Names, and whom things belong to.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Whom an object belongs to, and at the same time its name: unique among objects of one kind.
///
/// Prints as `project/cluster/object`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(Arc<str>);

/// Longest part of an [`Owner`] and longest name of a member.
pub const NAME_LENGTH: usize = 128;

impl Owner {
    /// Each part has 1 to [`NAME_LENGTH`] characters of `A-Z a-z 0-9 . _ -`.
    pub fn new(
        project: impl AsRef<str>,
        cluster: impl AsRef<str>,
        object: impl AsRef<str>,
    ) -> Result<Self, InvalidName> {
        let (project, cluster, object) = (project.as_ref(), cluster.as_ref(), object.as_ref());
        check_name("project", project)?;
        check_name("cluster", cluster)?;
        check_name("object", object)?;
        Ok(Self(format!("{project}/{cluster}/{object}").into()))
    }

    /// The OpenStack project.
    pub fn project(&self) -> &str {
        self.part(0)
    }

    /// The cluster's identity.
    pub fn cluster(&self) -> &str {
        self.part(1)
    }

    /// The object's name within the cluster.
    pub fn object(&self) -> &str {
        self.part(2)
    }

    fn part(&self, index: usize) -> &str {
        self.0.split('/').nth(index).unwrap_or_default()
    }

    /// Another object of the same cluster.
    pub fn sibling(&self, object: impl AsRef<str>) -> Result<Self, InvalidName> {
        Self::new(self.project(), self.cluster(), object)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Owner {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [project, cluster, object] => Self::new(project, cluster, object),
            _ => Err(InvalidName {
                field: "owner",
                value: text.to_owned(),
                expected: "project/cluster/object".to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

/// A name that does not have the form of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not a name: expected {expected}")]
pub struct InvalidName {
    /// Which part of the name.
    pub field: &'static str,
    /// What stood there.
    pub value: String,
    /// What may stand there.
    pub expected: String,
}

/// Checks a name against the form of names: 1 to [`NAME_LENGTH`] characters of `A-Z a-z 0-9 . _ -`.
pub fn check_name(field: &'static str, value: &str) -> Result<(), InvalidName> {
    let fits = (1..=NAME_LENGTH).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        return Ok(());
    }
    Err(InvalidName {
        field,
        value: value.to_owned(),
        expected: format!("1 to {NAME_LENGTH} characters of A-Z a-z 0-9 . _ -"),
    })
}
