//! A request's query: lists come as `name[]=a&name[]=b` or as `name=a&name=b`, times with or without a zone. What is not
//! known is passed over: the clients' own additions, such as `beta=true`, are no business of an endpoint.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::ApiError;
use crate::clock::Timestamp;

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    /// Takes the part after `?` apart.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The last value of that name, if it is not empty.
    #[must_use]
    pub fn one(&self, name: &str) -> Option<&str> {
        let named = self.0.iter().rev().find(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a list.
    #[must_use]
    pub fn many(&self, name: &str) -> Vec<&str> {
        let of_name = |key: &str| key.strip_suffix("[]").unwrap_or(key) == name;
        self.0.iter().filter(|(key, _)| of_name(key)).map(|(_, value)| value.as_str()).collect()
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// If it is something else, or out of them.
    pub fn integer(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.one(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let problem = format!("must be a whole number between {least} and {most}");
                Err(ApiError::field(name, problem))
            }
        }
    }

    /// True or false; false if it is not there.
    ///
    /// # Errors
    /// If it is something else.
    pub fn boolean(&self, name: &str) -> Result<bool, ApiError> {
        match self.one(name) {
            None | Some("false" | "False") => Ok(false),
            Some("true" | "True") => Ok(true),
            Some(_) => Err(ApiError::field(name, "must be true or false")),
        }
    }

    /// A time such as `created_at[gte]`; one without a zone is in UTC.
    ///
    /// # Errors
    /// If it is something else.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let parsed = text.parse().or_else(|_| format!("{text}Z").parse());
        parsed.map(Some).map_err(|_| {
            ApiError::field(name, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_three_spellings() {
        for text in ["s[]=a&s[]=b", "s%5B%5D=a&s%5B%5D=b", "s=a&s=b"] {
            assert_eq!(Query::parse(text).many("s"), ["a", "b"], "{text}");
        }
    }

    #[test]
    fn times_have_an_offset_a_z_or_nothing() {
        let expected = "2026-01-31T12:00:00Z".parse().ok();
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T14:00:00%2B02:00", "2026-01-31T12:00:00"] {
            let query = Query::parse(&format!("created_at%5Bgte%5D={text}"));
            assert_eq!(query.time("created_at[gte]").unwrap(), expected, "{text}");
        }
        let error = Query::parse("at=soon").time("at").unwrap_err();
        assert!(error.message().starts_with("at: must be an RFC 3339 time"));
    }
}
