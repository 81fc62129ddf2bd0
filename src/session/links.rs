//! Where the path of a tool call leads past symbolic links, as far as the host sees it: a rule for `src/**` is not one for
//! what a link in it points to. A rule that allows goes no further than this; the sandbox is the wall.

use std::path::{Path, PathBuf};

use crate::environment::{Environment, Tier, WorkspaceMode};

/// What a sandbox shows as the host has it, and no session can change.
const FIXED: [&str; 7] = ["/usr", "/etc", "/opt", "/bin", "/sbin", "/lib", "/lib64"];

/// Where a normalised path leads; nothing where the session may have made links that only its sandbox sees.
pub(super) fn resolve(environment: &Environment, path: &Path) -> Option<PathBuf> {
    let own = environment.workspace_mode == WorkspaceMode::Direct
        && path.starts_with(&environment.workspace);
    let fixed = FIXED.iter().any(|place| path.starts_with(place));
    if !own && !fixed && environment.tier != Tier::None {
        return None;
    }
    // What is not there yet would be made where its nearest directory leads. A link that leads nowhere is there.
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(there).expect("it is one of its ancestors");
    let real = there.canonicalize().ok()?;
    Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_leads_where_its_links_do() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().canonicalize().unwrap().join("work");
        std::fs::create_dir_all(work.join("src")).unwrap();
        symlink("/etc", work.join("src/out")).unwrap();
        symlink("nowhere", work.join("src/lost")).unwrap();
        let check = |mode: WorkspaceMode, path: &Path, expected: Option<PathBuf>| {
            let environment =
                Environment { workspace_mode: mode, ..Environment::new(work.clone()) };
            assert_eq!(resolve(&environment, path), expected, "{path:?}");
        };
        let direct = WorkspaceMode::Direct;
        check(direct, &work.join("src/new/a"), Some(work.join("src/new/a")));
        check(direct, &work.join("src"), Some(work.join("src")));
        check(direct, &work.join("src/out/passwd"), Some("/etc/passwd".into()));
        check(direct, &work.join("src/lost"), None);
        check(direct, Path::new("/home/x"), None);
        check(direct, Path::new("/etc/no such"), Some("/etc/no such".into()));
        check(WorkspaceMode::Overlay, &work.join("src"), None);
    }
}
