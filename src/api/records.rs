//! What lists and updates of stored definitions share, whatever is in them.

use serde_json::Value;

use super::error::ApiError;
use super::page::{self, Cursor, Page};
use crate::limits::RECORD_CHANGE_ATTEMPTS;
use crate::runtime::{Reader, Record, RecordFilter, Runtime, RuntimeError, StoreError};

/// A page of the records that `filter` chooses, the newest first, and the cursor of the next page if there is one.
pub(super) fn list(
    reader: &Reader,
    page: &Page,
    list: &str,
    filter: RecordFilter,
) -> Result<(Vec<Record>, Option<Cursor>), ApiError> {
    let before = page.cursor.as_ref().map(Cursor::number).transpose()?;
    let records = reader.records(&RecordFilter { before, ..filter }, page.limit + 1)?;
    Ok(page::cut(records, page.limit, list, |record| record.key.to_string()))
}

/// How a record is changed.
pub(super) struct Change<'a> {
    /// What it is, and its kind in the store.
    pub(super) kind: &'static str,
    /// Which.
    pub(super) id: &'a str,
    /// Whether what it was can still be read.
    pub(super) keep_old: bool,
}

impl Change<'_> {
    /// Changes the record from what `find` gives to what `new` makes of it; nothing, if that is nothing. Where somebody
    /// else was faster, it is made of what he left, or refused by `new` if he archived it.
    pub(super) async fn make(
        &self,
        runtime: &Runtime,
        find: impl Fn() -> Result<Record, ApiError>,
        new: impl Fn(&Record) -> Result<Option<Value>, ApiError>,
    ) -> Result<Record, ApiError> {
        let Self { kind, id, keep_old } = *self;
        for _ in 0..RECORD_CHANGE_ATTEMPTS {
            let record = find()?;
            let Some(body) = new(&record)? else { return Ok(record) };
            match runtime.change_record(kind, &record, body, keep_old).await {
                Err(RuntimeError::Store(
                    StoreError::StaleRecord { .. } | StoreError::ArchivedRecord { .. },
                )) => {}
                changed => return Ok(changed?),
            }
        }
        let message = format!("the {kind} `{id}` is being changed by others all the time");
        Err(ApiError::conflict(message))
    }
}
