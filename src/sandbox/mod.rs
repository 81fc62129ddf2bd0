//! The only door to the kernel.

pub mod probe;
pub mod wire;

use tokio_util::sync::CancellationToken;

use crate::environment::{Environment, Tier};

/// Stub.
pub struct Plan;
/// Stub.
pub struct Guest;
/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct LaunchError;
/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct GuestError;
/// Stub.
pub fn plan_for(_: &Environment) -> Result<Plan, LaunchError> {
    Ok(Plan)
}
impl Guest {
    /// Stub.
    pub async fn launch(_: &Plan) -> Result<Self, LaunchError> {
        Ok(Self)
    }
    /// Stub.
    pub fn is_dead(&self) -> bool {
        false
    }
    /// Stub.
    pub fn tier(&self) -> Tier {
        Tier::Full
    }
    /// Stub.
    pub fn layers(&self) -> &[String] {
        &[]
    }
    /// Stub.
    pub async fn call(&self, _: wire::ToolCall, _: &CancellationToken) -> Result<wire::ToolReply, GuestError> {
        Err(GuestError)
    }
}
