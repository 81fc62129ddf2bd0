//! An environment as a person writes it: a file of the fields that the protocol's `environment` object has.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::networking::Networking;
use super::packages::{Packages, PackagesError};

/// Longest name in characters.
pub const MAX_NAME_CHARS: usize = 256;

/// A definition as it was written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentParams {
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// For programs of the user's.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What it is.
    #[serde(default)]
    pub config: ConfigParams,
}

/// What an environment is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigParams {
    /// The protocol's word; the sandbox of this machine takes the cloud's place.
    pub r#type: Option<ConfigType>,
    /// What may be reached; nothing, if the file does not say.
    pub networking: Option<Networking>,
    /// What is installed.
    #[serde(default)]
    pub packages: Packages,
}

/// Where an environment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigType {
    /// Here.
    Cloud,
}

/// A definition that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// The name.
    #[error("name must have 1 to {MAX_NAME_CHARS} characters")]
    Name,
    /// The packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
}

impl EnvironmentParams {
    /// Networking and packages.
    ///
    /// # Errors
    /// What is wrong, and where it stands.
    pub fn validate(self) -> Result<(Option<Networking>, Packages), EnvironmentError> {
        let fits = |name: &str| !name.trim().is_empty() && name.chars().count() <= MAX_NAME_CHARS;
        if !self.name.as_deref().is_none_or(fits) {
            return Err(EnvironmentError::Name);
        }
        let ConfigParams { r#type: _, networking, packages } = self.config;
        packages.check(networking.as_ref().unwrap_or(&Networking::None))?;
        Ok((networking, packages))
    }
}
