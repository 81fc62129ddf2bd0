//! The door to what a session changed of its workspace: list it, give it to the user, take it back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::apply::{Content, Ground};
use super::diff::{self, Entry, Side, What};
use super::merge;
use super::path::RelativePath;
use super::seal::{self, Seals};
use super::session::Disk;
use super::tree::{Kind, Node, Tree};
use super::{DiskError, layer, restore};
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
    /// The user's, with the session's beside it, in a file of its own.
    Beside,
}

/// What is added to the name of a file for the session's version beside it.
const BESIDE: &[u8] = b".casemate-session";

/// A path that both have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Below the workspace.
    pub path: PathBuf,
    /// The user's lines that the session changed too; none, if that cannot be told.
    pub lines: Vec<RangeInclusive<usize>>,
}

/// Texts that hold both changes.
type Merged = BTreeMap<RelativePath, String>;

/// What was done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The user has the session's version.
    Applied,
    /// Both have both changes.
    Merged,
    /// The user's version stayed.
    Kept,
    /// The user's version stayed, and the session's lies beside it.
    Beside,
    /// The session has the user's version again.
    Discarded,
}

/// The change times of the user's files that were written by an `apply`: they are no changes of the user's.
type Applied = BTreeMap<RelativePath, i64>;

/// What the user's files were when the session first changed them, or last gave them its version.
struct Kept<'a> {
    seals: &'a Seals,
    ours: &'a Tree,
}

impl Kept<'_> {
    fn open(&self, path: &RelativePath) -> io::Result<Option<File>> {
        let base = self.ours.get(path).and_then(|node| node.base.as_ref());
        base.map(|object| File::open(self.seals.object(object))).transpose()
    }
}

/// Both sides, and what is known of how they began.
struct Sides<'a> {
    ours: Side<'a>,
    theirs: Side<'a>,
    base: Option<Side<'a>>,
    kept: Kept<'a>,
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
        if let (Some(base), Some(What::File(_))) =
            (self.kept.open(path)?, theirs.as_ref().map(|entry| &entry.what))
        {
            return Ok(!seal::same_bytes(base, self.theirs.open(path)?)?);
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
            What::File(_) => seal::same_bytes(self.ours.open(path)?, self.theirs.open(path)?)?,
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
    /// What the session has: its layer over the user's files, or all of its own.
    ours: Tree,
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

    /// What an [`Self::apply`] would do now; nothing is done.
    ///
    /// # Errors
    /// The paths that take a choice.
    pub fn would_apply(
        &mut self,
        only: &[PathBuf],
        choice: Option<Choice>,
    ) -> Result<Vec<PathBuf>, DiskError> {
        let changes = self.selected(only)?;
        self.merged(&changes, choice)?;
        Ok(changes.into_iter().map(|change| change.path).collect())
    }

    /// What a [`Self::discard`] would take back now; nothing is done.
    ///
    /// # Errors
    /// A path at which nothing differs.
    pub fn would_discard(&mut self, only: &[PathBuf]) -> Result<Vec<PathBuf>, DiskError> {
        Ok(self.selected(only)?.into_iter().map(|change| change.path).collect())
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
        let merged = self.merged(&changes, choice)?;
        self.take_in(&merged)?;
        let view = self.view()?;
        let base = self.base()?;
        let mut sides = self.sides(&view, base.as_ref())?;
        let facts =
            self.workspace().metadata().map_err(DiskError::at("write to", self.workspace()))?;
        let ground = Ground { root: &view.ground, owner: (facts.uid(), facts.gid()), layer: false };
        let mut done = Vec::new();
        for change in in_order(&changes, ChangeKind::Removed) {
            let path = relative(&change.path);
            let fail = DiskError::at("apply", &change.path);
            let outcome = match choice {
                Some(Choice::Theirs) if change.conflict => Outcome::Kept,
                Some(Choice::Beside) if change.conflict && !merged.contains_key(&path) => {
                    beside(&sides.ours, &ground, &path).map_err(&fail)?
                }
                _ if !transfer(&sides.ours, &ground, &path).map_err(&fail)? => Outcome::Kept,
                _ if merged.contains_key(&path) => Outcome::Merged,
                _ => Outcome::Applied,
            };
            if matches!(outcome, Outcome::Applied | Outcome::Merged)
                && let Some(entry) = sides.theirs.look(&path).map_err(&fail)?
            {
                sides.applied.insert(path, entry.changed);
                self.set_applied(&sides.applied)?;
            }
            done.push((change.path.clone(), outcome));
        }
        drop(sides);
        let given =
            done.iter().filter(|(_, what)| matches!(what, Outcome::Applied | Outcome::Merged));
        self.work.begin_anew(given.map(|(path, _)| relative(path)))?;
        Ok(done)
    }

    /// The texts that hold both changes, by path.
    fn merged(&mut self, changes: &[Change], choice: Option<Choice>) -> Result<Merged, DiskError> {
        let view = self.view()?;
        let base = self.base()?;
        let sides = self.sides(&view, base.as_ref())?;
        let (mut merged, mut open) = (Merged::new(), Vec::new());
        let wanted = matches!(choice, None | Some(Choice::Beside));
        for change in changes.iter().filter(|change| change.conflict && wanted) {
            let path = relative(&change.path);
            let outcome = sides.merge(&path, change);
            match outcome.map_err(DiskError::at("read", &change.path))? {
                Ok(text) => drop(merged.insert(path, text)),
                Err(lines) => open.push(Conflict { path: change.path.clone(), lines }),
            }
        }
        if open.is_empty() || choice == Some(Choice::Beside) {
            Ok(merged)
        } else {
            Err(DiskError::Conflicts { paths: open })
        }
    }

    /// Gives the session the texts that hold both changes.
    fn take_in(&mut self, merged: &Merged) -> Result<(), DiskError> {
        if merged.is_empty() {
            return Ok(());
        }
        let fail = DiskError::at("merge", self.workspace());
        if self.mode() == WorkspaceMode::Overlay {
            let (root, owner) = (self.own_root()?, self.own()?);
            let own = Ground { root: &root, owner: (owner, owner), layer: true };
            let live = Side::Live(&root);
            for (path, text) in merged {
                if let Some(entry) = live.look(path).map_err(&fail)? {
                    own.put(path, &entry, Content::Text(text)).map_err(&fail)?;
                }
            }
            return Ok(());
        }
        let mut target = self.work.shown();
        for (index, (path, text)) in merged.iter().enumerate() {
            let kept = self.work.seals.keep_content(index, &mut text.as_bytes());
            let kept = kept.map_err(&fail)?;
            if let Some(node) = target.get_mut(path) {
                node.kind = kept;
                node.modified = seal::now();
            }
        }
        self.work.show(target).map(drop)
    }

    /// Takes back what the session changed at these paths, or all of it: it has the user's version again.
    ///
    /// # Errors
    /// The system's, with the path at which it stopped.
    pub fn discard(&mut self, only: &[PathBuf]) -> Result<Vec<(PathBuf, Outcome)>, DiskError> {
        let changes = self.selected(only)?;
        if self.mode() == WorkspaceMode::Copy {
            return self.discard_of_copy(&changes);
        }
        let view = self.view()?;
        let base = self.base()?;
        let sides = self.sides(&view, base.as_ref())?;
        let (root, owner) = (self.own_root()?, self.own()?);
        let own = Ground { root: &root, owner: (owner, owner), layer: true };
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

    /// The same of files that are all the session's own: they become another tree.
    fn discard_of_copy(
        &mut self,
        changes: &[Change],
    ) -> Result<Vec<(PathBuf, Outcome)>, DiskError> {
        let view = self.view()?;
        let base = self.base()?;
        let sides = self.sides(&view, base.as_ref())?;
        let mut target = view.ours.clone();
        let (owner, mut done) = (self.own()?, Vec::new());
        for (index, change) in in_order(changes, ChangeKind::Added).enumerate() {
            let path = relative(&change.path);
            let fail = DiskError::at("discard", &change.path);
            let outcome = match sides.theirs.look(&path).map_err(&fail)? {
                None if layer::inner(&target, &path).next().is_some() => Outcome::Kept,
                None => {
                    target.remove(&path);
                    Outcome::Discarded
                }
                Some(Entry { what: What::Other, .. }) => Outcome::Kept,
                Some(entry) => {
                    let seals = &self.work.seals;
                    let kind = kind_of(&entry, &mut || {
                        seals.keep_content(index, &mut sides.theirs.open(&path)?)
                    });
                    let node = Node {
                        kind: kind.map_err(&fail)?,
                        mode: entry.mode,
                        owner: (owner, owner),
                        modified: entry.modified,
                        base: None,
                    };
                    layer::put(&mut target, &path, node);
                    Outcome::Discarded
                }
            };
            done.push((change.path.clone(), outcome));
        }
        drop(sides);
        self.work.show(target)?;
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
        self.seal_work()?;
        let fail = DiskError::at("look through", self.workspace());
        let ground = restore::open_root(self.workspace()).map_err(&fail)?;
        let ours = self.work.shown();
        let mut paths = match self.mode() {
            WorkspaceMode::Overlay => diff::layered(&ours, &ground).map_err(&fail)?,
            WorkspaceMode::Direct | WorkspaceMode::Copy | WorkspaceMode::Own => {
                diff::between(&self.work.seals.tree(1)?, &ours)
            }
        };
        paths.extend(self.applied()?.into_keys());
        Ok(View { paths: paths.into_iter().collect(), ours, ground })
    }

    /// What the workspace was when the session began, where that was kept.
    fn base(&self) -> Result<Option<Tree>, DiskError> {
        match self.mode() {
            WorkspaceMode::Overlay => Ok(None),
            WorkspaceMode::Direct | WorkspaceMode::Copy | WorkspaceMode::Own => {
                self.work.seals.tree(1).map(Some)
            }
        }
    }

    fn sides<'a>(&'a self, view: &'a View, base: Option<&'a Tree>) -> Result<Sides<'a>, DiskError> {
        let seals = &self.work.seals;
        let sealed = |tree| Side::Sealed(seals, tree);
        let ours = match self.mode() {
            WorkspaceMode::Overlay => Side::Layer(seals, &view.ours, &view.ground),
            WorkspaceMode::Direct | WorkspaceMode::Copy | WorkspaceMode::Own => sealed(&view.ours),
        };
        let theirs = match (self.mode(), base) {
            (WorkspaceMode::Direct, Some(base)) => sealed(base),
            _ => Side::Live(&view.ground),
        };
        let (base, since) = (base.map(sealed), self.place().made()?);
        let kept = Kept { seals, ours: &view.ours };
        Ok(Sides { ours, theirs, base, kept, since, applied: self.applied()? })
    }

    fn own_root(&self) -> Result<OwnedFd, DiskError> {
        let root = self.work.root.as_path();
        restore::open_root(root).map_err(DiskError::at("write to", root))
    }

    /// Whose everything on the disk is.
    fn own(&self) -> Result<u32, DiskError> {
        self.place().owner().map_err(DiskError::at("look at", &self.place().home()))
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

/// What a file, a directory or a link is in a tree.
fn kind_of(entry: &Entry, content: &mut dyn FnMut() -> io::Result<Kind>) -> io::Result<Kind> {
    match &entry.what {
        What::Directory => Ok(Kind::Directory { opaque: false }),
        What::File(_) => content(),
        What::Link(target) => Ok(Kind::Link { target: target.clone() }),
        What::Other => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Leaves the user's version, and puts the session's beside it under a name that nobody has.
fn beside(ours: &Side<'_>, ground: &Ground<'_>, path: &RelativePath) -> io::Result<Outcome> {
    let spot = RelativePath::of_bytes([path.bytes(), BESIDE].concat());
    match ours.look(path)? {
        Some(entry) if Side::Live(ground.root).look(&spot)?.is_none() => ground
            .put(&spot, &entry, Content::Of(&mut || ours.open(path)))
            .map(|()| Outcome::Beside),
        Some(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{spot}` is there already")))
        }
        None => Ok(Outcome::Kept),
    }
}

impl Sides<'_> {
    /// Both changes together; where they meet, the user's lines at which they do.
    fn merge(
        &self,
        path: &RelativePath,
        change: &Change,
    ) -> io::Result<Result<String, Vec<RangeInclusive<usize>>>> {
        let none = Ok(Err(Vec::new()));
        let Some((theirs, ours)) = &change.texts else { return none };
        let is_file = |side: &Side<'_>| {
            let entry = side.look(path);
            entry.map(|entry| entry.is_some_and(|entry| matches!(entry.what, What::File(_))))
        };
        if !(is_file(&self.ours)? && is_file(&self.theirs)?) {
            return none;
        }
        let base = match (self.kept.open(path)?, &self.base) {
            (Some(kept), _) => diff::text_of(kept)?,
            // What was given to the user since then is not known.
            (None, Some(base)) if !self.applied.contains_key(path) && is_file(base)? => {
                base.text(path)?
            }
            (None, _) => None,
        };
        Ok(base.map_or(Err(Vec::new()), |base| merge::three_way(&base, ours, theirs)))
    }
}
