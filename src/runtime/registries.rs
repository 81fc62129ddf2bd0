//! Where the package managers of this machine get their packages: from their own settings, never from a list of ours.
//!
//! Hosts and URLs are taken; credentials in a URL or a settings file stay where they are.

use std::path::{Path, PathBuf};

use super::config::Env;
use crate::environment::networking::HostRule;

/// Variables that hold the URL of a registry, or several, or what goes with one.
const VARIABLES: [&str; 10] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
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

/// Settings of files that a sandbox, which does not see them, can be told by a variable.
const SETTINGS: [(&str, &str, &str); 6] = [
    ("pip.conf", "index-url", "PIP_INDEX_URL"),
    ("pip.conf", "extra-index-url", "PIP_EXTRA_INDEX_URL"),
    ("pip.conf", "trusted-host", "PIP_TRUSTED_HOST"),
    ("npmrc", "registry", "NPM_CONFIG_REGISTRY"),
    ("go/env", "GOPROXY", "GOPROXY"),
    ("go/env", "GOSUMDB", "GOSUMDB"),
];

/// Where packages come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// The hosts, each once.
    pub hosts: Vec<HostRule>,
    /// What tells the package managers of a sandbox to ask them, without credentials.
    pub variables: Vec<(String, String)>,
    /// What the settings of cargo say of registries, without credentials, as such settings.
    pub cargo: Option<String>,
    /// The same of RubyGems.
    pub gem: Option<String>,
}

impl Registries {
    /// What the settings name, besides the hosts that were `given`.
    #[must_use]
    pub fn find(env: &Env, given: Vec<HostRule>) -> Self {
        let mut found = Self { hosts: given, ..Self::default() };
        for name in VARIABLES {
            if let Some(value) = env.get(name) {
                found.add_hosts(value);
                found.add_variable(name, value);
            }
        }
        let home = env.get("HOME").map(PathBuf::from);
        let in_home = home.iter().flat_map(|home| HOME_FILES.map(|file| home.join(file)));
        let apt = std::fs::read_dir(APT_SOURCES).into_iter().flatten().flatten();
        let apt = apt.map(|entry| entry.path());
        for path in in_home.chain(SYSTEM_FILES.map(PathBuf::from)).chain(apt) {
            if let Some(text) = read(&path) {
                found.add_hosts(&text);
                found.add_settings(&path, &text);
            }
        }
        found
    }

    fn add_hosts(&mut self, text: &str) {
        for rule in hosts(text) {
            if !self.hosts.contains(&rule) {
                self.hosts.push(rule);
            }
        }
    }

    /// The strongest comes first, and stays.
    fn add_variable(&mut self, name: &str, value: &str) {
        if self.variables.iter().all(|(own, _)| !own.eq_ignore_ascii_case(name)) {
            self.variables.push((name.to_owned(), without_credentials(value)));
        }
    }

    fn add_settings(&mut self, path: &Path, text: &str) {
        if path.ends_with(".cargo/config.toml") || path.ends_with(".cargo/config") {
            self.cargo = self.cargo.take().or_else(|| cargo_settings(text));
        }
        if path.ends_with(".gemrc") || path.ends_with("gemrc") {
            self.gem = self.gem.take().or_else(|| gem_settings(text));
        }
        for (file, key, variable) in SETTINGS {
            let here = path.to_string_lossy().ends_with(file);
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let mut values = pairs.filter(|(own, _)| here && own.trim() == key);
            if let Some((_, value)) = values.next() {
                self.add_variable(variable, value.trim());
            }
        }
    }
}

/// The sources and registries of cargo's settings.
fn cargo_settings(text: &str) -> Option<String> {
    let all: toml::Table = without_credentials(text).parse().ok()?;
    let table = |value: &toml::Value| value.as_table().cloned();
    let mut kept = toml::Table::new();
    kept.extend(all.get("source").map(|source| ("source".to_owned(), source.clone())));
    let registries = all.get("registries").and_then(table).unwrap_or_default();
    let indexes = registries.iter().filter_map(|(name, registry)| {
        let index = registry.get("index")?.clone();
        Some((name.clone(), toml::Table::from_iter([("index".to_owned(), index)]).into()))
    });
    kept.insert("registries".to_owned(), toml::Table::from_iter(indexes).into());
    let default = all.get("registry").and_then(|registry| registry.get("default")).cloned();
    let default = default.map(|name| toml::Table::from_iter([("default".to_owned(), name)]));
    kept.extend(default.map(|table| ("registry".to_owned(), table.into())));
    toml::to_string(&kept).ok()
}

/// The sources of RubyGems' settings: a list of URLs after `:sources:`.
fn gem_settings(text: &str) -> Option<String> {
    let text = without_credentials(text);
    let after = text.lines().skip_while(|line| line.trim() != ":sources:").skip(1);
    let sources = after.map(str::trim).take_while(|line| line.starts_with("- "));
    let sources: String = sources.map(|line| format!("{line}\n")).collect();
    (!sources.is_empty()).then(|| format!(":sources:\n{sources}"))
}

/// The text without what stands before the `@` of its URLs.
pub(super) fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "/,|".contains(c)).unwrap_or(part.len());
        let at = part[..end].rfind('@').map_or(0, |at| at + 1);
        clean.push_str("://");
        clean.push_str(&part[at..]);
    }
    clean
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
        let put = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = std::fs::File::create(path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        put(
            ".npmrc",
            "registry=https://npm.example/\nproxy=https://both.example/\n//npm.example/:_authToken=s3cret\n",
        );
        put(
            ".config/pip/pip.conf",
            "[global]\nindex-url = https://weaker.example/\ntrusted-host = t.example\n",
        );
        let pip = ("PIP_INDEX_URL", "https://u:s3cret@both.example/simple");
        let go = ("GOPROXY", "https://a:s3cret@go.example|https://go2.example,direct");
        let env = Env::of(&[("HOME", home.path().to_str().unwrap()), pip, go]);
        let found = Registries::find(&env, vec!["own.example:8443".parse().unwrap()]);
        let hosts: Vec<_> = found.hosts.iter().map(ToString::to_string).collect();
        for expected in ["own.example:8443", "npm.example", "both.example", "go.example"] {
            assert_eq!(hosts.iter().filter(|host| *host == expected).count(), 1, "{hosts:?}");
        }
        let variable = |name: &str| {
            let (_, value) = found.variables.iter().find(|(own, _)| own == name)?;
            Some(value.as_str())
        };
        assert_eq!(variable("PIP_INDEX_URL"), Some("https://both.example/simple"));
        assert_eq!(variable("PIP_TRUSTED_HOST"), Some("t.example"));
        assert_eq!(variable("NPM_CONFIG_REGISTRY"), Some("https://npm.example/"));
        assert_eq!(variable("GOPROXY"), Some("https://go.example|https://go2.example,direct"));
        assert!(!format!("{found:?}").contains("s3cret"));
    }
}
