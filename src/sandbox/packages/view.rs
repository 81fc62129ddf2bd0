//! What a session sees of its packages: where they are, and the variables by which programs find them.
//!
//! A layer is shown at one path. What `apt` unpacked lies besides that over `/usr`, because Debian's programs look for
//! their parts where Debian puts them.

use std::io;
use std::path::{Path, PathBuf};

use crate::environment::Access;
use crate::environment::packages::Manager;
use crate::sandbox::plan::{Mount, PathKind};

/// Where a layer is shown.
pub const PLACE: &str = "/packages";
/// Where Node looks for packages from every directory.
const NODE_MODULES: &str = "/node_modules";

/// The parts of a layer that a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its directory on the host.
    pub source: PathBuf,
    /// Whether it can be changed: while it is built.
    pub access: Access,
    /// The managers that have something in it.
    pub managers: Vec<Manager>,
    /// What `apt` has for `/etc`, by name; whether it is a directory.
    pub etc: Vec<(String, PathKind)>,
    /// The version of Python that the packages are for, as `3.11`.
    pub python: Option<String>,
}

impl View {
    /// Looks at the layer in `source`.
    ///
    /// # Errors
    /// The system's.
    pub fn of(source: &Path, access: Access, python: Option<String>) -> io::Result<Self> {
        let there = |manager: &Manager| source.join(manager.as_str()).is_dir();
        let managers: Vec<_> = Manager::ALL.into_iter().filter(there).collect();
        let mut etc = Vec::new();
        let settings = source.join("apt/etc");
        if settings.is_dir() {
            for entry in std::fs::read_dir(&settings)? {
                let entry = entry?;
                // A link may lead anywhere, and nobody looks there for one.
                let kind = match entry.file_type()? {
                    kind if kind.is_dir() => PathKind::Directory,
                    kind if kind.is_file() => PathKind::File,
                    _ => continue,
                };
                if let Ok(name) = entry.file_name().into_string() {
                    etc.push((name, kind));
                }
            }
        }
        etc.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self { source: source.to_owned(), access, managers, etc, python })
    }

    /// What it is, as a layer of a sandbox.
    #[must_use]
    pub fn layer(&self) -> String {
        let key = self.source.parent().and_then(Path::file_name).unwrap_or_default();
        let managers: Vec<_> = self.managers.iter().map(|manager| manager.as_str()).collect();
        format!("packages {} ({})", key.to_string_lossy(), managers.join(", "))
    }

    /// The directory that lies over `/usr`, if one does.
    #[must_use]
    pub fn system(&self) -> Option<PathBuf> {
        self.managers.contains(&Manager::Apt).then(|| self.source.join("apt/usr"))
    }

    /// What it adds to a root that has these mounts. A name in `/etc` that the root has already stays as it is.
    #[must_use]
    pub fn mounts(&self, others: &[Mount]) -> Vec<Mount> {
        let mount =
            |source: PathBuf, target: PathBuf, kind, access| Mount { source, target, kind, access };
        let layer = self.source.clone();
        let mut mounts = vec![mount(layer, PLACE.into(), PathKind::Directory, self.access)];
        if self.managers.contains(&Manager::Npm) {
            let modules = PathKind::Link(Path::new(PLACE).join("npm/lib/node_modules"));
            mounts.push(mount(PathBuf::new(), NODE_MODULES.into(), modules, Access::ReadOnly));
        }
        for (name, kind) in &self.etc {
            let target = Path::new("/etc").join(name);
            let taken = OWN_SETTINGS.contains(&name.as_str())
                || others.iter().any(|other| other.target.starts_with(&target));
            if !taken {
                let source = self.source.join("apt/etc").join(name);
                mounts.push(mount(source, target, kind.clone(), Access::ReadOnly));
            }
        }
        mounts
    }

    /// Directories of programs, to be looked at after those of the session's own.
    pub fn bins(&self) -> impl Iterator<Item = String> {
        self.managers.iter().map(|manager| match manager {
            // All else of it is where the machine's own programs are.
            Manager::Apt => "/usr/games".to_owned(),
            _ => format!("{PLACE}/{manager}/bin"),
        })
    }

    /// The variables by which languages find what is installed. What a session installs itself comes first.
    #[must_use]
    pub fn variables(&self, home: &Path) -> Vec<(String, String)> {
        let home = home.display();
        let variable = |name: &str, value: String| Some((name.to_owned(), value));
        let all = self.managers.iter().filter_map(|manager| match manager {
            Manager::Pip => {
                let own = self
                    .python
                    .iter()
                    .map(|version| format!("{home}/.local/lib/python{version}/site-packages:"));
                variable("PYTHONPATH", own.chain([format!("{PLACE}/pip")]).collect())
            }
            Manager::Npm => variable("NODE_PATH", format!("{PLACE}/npm/lib/node_modules")),
            // The colon at the end keeps the places that Ruby knows by itself.
            Manager::Gem => variable("GEM_PATH", format!("{PLACE}/gem:")),
            Manager::Apt | Manager::Cargo | Manager::Go => None,
        });
        all.collect()
    }
}

/// Files of `/etc` that every sandbox has of its own.
const OWN_SETTINGS: [&str; 7] =
    ["passwd", "group", "hosts", "hostname", "resolv.conf", "nsswitch.conf", "shells"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_adds_its_place_its_links_and_its_settings() {
        let view = View {
            source: "/d/layer".into(),
            access: Access::ReadOnly,
            managers: vec![Manager::Apt, Manager::Gem, Manager::Npm, Manager::Pip],
            etc: vec![
                ("fonts".to_owned(), PathKind::Directory),
                ("passwd".to_owned(), PathKind::File),
                ("x.conf".to_owned(), PathKind::File),
            ],
            python: Some("3.11".to_owned()),
        };
        let fonts = Mount {
            source: "/etc/fonts".into(),
            target: "/etc/fonts".into(),
            kind: PathKind::Directory,
            access: Access::ReadOnly,
        };
        let mounts = view.mounts(&[fonts]);
        let mounts: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.target.to_str().unwrap(), mount.source.to_str().unwrap()))
            .collect();
        assert_eq!(
            mounts,
            [
                ("/packages", "/d/layer"),
                ("/node_modules", ""),
                ("/etc/x.conf", "/d/layer/apt/etc/x.conf")
            ]
        );
        assert_eq!(view.system(), Some("/d/layer/apt/usr".into()));
        let bins: Vec<_> = view.bins().collect();
        assert_eq!(
            bins,
            ["/usr/games", "/packages/gem/bin", "/packages/npm/bin", "/packages/pip/bin"]
        );
        let variables = view.variables(Path::new("/home/agent"));
        let shown: Vec<_> =
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "GEM_PATH=/packages/gem:",
                "NODE_PATH=/packages/npm/lib/node_modules",
                "PYTHONPATH=/home/agent/.local/lib/python3.11/site-packages:/packages/pip",
            ]
        );
    }
}
