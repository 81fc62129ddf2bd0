//! Stub.

/// Stub.
pub struct Check {
    /// Stub.
    pub name: String,
    /// Stub.
    pub ok: bool,
    /// Stub.
    pub required: bool,
    /// Stub.
    pub detail: String,
    /// Stub.
    pub remedy: Option<String>,
}
/// Stub.
pub async fn probe() -> Vec<Check> {
    vec![]
}
