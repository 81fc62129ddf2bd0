//! What an environment has besides what the machine has: packages by manager. Checked on construction.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::networking::Networking;
use crate::limits::{MAX_PACKAGE_CHARS, MAX_PACKAGES};

/// A package manager. The order is that in which they install: each finds what those before it have installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// Debian's.
    Apt,
    /// Rust's.
    Cargo,
    /// Ruby's.
    Gem,
    /// Go's.
    Go,
    /// Node's.
    Npm,
    /// Python's.
    Pip,
}

impl Manager {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [Self::Apt, Self::Cargo, Self::Gem, Self::Go, Self::Npm, Self::Pip];

    /// Its name, on the wire and among people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Cargo => "cargo",
            Self::Gem => "gem",
            Self::Go => "go",
            Self::Npm => "npm",
            Self::Pip => "pip",
        }
    }

    /// What a package's name may have besides letters and digits, with all that says which version of it.
    fn marks(self) -> &'static str {
        match self {
            Self::Apt => "+-.:~=/",
            Self::Cargo => "-_@.+^~=<>*,",
            Self::Gem => "-_.:~>=<",
            Self::Go => "-_.~/@+",
            Self::Npm => "-_.@/~^<>=*|+",
            Self::Pip => "-_.[],<>=!~*+@",
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One package, as its manager is told: a name, and which version of it. Never an option, a path or a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Spec(String);

impl Spec {
    fn parse(manager: Manager, given: &str) -> Result<Self, &'static str> {
        if given.is_empty() || given.chars().count() > MAX_PACKAGE_CHARS {
            return Err("has no character, or more than 200");
        }
        let starts = |c: char| c.is_ascii_alphanumeric() || (manager == Manager::Npm && c == '@');
        if !given.starts_with(starts) {
            return Err(
                "must begin with a letter or a digit: it is a name, not an option or a path",
            );
        }
        if given.contains("://") || given.contains("..") || given.contains("//") {
            return Err("must be a package of a registry, not a URL or a path");
        }
        // npm reads `user/repository` as a place on a web site; with a scope it is a name.
        if manager == Manager::Npm && given.contains('/') && !given.starts_with('@') {
            return Err("must be a package of a registry, not a repository");
        }
        if manager == Manager::Apt && given.ends_with('-') {
            return Err("must not end with `-`: apt would remove the package");
        }
        let marks = manager.marks();
        if !given.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c)) {
            return Err("has a character that no package's name or version has");
        }
        Ok(Self(given.to_owned()))
    }
}

/// A list that is none, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackagesError {
    /// One package.
    #[error("packages.{manager}: `{given}` {problem}")]
    Spec {
        /// Whose.
        manager: Manager,
        /// As given, made printable.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// All of them.
    #[error("there are {0} packages, and at most {MAX_PACKAGES} can be had")]
    TooMany(usize),
    /// The network that they would come from.
    #[error(
        "the environment has packages, and its `limited` networking does not allow package managers: set \
         `allow_package_managers: true`"
    )]
    NotAllowed,
}

/// Packages as a person, or the protocol, writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PackagesParams {
    /// The protocol's word for what this is.
    #[serde(skip_serializing)]
    pub r#type: Option<PackagesType>,
    /// Debian packages: `jq`, `jq=1.6-2.1`.
    pub apt: Vec<String>,
    /// Crates with programs in them: `ripgrep`, `ripgrep@14.1.0`.
    pub cargo: Vec<String>,
    /// Gems: `rake`, `rake:13.0.6`.
    pub gem: Vec<String>,
    /// Commands of Go modules: `golang.org/x/tools/cmd/stringer`, with `@v0.24.0` or without.
    pub go: Vec<String>,
    /// npm packages: `typescript`, `@types/node@22`.
    pub npm: Vec<String>,
    /// Python packages: `requests`, `numpy==2.1.0`.
    pub pip: Vec<String>,
}

/// The one word that [`PackagesParams::type`] may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackagesType {
    /// It is what it is.
    Packages,
}

/// The checked packages of an environment, each list in its own order and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PackagesParams", into = "PackagesParams")]
pub struct Packages([Vec<Spec>; 6]);

impl Packages {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// The packages of one manager.
    pub fn of(&self, manager: Manager) -> impl Iterator<Item = &str> {
        self.0[manager as usize].iter().map(|spec| spec.0.as_str())
    }

    /// The managers that have something to install, in their order.
    pub fn managers(&self) -> impl Iterator<Item = Manager> {
        Manager::ALL.into_iter().filter(|manager| !self.0[*manager as usize].is_empty())
    }

    /// How many there are, of all managers together.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Replaces the packages of one manager.
    ///
    /// # Errors
    /// Which of them is none, and what is wrong with it; nothing is replaced then.
    pub fn replace(
        &mut self,
        manager: Manager,
        given: &[impl AsRef<str>],
    ) -> Result<(), (usize, &'static str)> {
        let mut list = Vec::new();
        for (at, text) in given.iter().enumerate() {
            let spec = Spec::parse(manager, text.as_ref()).map_err(|problem| (at, problem))?;
            if !list.contains(&spec) {
                list.push(spec);
            }
        }
        self.0[manager as usize] = list;
        Ok(())
    }

    /// The same packages, each list sorted: what they are, whoever wrote them down.
    #[must_use]
    pub fn sorted(&self) -> Self {
        let mut lists = self.0.clone();
        lists.iter_mut().for_each(|list| list.sort());
        Self(lists)
    }

    /// Whether an environment with this networking may have them.
    ///
    /// # Errors
    /// Limited networking that does not allow package managers.
    pub fn check(&self, networking: &Networking) -> Result<(), PackagesError> {
        match networking {
            Networking::Limited { allow_package_managers: false, .. } if !self.is_empty() => {
                Err(PackagesError::NotAllowed)
            }
            Networking::Limited { .. } | Networking::None | Networking::Unrestricted => Ok(()),
        }
    }
}

impl fmt::Display for Packages {
    /// As `apt jq; pip numpy, requests`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, manager) in self.managers().enumerate() {
            let list: Vec<_> = self.of(manager).collect();
            let between = if i == 0 { "" } else { "; " };
            write!(f, "{between}{manager} {}", list.join(", "))?;
        }
        Ok(())
    }
}

impl TryFrom<PackagesParams> for Packages {
    type Error = PackagesError;

    fn try_from(params: PackagesParams) -> Result<Self, PackagesError> {
        let PackagesParams { r#type: _, apt, cargo, gem, go, npm, pip } = params;
        let mut packages = Self::default();
        for (manager, given) in Manager::ALL.into_iter().zip([apt, cargo, gem, go, npm, pip]) {
            packages.replace(manager, &given).map_err(|(at, problem)| {
                let given = given[at].chars().take(80).flat_map(char::escape_default).collect();
                PackagesError::Spec { manager, given, problem }
            })?;
        }
        match packages.count() {
            count if count > MAX_PACKAGES => Err(PackagesError::TooMany(count)),
            _ => Ok(packages),
        }
    }
}

impl From<Packages> for PackagesParams {
    fn from(packages: Packages) -> Self {
        let [apt, cargo, gem, go, npm, pip] =
            packages.0.map(|list| list.into_iter().map(|spec| spec.0).collect());
        Self { r#type: None, apt, cargo, gem, go, npm, pip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Packages, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn names_and_versions_of_every_manager_are_packages() {
        let json = r#"{"apt":["jq=1.6-2.1","g++","libc6:i386"],"cargo":["ripgrep@14.1.0"],"gem":["rake:13.0.6"],
            "go":["golang.org/x/tools/cmd/stringer@v0.24.0"],"npm":["typescript","@types/node@^22"],
            "pip":["numpy==2.1.0","httpx[http2]>=0.27,<1","numpy==2.1.0"]}"#;
        let packages = parse(json).unwrap();
        let shown = "apt jq=1.6-2.1, g++, libc6:i386; cargo ripgrep@14.1.0; gem rake:13.0.6; \
                     go golang.org/x/tools/cmd/stringer@v0.24.0; npm typescript, @types/node@^22; \
                     pip numpy==2.1.0, httpx[http2]>=0.27,<1";
        assert_eq!(packages.to_string(), shown);
        let again = serde_json::to_string(&packages).unwrap();
        assert_eq!(parse(&again).unwrap(), packages);
        assert!(packages.sorted().to_string().starts_with("apt g++, jq=1.6-2.1"));
    }

    #[test]
    fn what_is_no_package_is_refused_and_named() {
        let check = |manager: &str, given: &str, expected: &str| {
            let error = parse(&serde_json::json!({ manager: [given] }).to_string()).unwrap_err();
            assert!(error.contains(&format!("packages.{manager}: `")), "{error}");
            assert!(error.contains(expected), "{given}: {error}");
        };
        let name = "must begin with a letter or a digit";
        for given in ["--index-url", "-r", "./here", "/abs", "", "~x", " x"] {
            let expected = if given.is_empty() { "has no character" } else { name };
            check("pip", given, expected);
        }
        check("npm", "user/repository", "not a repository");
        check("apt", "libc6-", "would remove the package");
        check("pip", "git+https://example.com/x", "not a URL or a path");
        check("pip", "x/../../y", "not a URL or a path");
        let character = "has a character that no package's name or version has";
        for given in ["x;rm", "x y", "x\n", "x$(id)", "x`id`", "x\"", "x'", "ü", "x\u{1b}[2J"] {
            for manager in Manager::ALL {
                let expected = if given == "ü" { name } else { character };
                check(manager.as_str(), given, expected);
            }
        }
        assert!(parse(r#"{"brew":["x"]}"#).unwrap_err().contains("unknown field `brew`"));
        let many: Vec<_> = (0..=MAX_PACKAGES).map(|n| format!("p{n}")).collect();
        let many = serde_json::json!({ "apt": many }).to_string();
        assert!(parse(&many).unwrap_err().contains("at most"));
    }

    #[test]
    fn limited_networking_needs_its_permission() {
        let packages = parse(r#"{"pip":["requests"]}"#).unwrap();
        let limited = |allow_package_managers| Networking::Limited {
            allowed_hosts: Vec::new(),
            allow_package_managers,
            allow_mcp_servers: false,
        };
        assert_eq!(packages.check(&limited(false)), Err(PackagesError::NotAllowed));
        assert_eq!(packages.check(&limited(true)), Ok(()));
        assert_eq!(packages.check(&Networking::None), Ok(()));
        assert_eq!(Packages::default().check(&limited(false)), Ok(()));
    }
}
