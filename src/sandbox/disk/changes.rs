//! The door to what a session changed of its workspace: list it, give it to the user, take it back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::apply::{Content, Ground};
use super::diff::{self, Entry, Side, What};
use super::merge;
use super::path::RelativePath;
use super::session::Disk;
use super::{DiskError, restore};
use crate::environment::WorkspaceMode;
use crate::limits::DIFF_BYTES;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It holds something else.
    Changed,
    /// It is gone.
    Removed,
    /// Its permissions are others.
    Mode,
}

/// A path at which the session's version differs from the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Below the workspace.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Whether the user changed it too since the session began.
    pub conflict: bool,
    /// The user's text and the session's, where both sides are text and not too long; nothing is the empty text.
    pub texts: Option<(String, String)>,
}

/// Whose version counts where both have changed a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The session's.
    Ours,
    /// The user's.
    Theirs,
}

/// What was done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The user has the session's version.
    Applied,
    /// Both have both changes.
    Merged,
    /// The user's version stayed.
    Kept,
    /// The session has the user's version again.
    Discarded,
}

/// The change times of the user's files that were written by an `apply`: they are no changes of the user's.
type Applied = BTreeMap<RelativePath, i64>;

/// Both sides, and what is known of how they began.
struct Sides<'a> {
    ours: Side<'a>,
    theirs: Side<'a>,
    base: Option<Side<'a>>,
    /// When the session's disk was made.
    since: i64,
    applied: Applied,
}

impl Sides<'_> {
    /// Whether the user changed the path since the session began.
    fn is_conflict(&self, path: &RelativePath) -> io::Result<bool> {
        let theirs = self.theirs.look(path)?;
        if let Some(entry) = &theirs
            && self.applied.get(path) == Some(&entry.changed)
        {
            return Ok(false);
        }
        if let Some(base) = &self.base {
            return Ok(!diff::same(base, &self.theirs, path)?);
        }
        let touched = |entry: &Entry| entry.what != What::Directory && entry.changed > self.since;
        Ok(theirs.as_ref().is_some_and(touched))
    }

    fn change(&self, path: &RelativePath, room: &mut u64) -> io::Result<Option<Change>> {
        if diff::same(&self.ours, &self.theirs, path)? {
            return Ok(None);
        }
        let (ours, theirs) = (self.ours.look(path)?, self.theirs.look(path)?);
        let kind = match (&theirs, &ours) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (Some(old), Some(new)) if old.what == new.what && self.is_mode_alone(path, old)? => {
                ChangeKind::Mode
            }
            _ => ChangeKind::Changed,
        };
        let shown = |side: &Side<'_>, entry: &Option<Entry>| match entry {
            None => Ok(Some(String::new())),
            Some(Entry { what: What::File(_), .. }) => side.text(path),
            Some(_) => Ok(None),
        };
        let texts = shown(&self.theirs, &theirs)?.zip(shown(&self.ours, &ours)?);
        let size = |(old, new): &(String, String)| (old.len() + new.len()) as u64;
        let texts = texts.filter(|texts| *room >= size(texts));
        *room -= texts.as_ref().map_or(0, size);
        Ok(Some(Change { path: shown_path(path), kind, conflict: self.is_conflict(path)?, texts }))
    }

    fn is_mode_alone(&self, path: &RelativePath, old: &Entry) -> io::Result<bool> {
        Ok(match old.what {
            What::File(_) => {
                super::seal::same_bytes(self.ours.open(path)?, self.theirs.open(path)?)?
            }
            What::Directory => true,
            What::Link(_) | What::Other => false,
        })
    }
}

fn shown_path(path: &RelativePath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.bytes()))
}

/// What a look at both sides is for.
struct View {
    paths: Vec<RelativePath>,
    ground: OwnedFd,
}

impl Disk {
    /// What the session changed. In the mode `direct`: since its files were sealed first.
    ///
    /// # Errors
    /// The system's.
    pub fn changes(&mut self) -> Result<Vec<Change>, DiskError> {
        let view = self.view()?;
        let fail = DiskError::at("look through", self.workspace());
        let base = self.base()?;
        let sides = self.sides(&view, base.as_ref())?;
        let mut room = DIFF_BYTES;
        let found = view.paths.iter().map(|path| sides.change(path, &mut room));
        found.filter_map(Result::transpose).collect::<io::Result<_>>().map_err(fail)
    }

    /// Gives the session's version of these paths, or of all, to the user. What both have changed is merged where it is
    /// text and its beginning is known; else it takes a choice, and without one nothing at all is done.
    ///
    /// # Errors
    /// The paths that take a choice; the system's, with the path at which it stopped.
    pub fn apply(
        &mut self,
        only: &[PathBuf],
        choice: Option<Choice>,
    ) -> Result<Vec<(PathBuf, Outcome)>, DiskError> {
        let changes = self.selected(only)?;
        let view = self.view()?;
        let base = self.base()?;
        let mut sides = self.sides(&view, base.as_ref())?;
        let mut merged = BTreeMap::new();
        let mut open = Vec::new();
        for change in changes.iter().filter(|change| change.conflict && choice.is_none()) {
            let path = relative(&change.path);
            let text = merge_of(&sides, &path, change);
            match text.map_err(DiskError::at("read", &change.path))? {
                Some(text) => drop(merged.insert(path, text)),
                None => open.push(change.path.clone()),
            }
        }
        if !open.is_empty() {
            return Err(DiskError::Conflicts { paths: open });
        }
        let facts =
            self.workspace().metadata().map_err(DiskError::at("write to", self.workspace()))?;
        let ground = Ground { root: &view.ground, owner: (facts.uid(), facts.gid()), layer: false };
        let own = self.own_root()?;
        let own = self.own_ground(&own)?;
        let mut done = Vec::new();
        for change in in_order(&changes, ChangeKind::Removed) {
            let path = relative(&change.path);
            let fail = DiskError::at("apply", &change.path);
            let outcome = if change.conflict && choice == Some(Choice::Theirs) {
                Outcome::Kept
            } else if let Some(text) = merged.get(&path) {
                let entry = sides
                    .ours
                    .look(&path)
                    .map_err(&fail)?
                    .ok_or(DiskError::Conflicts { paths: vec![change.path.clone()] })?;
                own.put(&path, &entry, Content::Text(text)).map_err(&fail)?;
                ground.put(&path, &entry, Content::Text(text)).map_err(&fail)?;
                Outcome::Merged
            } else {
                let left = transfer(&sides.ours, &ground, &path).map_err(&fail)?;
                if left { Outcome::Applied } else { Outcome::Kept }
            };
            if outcome != Outcome::Kept
                && let Some(entry) = sides.theirs.look(&path).map_err(&fail)?
            {
                sides.applied.insert(path, entry.changed);
                self.set_applied(&sides.applied)?;
            }
            done.push((change.path.clone(), outcome));
        }
        Ok(done)
    }

    /// Takes back what the session changed at these paths, or all of it: it has the user's version again.
    ///
    /// # Errors
    /// The system's, with the path at which it stopped.
    pub fn discard(&mut self, only: &[PathBuf]) -> Result<Vec<(PathBuf, Outcome)>, DiskError> {
        let changes = self.selected(only)?;
        let view = self.view()?;
        let base = self.base()?;
        let sides = self.sides(&view, base.as_ref())?;
        let own = self.own_root()?;
        let own = self.own_ground(&own)?;
        let mut done = Vec::new();
        for change in in_order(&changes, ChangeKind::Added) {
            let path = relative(&change.path);
            let fail = DiskError::at("discard", &change.path);
            let left = transfer(&sides.theirs, &own, &path).map_err(&fail)?;
            let outcome = if left { Outcome::Discarded } else { Outcome::Kept };
            done.push((change.path.clone(), outcome));
        }
        Ok(done)
    }

    fn selected(&mut self, only: &[PathBuf]) -> Result<Vec<Change>, DiskError> {
        if self.mode() == WorkspaceMode::Direct {
            return Err(DiskError::Direct);
        }
        let all = self.changes()?;
        if let Some(path) = only.iter().find(|path| !all.iter().any(|c| c.path.starts_with(path))) {
            return Err(DiskError::NoChange { path: path.clone() });
        }
        let wanted = |change: &Change| {
            only.is_empty() || only.iter().any(|path| change.path.starts_with(path))
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// Seals the session's side, and lists the paths at which it may differ.
    fn view(&mut self) -> Result<View, DiskError> {
        if self.mode() == WorkspaceMode::Own {
            return Err(DiskError::Own);
        }
        self.work.seal()?;
        let fail = DiskError::at("look through", self.workspace());
        let ground = restore::open_root(self.workspace()).map_err(&fail)?;
        let mut paths = match self.mode() {
            WorkspaceMode::Overlay => {
                diff::layered(self.work.seals.current(), &ground).map_err(&fail)?
            }
            WorkspaceMode::Direct | WorkspaceMode::Copy | WorkspaceMode::Own => {
                diff::between(&self.work.seals.tree(1)?, self.work.seals.current())
            }
        };
        paths.extend(self.applied()?.into_keys());
        Ok(View { paths: paths.into_iter().collect(), ground })
    }

    /// What the workspace was when the session began, where that was kept.
    fn base(&self) -> Result<Option<super::tree::Tree>, DiskError> {
        match self.mode() {
            WorkspaceMode::Overlay => Ok(None),
            WorkspaceMode::Direct | WorkspaceMode::Copy | WorkspaceMode::Own => {
                self.work.seals.tree(1).map(Some)
            }
        }
    }

    fn sides<'a>(
        &'a self,
        view: &'a View,
        base: Option<&'a super::tree::Tree>,
    ) -> Result<Sides<'a>, DiskError> {
        let seals = &self.work.seals;
        let ours = Side::Sealed(seals, seals.current());
        let sealed = |tree| Side::Sealed(seals, tree);
        let theirs = match (self.mode(), base) {
            (WorkspaceMode::Direct, Some(base)) => sealed(base),
            _ => Side::Live(&view.ground),
        };
        let (base, since) = (base.map(sealed), self.place().made()?);
        Ok(Sides { ours, theirs, base, since, applied: self.applied()? })
    }

    fn own_root(&self) -> Result<OwnedFd, DiskError> {
        let root = self.work.root.as_path();
        restore::open_root(root).map_err(DiskError::at("write to", root))
    }

    fn own_ground<'a>(&self, root: &'a OwnedFd) -> Result<Ground<'a>, DiskError> {
        let owner = self.place().owner().map_err(DiskError::at("look at", &self.place().home()))?;
        let layer = self.mode() == WorkspaceMode::Overlay;
        Ok(Ground { root, owner: (owner, owner), layer })
    }

    fn applied(&self) -> Result<Applied, DiskError> {
        let path = self.place().applied();
        match std::fs::read(&path) {
            Ok(text) => {
                let listed: Vec<(RelativePath, i64)> = serde_json::from_slice(&text)
                    .map_err(|e| DiskError::at("read", &path)(e.into()))?;
                Ok(listed.into_iter().collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Applied::new()),
            Err(e) => Err(DiskError::at("read", &path)(e)),
        }
    }

    fn set_applied(&self, applied: &Applied) -> Result<(), DiskError> {
        let listed: Vec<_> = applied.iter().collect();
        let text = serde_json::to_vec(&listed).expect("paths and numbers are JSON");
        self.place().write(&self.place().applied(), &text)
    }
}

fn relative(path: &Path) -> RelativePath {
    RelativePath::of_bytes(path.as_os_str().as_bytes().to_vec())
}

/// What is to be removed first, inner paths before outer; then the rest, outer ones first.
fn in_order(changes: &[Change], gone: ChangeKind) -> impl Iterator<Item = &Change> {
    let is_gone = move |change: &&Change| change.kind == gone;
    changes.iter().rev().filter(is_gone).chain(changes.iter().filter(move |c| !is_gone(c)))
}

/// Makes a path of the ground what it is on that side; whether it could be.
fn transfer(side: &Side<'_>, ground: &Ground<'_>, path: &RelativePath) -> io::Result<bool> {
    match side.look(path)? {
        None => ground.remove(path),
        // What a layer no longer has shows through, unless what is above hides it.
        Some(_) if ground.layer && ground.shows_through(path)? => ground.remove(path),
        Some(entry) => {
            ground.put(path, &entry, Content::Of(&mut || side.open(path))).map(|()| true)
        }
    }
}

/// Both changes together, if they do not meet.
fn merge_of(sides: &Sides<'_>, path: &RelativePath, change: &Change) -> io::Result<Option<String>> {
    let (Some(base), Some((theirs, ours))) = (&sides.base, &change.texts) else { return Ok(None) };
    let is_file = |side: &Side<'_>| {
        side.look(path).map(|entry| entry.is_some_and(|entry| matches!(entry.what, What::File(_))))
    };
    if !(is_file(base)? && is_file(&sides.ours)? && is_file(&sides.theirs)?) {
        return Ok(None);
    }
    let base = base.text(path)?;
    Ok(base.and_then(|base| merge::three_way(&base, ours, theirs)))
}
