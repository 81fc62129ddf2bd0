//! Workspaces whose git directory lies elsewhere: worktrees and submodules.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::as_user;
use crate::support::{As, Casemate};

/// Runs a script on the host as whoever runs the program, in the directory beside its workspace.
fn outside(casemate: &Casemate, who: As, script: &str) {
    let clean = casemate.command();
    let mut command = Command::new("bash");
    command.env_clear().envs(clean.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "protocol.file.allow");
    command.env("GIT_CONFIG_VALUE_0", "always");
    command.args(["-ec", script]).current_dir(beside(casemate));
    let done = as_user(&mut command, who).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

fn beside(casemate: &Casemate) -> PathBuf {
    casemate.workspace().parent().unwrap().to_owned()
}

/// A repository `main` with one commit.
const MAIN: &str = "
    git init -q -b main main && cd main && mkdir -p .git/hooks
    git config user.email a@b.c && git config user.name a
    echo one > f && git add f && git commit -qm one && cd ..";

/// `work` becomes a worktree of it, and there is another one.
const WORKTREE: &str = "
    git -C main worktree add -q ../other -b other
    git -C main worktree add -q -f ../work -b work";

/// `main` is a submodule of `super`; the name of it is `work`, beside which `super` keeps its git directory.
const SUBMODULE: &str = "
    git init -q -b main . && rmdir work && git submodule --quiet add $PWD/main work
    git -C work config user.email a@b.c && git -C work config user.name a";

/// What an agent does, and what it must not.
const INSIDE: &str = "
    set -e
    git status --porcelain | diff - /dev/null
    echo two >> f && git add f && git commit -qm two
    git log --oneline | wc -l
    g=$(git rev-parse --git-common-dir)
    (echo x >> $g/config) 2>/dev/null && echo the config can be changed
    (echo x > $g/hooks/pre-commit) 2>/dev/null && echo a hook can be added
    mv $g/hooks $g/h 2>/dev/null && echo the hooks can be moved away
    for other in $g/worktrees/other; do
        (echo x >> $other/gitdir) 2>/dev/null && echo another worktree can be changed
    done
    git worktree prune 2>/dev/null; true";

#[test]
fn git_works_where_its_directory_lies_elsewhere() {
    for who in As::all() {
        for (name, made) in [("worktree", WORKTREE), ("submodule", SUBMODULE)] {
            let casemate = Casemate::of(who);
            outside(&casemate, who, &format!("{MAIN}\n{made}"));
            let done = casemate.run(&["sandbox", "exec", "--", "bash", "-c", INSIDE]);
            assert_eq!((done.stdout().trim(), done.stderr().as_str()), ("2", ""), "{who:?} {name}");
            // The commit is the user's, and he can go on.
            let check = "cd work && [ $(git log --oneline | wc -l) = 2 ] && git status --porcelain | diff - /dev/null
                echo three >> f && git commit -qam three && git fsck --no-progress && git rev-parse HEAD~2";
            outside(&casemate, who, check);
            if name == "worktree" {
                outside(&casemate, who, "git -C other status && git -C main status");
            }
        }
    }
}

/// A hostile `.git`: it names a directory that does not point back.
#[test]
fn a_pointer_shows_nothing_that_does_not_point_back() {
    let check = |made: &str, look: &Path| {
        for who in As::all() {
            let casemate = Casemate::of(who);
            outside(&casemate, who, &format!("{MAIN}\n{made}"));
            let look = beside(&casemate).join(look);
            assert!(look.exists(), "{look:?}");
            let line = format!("ls {}", look.display());
            let done = casemate.run(&["sandbox", "exec", "--", "bash", "-c", &line]);
            assert_ne!(done.code(), Some(0), "{who:?} {made}: {done:?}");
        }
    };
    let (keys, main) = (Path::new("home/.ssh/id"), Path::new("main/.git/HEAD"));
    check("mkdir home/.ssh; echo k > home/.ssh/id; echo 'gitdir: ../home/.ssh' > work/.git", keys);
    check("echo 'gitdir: ../main/.git' > work/.git", main);
    check("ln -s ../main/.git work/g; echo 'gitdir: g' > work/.git", main);
    check("git -C main worktree add -q ../other; cp other/.git work/.git", main);
}

/// A hook where there was none: in the repository outside as in one of the workspace's own.
#[test]
fn what_git_would_obey_there_is_set_aside() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        outside(&casemate, who, &format!("{MAIN}\nrm -r main/.git/hooks\n{WORKTREE}"));
        let line = "mkdir $(git rev-parse --git-common-dir)/hooks";
        let done = casemate.run(&["sandbox", "exec", "--", "bash", "-c", line]).expect(0);
        assert!(
            done.stderr().contains("/main/.git/hooks was made, which your git would obey"),
            "{done:?}"
        );
        let git = beside(&casemate).join("main/.git");
        assert_eq!(
            (git.join("hooks").exists(), git.join("hooks.set-aside-1").exists()),
            (false, true)
        );
    }
}
