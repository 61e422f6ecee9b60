//! How a resource type is described to Heat.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// A resource type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResourceType {
    /// Its name in templates.
    pub name: &'static str,
    /// What it gives, for the reference page.
    pub description: &'static str,
    /// What `get_resource` yields.
    pub reference: Reference,
    /// Its properties, in the order of the reference page.
    pub properties: Vec<Property>,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

/// What a resource's id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The id of the root stack: a cluster's identity.
    RootStack,
    /// An id of the resource's own.
    Own,
}

/// Types of values, in Heat's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Type {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// Values in order.
    List,
    /// Values by name.
    Map,
}

/// A property of a resource, or a part of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Property {
    /// Its name; that of a list's items is of no meaning.
    pub name: &'static str,
    /// Type of its value.
    #[serde(rename = "type")]
    pub kind: Type,
    /// What it says.
    pub description: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// The value where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What happens when it changes.
    pub change: Change,
    /// What values are taken: name of a class in Heat's `constraints`, and its arguments.
    pub constraints: Vec<Constraint>,
    /// Parts of a map.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Property>,
    /// Items of a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Box<Property>>,
    /// Whether its value is the name of a hidden parameter of the root stack, and what is meant is that
    /// parameter's value.
    pub hidden_parameter: bool,
    /// How a name is turned into an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translate: Option<Translate>,
}

/// What happens when a property changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The resource is updated.
    Updates,
    /// The update is refused.
    Refused,
}

/// A constraint of Heat's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Constraint {
    /// Name of the class.
    pub class: &'static str,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// Asking one of Heat's client plugins for an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Translate {
    /// The client plugin.
    pub client: &'static str,
    /// Its method.
    pub finder: &'static str,
    /// What the method is told to find.
    pub entity: &'static str,
}

/// An attribute of a resource.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// Type of its value.
    #[serde(rename = "type")]
    pub kind: Type,
    /// What it is.
    pub description: &'static str,
    /// Whether it is kept encrypted, and is left out of what `resource show` prints.
    pub sealed: bool,
}

impl Property {
    /// A property that may be left out and that an update may not change.
    #[must_use]
    pub fn new(name: &'static str, kind: Type, description: &'static str) -> Self {
        Self {
            name,
            kind,
            description,
            required: false,
            default: None,
            change: Change::Refused,
            constraints: Vec::new(),
            fields: Vec::new(),
            items: None,
            hidden_parameter: false,
            translate: None,
        }
    }

    /// It must be given.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// It may change.
    #[must_use]
    pub fn updatable(mut self) -> Self {
        self.change = Change::Updates;
        self
    }

    /// The value where none is given.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// A number from `min` to `max`.
    #[must_use]
    pub fn range(self, min: i64, max: i64) -> Self {
        self.constraint("Range", json!({"min": min, "max": max}))
    }

    /// Text of `min` to `max` characters, or a list of as many items.
    #[must_use]
    pub fn length(self, min: u32, max: u32) -> Self {
        self.constraint("Length", json!({"min": min, "max": max}))
    }

    /// One of some values.
    #[must_use]
    pub fn one_of(self, values: &[&str]) -> Self {
        self.constraint("AllowedValues", json!({"allowed": values}))
    }

    /// Text that a regular expression matches.
    #[must_use]
    pub fn pattern(self, pattern: &str) -> Self {
        self.constraint("AllowedPattern", json!({"pattern": pattern}))
    }

    /// A value that one of Heat's own checks takes.
    #[must_use]
    pub fn checked_as(self, name: &str) -> Self {
        self.constraint("CustomConstraint", json!({"name": name}))
    }

    /// A name of ours: lower-case letters, digits and `-`, as a label of DNS.
    #[must_use]
    pub fn name_like(self) -> Self {
        self.length(1, 63).pattern("[a-z0-9]([-a-z0-9]*[a-z0-9])?")
    }

    /// Parts of a map.
    #[must_use]
    pub fn fields(mut self, fields: Vec<Property>) -> Self {
        self.fields = fields;
        self
    }

    /// Items of a list.
    #[must_use]
    pub fn items(mut self, items: Property) -> Self {
        self.items = Some(Box::new(items));
        self
    }

    /// Its value names a hidden parameter.
    #[must_use]
    pub fn hidden_parameter(mut self) -> Self {
        self.hidden_parameter = true;
        self
    }

    /// A Neutron network by name or id; becomes the id.
    #[must_use]
    pub fn network(mut self) -> Self {
        self.translate =
            Some(Translate { client: "neutron", finder: "find_resourceid_by_name_or_id", entity: "network" });
        self.checked_as("neutron.network")
    }

    fn constraint(mut self, class: &'static str, arguments: Value) -> Self {
        let Value::Object(arguments) = arguments else { return self };
        self.constraints.push(Constraint { class, arguments });
        self
    }
}

impl Attribute {
    /// An attribute that everybody who sees the stack may see.
    #[must_use]
    pub fn new(name: &'static str, kind: Type, description: &'static str) -> Self {
        Self { name, kind, description, sealed: false }
    }

    /// It is kept encrypted.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }
}

/// The property that says which cluster a resource belongs to.
#[must_use]
pub fn cluster_property() -> Property {
    Property::new(
        "cluster",
        Type::String,
        "Id of the cluster: `get_resource` of its `AKE::Cluster::Registration`.",
    )
    .required()
    .length(36, 36)
}
