//! Where the package managers of this machine get their packages: from their own settings, never from a list of ours.
//!
//! Only hosts are taken; credentials in a URL or a settings file are not looked at.

use std::path::{Path, PathBuf};

use super::config::Env;
use crate::environment::networking::HostRule;

/// Variables that hold the URL of a registry, or several.
const VARIABLES: [&str; 9] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "YARN_NPM_REGISTRY_SERVER",
    "GOPROXY",
];
/// Settings below the user's home.
const HOME_FILES: [&str; 8] = [
    ".config/pip/pip.conf",
    ".pip/pip.conf",
    ".config/uv/uv.toml",
    ".npmrc",
    ".cargo/config.toml",
    ".cargo/config",
    ".config/go/env",
    ".gemrc",
];
/// Settings of the whole machine.
const SYSTEM_FILES: [&str; 5] =
    ["/etc/pip.conf", "/etc/npmrc", "/usr/etc/npmrc", "/etc/gemrc", "/etc/apt/sources.list"];
/// A directory of more of them.
const APT_SOURCES: &str = "/etc/apt/sources.list.d";
/// Largest settings file that is read: they have a few lines.
const MAX_BYTES: u64 = 256 * 1024;

/// The hosts that the settings name, and those that were `given` besides, each once.
pub(super) fn found(env: &Env, given: Vec<HostRule>) -> Vec<HostRule> {
    let mut rules = given;
    let home = env.get("HOME").map(PathBuf::from);
    let in_home = home.iter().flat_map(|home| HOME_FILES.map(|file| home.join(file)));
    let apt = std::fs::read_dir(APT_SOURCES).into_iter().flatten().flatten().map(|e| e.path());
    let files = in_home.chain(SYSTEM_FILES.map(PathBuf::from)).chain(apt);
    let texts = VARIABLES.iter().filter_map(|name| env.get(name).map(str::to_owned));
    for text in texts.chain(files.filter_map(|path| read(&path))) {
        for rule in hosts(&text) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

/// A file that is not there, or not text, names nothing.
fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The hosts of the URLs in a text; comments are none.
fn hosts(text: &str) -> Vec<HostRule> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    lines.flat_map(hosts_of_line).collect()
}

fn hosts_of_line(line: &str) -> Vec<HostRule> {
    let urls = line
        .match_indices("://")
        .filter(|(at, _)| line[..*at].ends_with("http") || line[..*at].ends_with("https"));
    let authorities = urls.map(|(at, mark)| {
        let rest = &line[at + mark.len()..];
        let end = rest.find(|c: char| c.is_whitespace() || "/\"',?#|]>)".contains(c));
        // A bracket belongs to an address.
        let end = if rest.starts_with('[') { rest.find(['/', '"']) } else { end };
        &rest[..end.unwrap_or(rest.len())]
    });
    let hosts =
        authorities.map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host));
    hosts.filter_map(|host| host.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_from_every_kind_of_settings() {
        let check = |text: &str, expected: &[&str]| {
            let found: Vec<_> = hosts(text).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("[global]\nindex-url = https://u:p@pip.example/simple\n", &["pip.example"]);
        check(
            "registry=http://npm.example:4873/\n//npm.example/:_authToken=x",
            &["npm.example:4873"],
        );
        check("[source.m]\nregistry = \"sparse+https://cargo.example/index/\"", &["cargo.example"]);
        check(
            "GOPROXY=https://go.example|https://go2.example,direct",
            &["go.example", "go2.example"],
        );
        check("deb [signed-by=/x] http://apt.example/debian stable main", &["apt.example"]);
        check("# https://comment.example\n; https://other.example", &[]);
        check("git+ssh://git.example/x file:///y", &[]);
        check("url = https://[2001:db8::1]:8080/x", &["[2001:db8::1]:8080"]);
    }

    #[test]
    fn variables_files_and_own_hosts_come_together() {
        let home = tempfile::tempdir().unwrap();
        let text = "registry=https://npm.example/\nproxy=https://both.example/";
        std::io::Write::write_all(
            &mut std::fs::File::create(home.path().join(".npmrc")).unwrap(),
            text.as_bytes(),
        )
        .unwrap();
        let home = home.path().to_str().unwrap();
        let env = Env::of(&[("HOME", home), ("PIP_INDEX_URL", "https://both.example/simple")]);
        let rules = found(&env, vec!["own.example:8443".parse().unwrap()]);
        let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
        for expected in ["own.example:8443", "npm.example", "both.example"] {
            assert_eq!(rules.iter().filter(|rule| *rule == expected).count(), 1, "{rules:?}");
        }
    }
}
