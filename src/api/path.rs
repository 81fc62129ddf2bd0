//! What stands for a name in a request's path.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::error::ApiError;

/// The ids of a path, in its order. They may be anything at all: one that names nothing is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids<const N: usize>(pub [String; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Ids<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::not_found("the path is not UTF-8");
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| missing())?;
        let ids: Vec<_> = params.iter().map(|(_, value)| value.to_owned()).collect();
        ids.try_into().map(Self).map_err(|_| missing())
    }
}
