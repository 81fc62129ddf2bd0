//! Credentials, and the runtime's own files.

use super::{Probe, anyone, attack, root, untried};

const PROBES: &[Probe] = &[
    anyone("an SSH key", "grep -q $SECRET $VICTIM_HOME/.ssh/id_ed25519"),
    anyone("a cloud's credentials", "grep -q $SECRET $VICTIM_HOME/.aws/credentials"),
    anyone("passwords for the network", "grep -q $SECRET $VICTIM_HOME/.netrc"),
    anyone("a token of the forge", "grep -q $SECRET $VICTIM_HOME/.config/gh/hosts.yml"),
    anyone("a registry's password", "grep -q $SECRET $VICTIM_HOME/.docker/config.json"),
    anyone("a signing key", "grep -q $SECRET $VICTIM_HOME/.gnupg/key"),
    anyone("the history of the shell", "grep -q $SECRET $VICTIM_HOME/.bash_history"),
    anyone("the home by its list", "ls -A $VICTIM_HOME | grep -q ssh"),
    anyone("the runtime's database", "grep -q $SECRET $VICTIM_HOME/data/key"),
    anyone(
        "change the runtime's database",
        "mkdir -p $VICTIM_HOME/data; echo x > $VICTIM_HOME/data/key",
    )
    .seen("grep -q x $VICTIM_HOME/data/key"),
    anyone("the key of a model", "[ \"$ANTHROPIC_API_KEY\" = $SECRET ]"),
    anyone("the key of another model", "printenv OPENAI_API_KEY"),
    anyone("the key of a cloud", "printenv AWS_SECRET_ACCESS_KEY"),
    anyone("the token of a forge", "printenv GITHUB_TOKEN"),
    anyone("the place of the data", "printenv CASEMATE_DATA_DIR"),
    anyone("the agent of SSH", "$PROBE unix $SSH_AUTH_SOCK"),
    anyone("the home that programs ask for", "[ \"$HOME\" = $VICTIM_HOME ]"),
    root("root's home", "ls -A /root | grep -qvxE '[.](cargo|rustup|pyenv|nvm|local|sdkman)|go'"),
    untried(
        "root's registry token",
        "cat /root/.cargo/credentials* | grep -q .",
        "there may be none",
    ),
    untried("homes of others", "ls /home | grep -qvx agent", "there may be none"),
    untried(
        "a file of the scene anywhere",
        "find / -path /proc -prune -o -name canary -print -quit 2>/dev/null | grep -q .",
        "it would walk every disk of the machine",
    ),
    untried(
        "a socket anywhere",
        "find / -path /proc -prune -o -type s -print -quit 2>/dev/null | grep -q .",
        "it would walk every disk of the machine",
    ),
];

#[test]
fn no_credential_is_found() {
    attack("credentials", PROBES);
}
