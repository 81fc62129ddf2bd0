//! `AGENTS.md`: instructions for agents, from the repository's root down to the workspace, nearest last.
//!
//! The host reads these files, outside of the sandbox, so it reads only regular files that lie where they seem to lie:
//! a link that leaves the directory tree is passed over, or it would carry a secret into the prompt.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::limits::AGENTS_MD_BYTES;
use crate::session::prompt::Instructions;

const NAME: &str = "AGENTS.md";

/// The instructions for a workspace: the user's own, then the repository's. Over the bound, the nearest win.
pub(super) fn find(workspace: &Path, global: Option<&Path>) -> Vec<Instructions> {
    let root = repository_root(workspace);
    let mut files: Vec<PathBuf> = global.map(Path::to_owned).into_iter().collect();
    let mut below: Vec<_> =
        workspace.ancestors().take_while(|dir| dir.starts_with(&root)).collect();
    below.reverse();
    files.extend(below.into_iter().map(|dir| dir.join(NAME)));

    let mut room = AGENTS_MD_BYTES;
    let mut found = Vec::new();
    for path in files.iter().rev() {
        let within =
            if Some(path.as_path()) == global { path.parent() } else { Some(root.as_path()) };
        let Some(text) = within.and_then(|dir| read(path, dir, room)) else { continue };
        room -= text.len();
        found.push(Instructions { path: path.display().to_string(), text });
    }
    found.reverse();
    found
}

/// The nearest directory at or above with a `.git`; the workspace itself if there is none.
pub(super) fn repository_root(workspace: &Path) -> PathBuf {
    let root = workspace.ancestors().find(|dir| dir.join(".git").symlink_metadata().is_ok());
    root.unwrap_or(workspace).to_owned()
}

fn read(path: &Path, within: &Path, room: usize) -> Option<String> {
    let real = path.canonicalize().ok()?;
    if !real.starts_with(within.canonicalize().ok()?) {
        return None;
    }
    let mut options = std::fs::OpenOptions::new();
    let file =
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(real).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(u64::try_from(room).ok()?).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(&path)
                .and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()))
                .unwrap();
        }
        dir
    }

    fn texts(workspace: &Path, global: Option<&Path>) -> Vec<String> {
        find(workspace, global).into_iter().map(|file| file.text).collect()
    }

    #[test]
    fn the_nearest_file_comes_last_and_files_above_the_repository_do_not_count() {
        let dir = tree(&[
            ("AGENTS.md", "outside"),
            ("repo/.git/HEAD", ""),
            ("repo/AGENTS.md", "root"),
            ("repo/a/AGENTS.md", "  \n"),
            ("repo/a/b/AGENTS.md", "nearest"),
            ("home/AGENTS.md", "mine"),
        ]);
        let global = dir.path().join("home/AGENTS.md");
        let workspace = dir.path().join("repo/a/b");
        assert_eq!(texts(&workspace, Some(&global)), ["mine", "root", "nearest"]);
    }

    #[test]
    fn a_link_out_of_the_repository_is_not_read() {
        let dir = tree(&[("secret", "key"), ("repo/.git/HEAD", ""), ("repo/CLAUDE.md", "inside")]);
        let repo = dir.path().join("repo");
        std::os::unix::fs::symlink("../secret", repo.join(NAME)).unwrap();
        assert_eq!(texts(&repo, None), [""; 0]);
        std::fs::remove_file(repo.join(NAME)).unwrap();
        std::os::unix::fs::symlink("CLAUDE.md", repo.join(NAME)).unwrap();
        assert_eq!(texts(&repo, None), ["inside"]);
    }

    #[test]
    fn over_the_bound_the_nearest_file_wins() {
        let large = "x".repeat(AGENTS_MD_BYTES);
        let dir = tree(&[(".git/HEAD", ""), ("AGENTS.md", &large), ("a/AGENTS.md", "near")]);
        let found = texts(&dir.path().join("a"), None);
        assert_eq!(found.last().map(String::as_str), Some("near"));
        assert!(found.iter().map(String::len).sum::<usize>() <= AGENTS_MD_BYTES);
    }
}
