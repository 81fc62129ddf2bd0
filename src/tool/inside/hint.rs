//! What the model is told besides the output of an installation that no session can do: how it can be done here.

use crate::event::text_of;
use crate::sandbox::wire::ToolReply;

/// Programs that install for the whole system, or that would be asked to become root.
const AS_ROOT: [&str; 12] = [
    "apt", "apt-get", "aptitude", "dpkg", "yum", "dnf", "apk", "pacman", "zypper", "sudo", "su",
    "doas",
];
/// How these say that they are not root, or are not there, in lower case.
const NOT_ROOT: [&str; 10] = [
    "are you root",
    "setuid root",
    "no new privileges",
    "superuser",
    "must be root",
    "permission denied",
    "read-only file system",
    "no such file or directory",
    "command not found",
    "critical error",
];
/// Programs that install where they are told to.
const ANYWHERE: [&str; 14] = [
    "pip", "pip3", "python", "python3", "uv", "npm", "pnpm", "yarn", "gem", "cargo", "make",
    "cmake", "ninja", "install",
];
/// How they say that it cannot be changed, in lower case.
const NO_CHANGE: [&str; 2] = ["read-only file system", "erofs"];

const APT: &str = "[sandbox] Nobody is root here and the system cannot be changed: packages of apt come from `packages` of the \
                   session's environment, which the user sets; pip, npm -g, cargo, go and gem install into your home.";
const PREFIX: &str = "[sandbox] The system cannot be changed here: install with the prefix ~/.local, whose bin is on the PATH; \
                      pip, npm -g, cargo, go and gem install into your home unless told otherwise.";

const PYENV: &str = "[sandbox] What pip was to install is installed, in your home; it is only that pyenv could not renew its own list of \
                     programs, which is the user's.";

/// The sentence for a command with this reply, if it failed for want of root or of a place to write.
pub(super) fn of(command: &str, reply: &ToolReply) -> Option<&'static str> {
    if !reply.is_error {
        return None;
    }
    let said = text_of(&reply.content).to_lowercase();
    let says = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    let runs = |programs: &[&str]| words(command).any(|word| programs.contains(&word));
    if says(&NOT_ROOT) && runs(&AS_ROOT) {
        return Some(APT);
    }
    if said.contains("pyenv: cannot rehash") {
        return Some(PYENV);
    }
    (says(&NO_CHANGE) && runs(&ANYWHERE)).then_some(PREFIX)
}

/// The names in a command line that may be programs.
fn words(command: &str) -> impl Iterator<Item = &str> {
    let between = |c: char| c.is_whitespace() || ";&|()`$\"'{}<>=".contains(c);
    command.split(between).filter_map(|word| word.rsplit('/').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, said: &str, expected: Option<&str>) {
        assert_eq!(of(command, &ToolReply::error(said)), expected, "{command}");
        assert_eq!(of(command, &ToolReply::text(said)), None, "{command} went well");
    }

    #[test]
    fn what_no_session_can_install_has_its_sentence() {
        let lock = "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?";
        check("apt-get update && apt-get install -y jq", lock, Some(APT));
        check("cd x; (apt install jq)", lock, Some(APT));
        let partial = "E: List directory /var/lib/apt/lists/partial is missing. - Acquire (2: No such file or directory)";
        check("/usr/bin/apt-get update", partial, Some(APT));
        check("sudo make install", "bash: sudo: command not found", Some(APT));
        check(
            "dpkg -i x.deb",
            "dpkg: error: requested operation requires superuser privilege",
            Some(APT),
        );
        check(
            "pip install --prefix=/usr x",
            "ERROR: [Errno 30] Read-only file system: '/usr/x'",
            Some(PREFIX),
        );
        check("npm i -g --prefix /usr x", "npm error code EROFS", Some(PREFIX));
        check("pip install x", "pyenv: cannot rehash: /h/.pyenv/shims isn't writable", Some(PYENV));
        check(
            "./configure && make install",
            "install: cannot create regular file '/usr/local/bin/t': Read-only file system",
            Some(PREFIX),
        );
    }

    #[test]
    fn what_fails_for_another_reason_has_none() {
        check("apt-cache policy jq", "N: Unable to locate package jq", None);
        check("pip install nosuch", "ERROR: No matching distribution found for nosuch", None);
        check("echo x > /etc/hosts", "bash: /etc/hosts: Read-only file system", None);
        check("cat results/apt.log", "cat: results/apt.log: No such file or directory", None);
        check("grep -r superb .", "[exit code 1]", None);
    }
}
