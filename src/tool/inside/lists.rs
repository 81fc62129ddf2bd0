//! Git's lists of ignored files, which the walk of the search tools reads by itself: whether that can be let.
//!
//! The walk opens what bears the name and reads it to its end. A pipe of that name has no end, and a link to one of the
//! kernel's files may have none; such a list holds up the call, or takes the guest's memory.

use std::fs::Metadata;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::files;
use crate::limits::IGNORE_FILE_BYTES;

/// Whether everything that a walk reads before it looks into this directory is a list that somebody wrote, or not there.
pub(super) fn can_be_read(dir: &Path) -> bool {
    let here = [".gitignore", ".ignore"].iter().all(|name| is_plain(&dir.join(name)));
    here && exclusions(dir).is_none_or(|list| is_plain(&list))
}

/// The repository's own list; for a worktree or a submodule, a path that is not plain if it cannot be found out.
fn exclusions(dir: &Path) -> Option<PathBuf> {
    let pointer = dir.join(".git");
    let facts = pointer.metadata().ok()?;
    if facts.is_dir() {
        return Some(pointer.join("info/exclude"));
    }
    if !facts.is_file() {
        return None;
    }
    let Some(line) = first_line(&pointer) else { return Some(pointer) };
    let own = PathBuf::from(line.strip_prefix("gitdir: ")?);
    let shared = own.join("commondir");
    if !is_plain(&shared) {
        return Some(shared);
    }
    let shared = first_line(&shared)?;
    let shared = if shared.starts_with('.') { own.join(shared) } else { PathBuf::from(shared) };
    Some(shared.join("info/exclude"))
}

fn first_line(path: &Path) -> Option<String> {
    let (file, _) = files::open(path).ok().filter(|_| is_plain(path))?;
    BufReader::new(file.take(IGNORE_FILE_BYTES)).lines().next()?.ok()
}

/// Whether it is absent, or a regular file of a size that can be read. The kernel's own files say that they are empty.
fn is_plain(path: &Path) -> bool {
    let Ok(facts) = path.symlink_metadata() else { return true };
    let is_list = |facts: &Metadata| facts.is_file() && facts.len() <= IGNORE_FILE_BYTES;
    if facts.is_symlink() {
        return path.metadata().map_or(true, |facts| is_list(&facts) && facts.len() > 0);
    }
    is_list(&facts)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all};
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(path: &Path, text: &str) {
        let mut file = std::fs::File::create_new(path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    #[test]
    fn only_what_ends_is_read() {
        let here = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| put(&here.path().join(name), text);
        let dir = |name: &str| {
            create_dir(here.path().join(name)).unwrap();
            here.path().join(name)
        };
        assert!(can_be_read(&dir("bare")));
        let plain = dir("plain");
        put("plain/.gitignore", "x\n");
        put("plain/.ignore", "");
        symlink("plain/.gitignore", here.path().join("list")).unwrap();
        symlink("none", plain.join(".git")).unwrap();
        assert!(can_be_read(&plain));
        let linked = dir("linked");
        symlink(plain.join(".gitignore"), linked.join(".gitignore")).unwrap();
        assert!(can_be_read(&linked));
        for (name, to) in [("zero", "/dev/zero"), ("kernel", "/proc/self/pagemap"), ("dir", "/tmp")]
        {
            let dir = dir(name);
            symlink(to, dir.join(".ignore")).unwrap();
            assert!(!can_be_read(&dir), "{name}");
        }
        let pipe = dir("pipe");
        nix::unistd::mkfifo(&pipe.join(".gitignore"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!can_be_read(&pipe));
        let large = dir("large");
        let file = std::fs::File::create(large.join(".gitignore")).unwrap();
        file.set_len(IGNORE_FILE_BYTES + 1).unwrap();
        assert!(!can_be_read(&large));
    }

    #[test]
    fn nor_what_a_repository_names_elsewhere() {
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        let pipe = |name: &str| {
            create_dir_all(at(name).parent().unwrap()).unwrap();
            nix::unistd::mkfifo(&at(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        };
        let put = |name: &str, text: &str| {
            create_dir_all(at(name).parent().unwrap()).unwrap();
            put(&at(name), text);
        };
        pipe("own/.git/info/exclude");
        assert!(!can_be_read(&at("own")));
        put("tree/.git", &format!("gitdir: {}\n", at("far").display()));
        assert!(can_be_read(&at("tree")), "there is nothing yet");
        put("far/commondir", "../shared\n");
        assert!(can_be_read(&at("tree")));
        pipe("shared/info/exclude");
        assert!(!can_be_read(&at("tree")));
        put("bent/.git", &format!("gitdir: {}\n", at("odd").display()));
        pipe("odd/commondir");
        assert!(!can_be_read(&at("bent")));
    }
}
