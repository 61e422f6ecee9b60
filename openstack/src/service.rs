//! The services we speak to, and the names that catalogs have for them.

/// One service of the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Keystone.
    Identity,
    /// Nova.
    Compute,
    /// Neutron.
    Network,
    /// Cinder.
    BlockStorage,
    /// Glance.
    Image,
    /// Heat.
    Orchestration,
    /// ake-api.
    Ake,
}

impl Service {
    /// Its name in errors and metrics: the official service type.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.types()[0]
    }

    /// Types that a catalog may list it under, the official one first (service-types authority).
    #[must_use]
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Compute => &["compute"],
            Self::Network => &["network"],
            Self::BlockStorage => &["block-storage", "volumev3", "block-store", "volume"],
            Self::Image => &["image"],
            Self::Orchestration => &["orchestration"],
            Self::Ake => &["ake"],
        }
    }

    /// What has to stand at the end of the endpoint's path before our paths fit. Catalogs leave it out for
    /// some services.
    pub(crate) fn version_segment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Identity => Some(("/v3", "/v3")),
            Self::Network => Some(("/v2", "/v2.0")),
            Self::Image => Some(("/v2", "/v2")),
            _ => None,
        }
    }
}
