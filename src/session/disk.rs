//! The session's disk from the driver's side: opened late, worked with off the runtime's thread.

use std::path::PathBuf;

use crate::environment::Environment;
use crate::sandbox::disk::{Disk, DiskError, DiskSeal, Place, SealReport};

/// The disk of one session, which one driver at a time works with.
pub(super) struct DiskSlot {
    place: Place,
    environment: Environment,
    open: Option<Disk>,
    /// The workspace, if it is too large to be sealed: to find that out again would cost as much each time.
    too_large: Option<PathBuf>,
}

impl DiskSlot {
    pub(super) fn new(place: Place, environment: Environment) -> Self {
        Self { place, environment, open: None, too_large: None }
    }

    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Disk) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let open = self.open.take();
        let (place, environment) = (self.place.clone(), self.environment.clone());
        let task = tokio::task::spawn_blocking(move || {
            let mut disk = match open {
                Some(disk) => disk,
                None => Disk::open(&place, environment.workspace_mode, &environment.workspace)?,
            };
            let done = work(&mut disk)?;
            Ok((disk, done))
        });
        // After a failure the disk is opened anew: what it knows may be half of it.
        let (disk, done) = task.await.expect("work on a disk does not panic")?;
        self.open = Some(disk);
        Ok(done)
    }

    /// Seals the disk as it is.
    pub(super) async fn seal(&mut self) -> Result<SealReport, DiskError> {
        if let Some(path) = self.too_large.clone() {
            return Err(DiskError::TooLarge { path });
        }
        let sealed = self.with(Disk::seal).await;
        if let Err(DiskError::TooLarge { path }) = &sealed {
            self.too_large = Some(path.clone());
        }
        sealed
    }

    /// Sees to it that the rewind at this position of the log is carried out.
    pub(super) async fn rewind(
        &mut self,
        at: u64,
        (home, work): (u64, u64),
    ) -> Result<(), DiskError> {
        self.with(move |disk| disk.rewind(at, DiskSeal { home, work })).await
    }
}
