//! A git repository that a session works on: where it is, what of it, and where the session finds it. Checked on
//! construction; the words are those of the protocol.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::networking::Host;
use crate::limits::{
    MAX_BRANCH_BYTES, MAX_MOUNT_PATH_BYTES, MAX_PATH_NAME_BYTES, MAX_REPOSITORY_TOKEN_BYTES,
    MAX_REPOSITORY_URL_BYTES,
};

/// The workspace of sessions that have no directory of the user's.
pub const WORKSPACE: &str = "/workspace";

/// Where a repository is: `https://HOST/PATH`, without credentials. `http` can be said, and is for others to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryUrl {
    text: String,
    host: Host,
    port: u16,
}

impl RepositoryUrl {
    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, said or not.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }

    /// The last name of its path, which a directory can have; nothing if none can.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let last = self.text.rsplit('/').next().unwrap_or_default();
        let name = last.strip_suffix(".git").unwrap_or(last);
        (!name.contains('%') && check_names(name).is_ok()).then_some(name)
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RepositoryUrl {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        if given.len() > MAX_REPOSITORY_URL_BYTES {
            return Err(format!("must have at most {MAX_REPOSITORY_URL_BYTES} bytes"));
        }
        let (rest, usual) = match (given.strip_prefix("https://"), given.strip_prefix("http://")) {
            (Some(rest), _) => (rest, 443),
            (None, Some(rest)) => (rest, 80),
            (None, None) => return Err("must begin with https://".to_owned()),
        };
        let (authority, path) = rest.split_once('/').ok_or("must name a repository")?;
        if authority.contains('@') {
            let problem = "must not have credentials in it: they are given as authorization_token";
            return Err(problem.to_owned());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%+/@".contains(c);
        if !path.chars().all(plain) {
            return Err("must have letters, digits and -._~%+@ in its path only".to_owned());
        }
        let path = path.trim_end_matches('/');
        if path.split('/').any(|name| matches!(name, "" | "." | ".." | ".git")) {
            return Err("must name a repository".to_owned());
        }
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (&authority[..at], authority[at + 1..].parse().unwrap_or(0)),
            None => (authority, usual),
        };
        if port == 0 {
            return Err("must have a port between 1 and 65535, or none".to_owned());
        }
        let host = host.parse().map_err(|error| format!("must name a host: {error}"))?;
        Ok(Self { text: given.trim_end_matches('/').to_owned(), host, port })
    }
}

impl Serialize for RepositoryUrl {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for RepositoryUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What of a repository is checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Checkout {
    /// The end of a branch.
    Branch {
        /// Which.
        name: BranchName,
    },
    /// A commit.
    Commit {
        /// Which.
        sha: CommitSha,
    },
}

/// The name of a branch, as git allows it (git-check-ref-format(1)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

impl BranchName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BranchName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, &'static str> {
        let refused = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let good = name.len() <= MAX_BRANCH_BYTES
            && !name.starts_with('-')
            && !name.ends_with('.')
            && !name.contains("..")
            && !name.contains("@{")
            && name != "@"
            && !name.contains(refused)
            && name.split('/').all(part);
        if good { Ok(Self(name)) } else { Err("must be the name of a branch") }
    }
}

impl From<BranchName> for String {
    fn from(name: BranchName) -> Self {
        name.0
    }
}

/// The whole name of a commit: 40 hexadecimal digits, or 64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitSha(String);

impl CommitSha {
    /// The digits, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CommitSha {
    type Error = &'static str;

    fn try_from(sha: String) -> Result<Self, &'static str> {
        if !matches!(sha.len(), 40 | 64) || !sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("must be the whole sha of a commit: 40 or 64 hexadecimal digits");
        }
        Ok(Self(sha.to_ascii_lowercase()))
    }
}

impl From<CommitSha> for String {
    fn from(sha: CommitSha) -> Self {
        sha.0
    }
}

/// Where a session finds a repository: a directory below its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPath(String);

impl RepositoryPath {
    /// Where one is that was given no path.
    #[must_use]
    pub fn of(url: &RepositoryUrl) -> Option<Self> {
        url.name().map(|name| Self(format!("{WORKSPACE}/{name}")))
    }

    /// Below the workspace.
    #[must_use]
    pub fn relative(&self) -> &Path {
        Path::new(self.0.strip_prefix(WORKSPACE).unwrap_or_default().trim_start_matches('/'))
    }

    /// Whether both can be there: they are not the same, and none lies below the other.
    #[must_use]
    pub fn is_apart_from(&self, other: &Self) -> bool {
        let (one, other) = (self.relative(), other.relative());
        !one.starts_with(other) && !other.starts_with(one)
    }
}

impl fmt::Display for RepositoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RepositoryPath {
    type Error = &'static str;

    fn try_from(path: String) -> Result<Self, &'static str> {
        if path.len() > MAX_MOUNT_PATH_BYTES {
            return Err("must have at most 1024 bytes");
        }
        let below = path.strip_prefix(WORKSPACE).and_then(|below| below.strip_prefix('/'));
        check_names(below.ok_or("must be a directory below /workspace")?)?;
        Ok(Self(path))
    }
}

impl From<RepositoryPath> for String {
    fn from(path: RepositoryPath) -> Self {
        path.0
    }
}

/// Whether a path is made of names that lead downwards only.
///
/// # Errors
/// What is wrong with it.
pub fn check_names(relative: &str) -> Result<(), &'static str> {
    for name in relative.split('/') {
        match name {
            "" => return Err("must not have an empty name in it, nor end with a slash"),
            "." | ".." => return Err("must not have `.` or `..` in it"),
            name if name.len() > MAX_PATH_NAME_BYTES => {
                return Err("must not have a name of more than 255 bytes in it");
            }
            name if name.chars().any(char::is_control) => {
                return Err("must not have a control character in it");
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a server asks for before it shows a repository. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// For the one program that has to say it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

impl TryFrom<String> for AccessToken {
    type Error = &'static str;

    fn try_from(token: String) -> Result<Self, &'static str> {
        let good = |b: u8| b.is_ascii_graphic();
        if token.is_empty() || token.len() > MAX_REPOSITORY_TOKEN_BYTES || !token.bytes().all(good)
        {
            return Err("must have 1 to 1024 visible ASCII characters");
        }
        Ok(Self(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_place_and_nothing_else() {
        for (given, host, port, name) in [
            ("https://github.com/a/b", "github.com", 443, Some("b")),
            ("https://github.com/a/b.git/", "github.com", 443, Some("b")),
            ("https://Git.Example:8443/b", "git.example", 8443, Some("b")),
            ("http://127.0.0.1/x/y", "127.0.0.1", 80, Some("y")),
            ("https://[2606:2800::1]:44/x", "[2606:2800::1]", 44, Some("x")),
            ("https://h.example/a%20b", "h.example", 443, None),
        ] {
            let url: RepositoryUrl = given.parse().unwrap();
            assert_eq!(
                (url.host().to_string().as_str(), url.port(), url.name()),
                (host, port, name)
            );
            assert_eq!(RepositoryPath::of(&url).is_some(), name.is_some());
        }
        for (given, problem) in [
            ("", "https://"),
            ("ssh://h/x", "https://"),
            ("git@github.com:a/b", "https://"),
            ("file:///etc", "https://"),
            ("ext::sh -c id", "https://"),
            ("https://github.com", "must name a repository"),
            ("https://github.com/", "must name a repository"),
            ("https://h.example/a/../b", "must name a repository"),
            ("https://h.example/a//b", "must name a repository"),
            ("https://u:p@h.example/x", "must not have credentials"),
            ("https://h.example/x?y", "in its path only"),
            ("https://h.example/x#y", "in its path only"),
            ("https://h.example/x y", "in its path only"),
            ("https://h.example/x\n", "in its path only"),
            ("https://h.example:0/x", "port"),
            ("https://h.example:x/x", "port"),
            ("https://2130706433/x", "must name a host"),
            ("https:///x", "must name a host"),
        ] {
            let error = given.parse::<RepositoryUrl>().unwrap_err();
            assert!(error.contains(problem), "{given:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_branch_no_commit_no_place_and_no_token_is_refused() {
        fn check<T: TryFrom<String>>(good: &[&str], bad: &[&str]) {
            for given in good {
                assert!(T::try_from((*given).to_owned()).is_ok(), "{given:?}");
            }
            for given in bad {
                assert!(T::try_from((*given).to_owned()).is_err(), "{given:?}");
            }
        }
        let long = "x".repeat(1025);
        check::<BranchName>(
            &["main", "feature/x", "v1.0", "ümlaut"],
            &[
                "", "-x", "a..b", "a b", "a~1", "x.lock", ".x", "a/", "a//b", "@", "x@{1}", "x\n",
                &long,
            ],
        );
        check::<CommitSha>(
            &[&"a1".repeat(20), &"A1".repeat(32)],
            &["", "a1b2c3", &"g1".repeat(20), &"a1".repeat(21)],
        );
        check::<RepositoryPath>(
            &["/workspace/x", "/workspace/a/b"],
            &[
                "",
                "/",
                "x",
                "/workspace",
                "/workspace/",
                "/workspace/../x",
                "/etc/x",
                "/workspacex/y",
            ],
        );
        check::<AccessToken>(&["ghp_x"], &["", "a b", "a\nb", &long]);
        let token = AccessToken::try_from("ghp_x".to_owned()).unwrap();
        assert_eq!(format!("{token:?}"), "AccessToken(…)");
    }
}
