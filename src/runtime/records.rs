//! Stored definitions: agents, environments, files. What is in them is the door's business that makes them.

use serde_json::Value;

use super::{Runtime, RuntimeError};
use crate::store::{NewRecord, RecordChange};
pub use crate::store::{Record, RecordFilter};

impl Runtime {
    /// Stores a new record.
    ///
    /// # Errors
    /// If there is one of that id, or the store's.
    pub async fn put_record(
        &self,
        kind: &'static str,
        id: String,
        owner: Option<String>,
        body: Value,
    ) -> Result<Record, RuntimeError> {
        let created_at = self.shared.clock.now();
        let new = NewRecord { kind, id, owner, created_at, body };
        Ok(self.shared.store.put_record(new).await?)
    }

    /// Replaces the body of a record that nobody changed since it was read; with `keep_old` the old one can still be
    /// read by its revision.
    ///
    /// # Errors
    /// If somebody changed it first, or the store's.
    pub async fn change_record(
        &self,
        kind: &'static str,
        read: &Record,
        body: Value,
        keep_old: bool,
    ) -> Result<Record, RuntimeError> {
        let change = RecordChange { body, at: self.shared.clock.now(), keep_old };
        Ok(self.shared.store.change_record(kind, &read.id, read.revision, change).await?)
    }

    /// Archives a record; one that is archived stays as it is.
    ///
    /// # Errors
    /// If there is none, or the store's.
    pub async fn archive_record(
        &self,
        kind: &'static str,
        id: &str,
    ) -> Result<Record, RuntimeError> {
        let now = self.shared.clock.now();
        Ok(self.shared.store.archive_record(kind, id, now).await?)
    }

    /// Removes a record.
    ///
    /// # Errors
    /// If there is none, or the store's.
    pub async fn delete_record(&self, kind: &'static str, id: &str) -> Result<(), RuntimeError> {
        Ok(self.shared.store.delete_record(kind, id).await?)
    }

    /// How many sessions somebody works on.
    #[must_use]
    pub fn driven(&self) -> u64 {
        self.shared.drivers.driven() as u64
    }
}
