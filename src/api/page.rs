//! Pages of lists: an opaque cursor that knows which list it is of, and in which order.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::error::ApiError;
use super::query::Query;

/// Which entries of a list are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: usize,
    /// Beyond this place.
    pub cursor: Option<Cursor>,
}

/// A place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The list: a name, and whatever else must be the same, such as an id or an order.
    pub list: String,
    /// The last entry that was given; what it means is the list's business.
    pub key: String,
    /// Whether the page lies before that entry instead of after it.
    pub back: bool,
}

/// What cursors begin with.
const PREFIX: &str = "page_";

impl Page {
    /// Reads `limit` and `page`. The bounds are the list's.
    ///
    /// # Errors
    /// If the limit is out of bounds, or the cursor none of this list.
    pub fn of(query: &Query, list: &str, default: usize, most: usize) -> Result<Self, ApiError> {
        let limit = query.integer("limit", 1, most as u64)?;
        let cursor = query.one("page").map(|text| Cursor::parse(text, list)).transpose()?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default);
        Ok(Self { limit, cursor })
    }
}

impl Cursor {
    /// The place after an entry.
    #[must_use]
    pub fn after(list: &str, key: impl Into<String>) -> Self {
        Self { list: list.to_owned(), key: key.into(), back: false }
    }

    /// The place before an entry.
    #[must_use]
    pub fn before(list: &str, key: impl Into<String>) -> Self {
        Self { list: list.to_owned(), key: key.into(), back: true }
    }

    /// Reads what its `Display` wrote.
    ///
    /// # Errors
    /// If it is something else, or of another list.
    pub fn parse(text: &str, list: &str) -> Result<Self, ApiError> {
        let wrong = || ApiError::field("page", "is no cursor of this list with this order");
        let bytes = text.strip_prefix(PREFIX).and_then(|body| URL_SAFE_NO_PAD.decode(body).ok());
        let value: Value = bytes.and_then(|b| serde_json::from_slice(&b).ok()).ok_or_else(wrong)?;
        let part = |at: usize| value.get(at).and_then(Value::as_str).map(str::to_owned);
        let (of, key) = part(0).zip(part(1)).ok_or_else(wrong)?;
        let back = value.get(2).and_then(Value::as_bool).ok_or_else(wrong)?;
        if of != list {
            return Err(wrong());
        }
        Ok(Self { list: of, key, back })
    }

    /// The key as a number.
    ///
    /// # Errors
    /// If it is none.
    pub fn number<T: std::str::FromStr>(&self) -> Result<T, ApiError> {
        self.key.parse().map_err(|_| ApiError::field("page", "is no cursor of this list"))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = json!([self.list, self.key, self.back]).to_string();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(value))
    }
}

/// Cuts a list that was read with one entry more than wanted: the page, and the cursor of the next one if there is more.
#[must_use]
pub fn cut<T>(
    mut entries: Vec<T>,
    limit: usize,
    list: &str,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<Cursor>) {
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| Cursor::after(list, key(last)));
    (entries, next)
}

/// The body of a list that goes forward only.
#[must_use]
pub fn body(data: &[Value], next: Option<&Cursor>) -> Value {
    json!({ "data": data, "next_page": next.map(ToString::to_string) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let cursor = Cursor::after("agents", "17");
        assert_eq!(Cursor::parse(&cursor.to_string(), "agents").unwrap(), cursor);
        for (text, list) in [
            (cursor.to_string().as_str(), "environments"),
            ("17", "agents"),
            ("page_", "agents"),
            ("page_bm8", "agents"),
            ("page_\u{e4}", "agents"),
        ] {
            let error = Cursor::parse(text, list).unwrap_err();
            assert!(error.message().starts_with("page: is no cursor"), "{text}");
        }
    }
}
