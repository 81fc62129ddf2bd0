//! The sessions' own disks: where they lie, made with a session or when it first needs one, gone with it.

use std::path::Path;

use super::history::with_disk;
use super::{Runtime, RuntimeError};
use crate::environment::{Environment, WorkspaceMode};
use crate::id::SessionId;
use crate::sandbox;
use crate::sandbox::disk::{Disk, Place};
use crate::store::Reader;

impl Runtime {
    /// The disk of a session.
    pub(super) fn disk(&self, id: &SessionId) -> Place {
        Place::of(&self.config().data_dir, id.as_str())
    }

    /// Makes the disk of a session that is about to be created. Where it is cut, the next start sweeps it.
    pub(super) async fn make_disk(
        &self,
        id: &SessionId,
        environment: &Environment,
    ) -> Result<(), RuntimeError> {
        let disk = self.disk(id);
        let made = self.fill_disk(&disk, environment).await;
        if made.is_err() {
            disk.remove()?;
        }
        made
    }

    async fn fill_disk(&self, disk: &Place, environment: &Environment) -> Result<(), RuntimeError> {
        disk.prepare(environment.workspace_mode, &environment.workspace)?;
        match environment.workspace_mode {
            WorkspaceMode::Direct | WorkspaceMode::Own => {}
            // Whether it can be had here is found out by having it.
            WorkspaceMode::Overlay => drop(sandbox::launch(environment, disk, None, &[]).await?),
            WorkspaceMode::Copy => {
                let workspace = environment.workspace.clone();
                let copy = move |disk: &mut Disk| disk.copy_workspace(&workspace);
                with_disk(disk.clone(), environment, copy).await?;
            }
        }
        Ok(())
    }
}

/// Removes the disks of sessions that are gone: of one that was deleted, or never came to be.
pub(super) fn sweep(data_dir: &Path, reader: &Reader) -> Result<(), RuntimeError> {
    for name in Place::names(data_dir)? {
        let Ok(id) = name.parse::<SessionId>() else { continue };
        if reader.session(&id)?.is_none() {
            Place::of(data_dir, &name).remove()?;
        }
    }
    Ok(Place::sweep(data_dir)?)
}
