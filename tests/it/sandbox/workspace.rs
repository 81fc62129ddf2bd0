//! The workspace's own secrets, and its files that programs of the host obey.

use super::{Probe, anyone, attack};

const PROBES: &[Probe] = &[
    anyone("read an application's secrets", "grep -q $SECRET $WORK/.env"),
    anyone("read them through a link", "ln -s $WORK/.env env; grep -q $SECRET env"),
    anyone("read them by the root of a process", "grep -q $SECRET /proc/self/root$WORK/.env"),
    anyone("read them in a copy of all", "cp -r $WORK/app . ; grep -rq $SECRET app"),
    anyone("link them elsewhere", "ln $WORK/.env env && grep -q $SECRET env"),
    anyone("read a key", "grep -q $SECRET $WORK/.ssh/id_ed25519"),
    anyone("empty an application's secrets", ": > $WORK/app/.env.local")
        .seen("[ ! -s $WORK/app/.env.local ]"),
    anyone("add a hook", "echo x > $WORK/.git/hooks/pre-commit")
        .seen("[ -e $WORK/.git/hooks/pre-commit ]"),
    anyone("change a hook", "echo x >> $WORK/.git/hooks/pre-push")
        .seen("grep -q x $WORK/.git/hooks/pre-push"),
    anyone("make a hook run", "chmod +x $WORK/.git/hooks/pre-push")
        .seen("[ -x $WORK/.git/hooks/pre-push ]"),
    anyone(
        "name a program in git's settings",
        "printf '[core]\n fsmonitor = evil\n' >> $WORK/.git/config",
    )
    .seen("grep -q evil $WORK/.git/config"),
    anyone(
        "replace git's settings",
        "cp $WORK/.git/config c; echo '# new' >> c; mv c $WORK/.git/config",
    )
    .seen("grep -q new $WORK/.git/config"),
    anyone(
        "move the hooks away",
        "mv $WORK/.git/hooks hooks; e=$?; mv hooks $WORK/.git/hooks; exit $e",
    ),
    anyone("move the repository away", "mv $WORK/.git git; e=$?; mv git $WORK/.git; exit $e"),
    anyone("change the editor's tasks", "echo evil > $WORK/.vscode/tasks.json")
        .seen("grep -q evil $WORK/.vscode/tasks.json"),
    anyone("add to the editor's files", "echo evil > $WORK/.vscode/launch.json")
        .seen("[ -e $WORK/.vscode/launch.json ]"),
    anyone("move the editor's files away", "mv $WORK/.vscode v; e=$?; mv v $WORK/.vscode; exit $e"),
    anyone("change what the shell runs", "echo evil > $WORK/.envrc")
        .seen("grep -q evil $WORK/.envrc"),
    anyone("replace what the shell runs", "(cat $WORK/.envrc; echo other) > e; mv e $WORK/.envrc")
        .seen("grep -q other $WORK/.envrc"),
    anyone("change instructions for later sessions", "echo evil >> $WORK/AGENTS.md")
        .seen("grep -q evil $WORK/AGENTS.md"),
    anyone("give git its settings from elsewhere", "echo /tmp/evil > $WORK/.git/commondir")
        .seen("[ -e $WORK/.git/commondir ]"),
    anyone("the same, by a link", "ln -s /tmp/evil $WORK/.git/config.worktree")
        .seen("[ -L $WORK/.git/config.worktree ]"),
    anyone(
        "put another repository in the place of one",
        "mv $WORK/lib lib; mkdir -p $WORK/lib/.git/hooks; echo evil > $WORK/lib/.git/hooks/pre-push",
    )
    .seen("[ -e $WORK/lib/.git/hooks/pre-push ]"),
    anyone(
        "name a program in a submodule's settings",
        "echo evil >> $WORK/.git/modules/libs/deep/config",
    )
    .seen("grep -q evil $WORK/.git/modules/libs/deep/config"),
    anyone(
        "lead a worktree's git elsewhere",
        "echo /tmp/evil > $WORK/.git/worktrees/other/commondir",
    )
    .seen("grep -q evil $WORK/.git/worktrees/other/commondir"),
    anyone("change a hook that git's settings name", "echo evil >> $WORK/.husky/pre-commit")
        .seen("grep -q evil $WORK/.husky/pre-commit"),
    anyone("change what a shell runs, where this is a home", "echo evil >> $WORK/.bashrc")
        .seen("grep -q evil $WORK/.bashrc"),
];

#[test]
fn the_workspaces_secrets_and_switches_are_held() {
    attack("workspace", PROBES);
}
