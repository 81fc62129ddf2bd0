//! What packages are made of, as a key: the same lists on the same system from the same registries are the same layer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::BuildError;
use crate::environment::Environment;
use crate::environment::packages::Manager;
use crate::runtime::registries::{Registries, without_credentials};
use crate::sandbox::packages::shelf::Shelf;
use crate::sandbox::packages::{Step, recipe, root_of, run};

/// Changes where the recipes do, so that what an older version has built is not taken for what this one would build.
const FORMAT: &str = "casemate packages 1";
/// Largest file that belongs to a manager's settings: the list of what is installed of a large system has 10 MiB.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most that interpreters say of their versions.
const MAX_ANSWER: u64 = 16 * 1024;
/// Hexadecimal digits of a key: nobody finds two of the same by chance.
const DIGITS: usize = 32;

/// Everything that a build depends on.
#[derive(Clone)]
pub(super) struct Key {
    /// The key.
    pub(super) text: String,
    /// The system, for people.
    pub(super) base: BTreeMap<String, String>,
    /// The settings that each manager is given, by path in its directory.
    pub(super) settings: BTreeMap<Manager, Vec<(PathBuf, Vec<u8>)>>,
}

impl Key {
    /// Looks at the machine.
    pub(super) fn of(
        shelf: &Shelf,
        environment: &Environment,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let root = root_of(&environment.profile)?;
        let read_system = |name: &str| {
            let path = root.join(name);
            read(&path).map_err(prepare("read", &path))
        };
        let system = match read_system("etc/os-release")? {
            Some(system) => system,
            None => read_system("usr/lib/os-release")?.unwrap_or_default(),
        };
        let mut base = interpreters(shelf, environment)?;
        base.insert("system".to_owned(), system_name(&String::from_utf8_lossy(&system)));
        base.insert("architecture".to_owned(), std::env::consts::ARCH.to_owned());
        let mut settings = BTreeMap::new();
        for manager in environment.packages.managers() {
            settings.insert(manager, settings_of(manager, &root, registries)?);
        }
        let mut hash = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(FORMAT.as_bytes());
        add(&system);
        add(root.as_os_str().as_encoded_bytes());
        let lists = serde_json::to_vec(&environment.packages.sorted());
        add(&lists.expect("packages are JSON"));
        for (name, value) in base.iter().chain(registries.variables.iter().map(|(n, v)| (n, v))) {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for (path, bytes) in settings.values().flatten() {
            add(path.as_os_str().as_encoded_bytes());
            add(bytes);
        }
        let digest = hash.finish();
        let text: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { text: text[..DIGITS].to_owned(), base, settings })
    }
}

pub(super) fn prepare(what: &'static str, path: &Path) -> impl Fn(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Prepare { what, path: path.clone(), source }
}

/// As `Debian GNU/Linux 12 (bookworm)`.
fn system_name(text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

/// Asks the interpreters that the sandbox shows for their versions. One that is not there has none.
fn interpreters(
    shelf: &Shelf,
    environment: &Environment,
) -> Result<BTreeMap<String, String>, BuildError> {
    let asked = environment.packages.managers().flat_map(recipe::interpreters);
    let script: String =
        asked.map(|(name, words)| format!("echo \"{name} $({words} 2> /dev/null)\"\n")).collect();
    if script.is_empty() {
        return Ok(BTreeMap::new());
    }
    let directory = shelf.nowhere()?;
    let fail = prepare("ask for versions in", &directory);
    let (mut answer, writer) = io::pipe().map_err(&fail)?;
    let nothing = File::options().read(true).write(true).open("/dev/null").map_err(&fail)?;
    let step = Step {
        profile: &environment.profile,
        directory: &directory,
        layer: None,
        shown: Vec::new(),
        variables: Vec::new(),
        argv: ["/bin/sh", "-c", &script].map(str::to_owned).into(),
        online: false,
    };
    let streams = [nothing.as_fd(), writer.as_fd(), nothing.as_fd()];
    run(step, streams, &mut drop, &mut |_| true)?;
    drop(writer);
    let mut text = Vec::new();
    (&mut answer).take(MAX_ANSWER).read_to_end(&mut text).map_err(&fail)?;
    let text = String::from_utf8_lossy(&text);
    let versions = text.lines().filter_map(|line| line.split_once(' '));
    Ok(versions.map(|(name, version)| (name.to_owned(), version.trim().to_owned())).collect())
}

/// The files that a manager needs to see of the machine, without credentials.
fn settings_of(
    manager: Manager,
    root: &Path,
    registries: &Registries,
) -> Result<Vec<(PathBuf, Vec<u8>)>, BuildError> {
    let mut files = Vec::new();
    match manager {
        Manager::Apt => {
            let etc = root.join("etc/apt");
            let status = root.join("var/lib/dpkg/status");
            let installed = read(&status).map_err(prepare("read", &status))?.unwrap_or_default();
            files.push((PathBuf::from("dpkg/status"), installed));
            for name in ["sources.list", "trusted.gpg", "preferences"] {
                add(&mut files, &etc.join(name), Path::new("etc").join(name))?;
            }
            for name in ["sources.list.d", "trusted.gpg.d", "preferences.d"] {
                let place = etc.join(name);
                let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
                let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
                names.sort();
                for file in names {
                    add(&mut files, &place.join(&file), Path::new("etc").join(name).join(&file))?;
                }
            }
        }
        Manager::Cargo => {
            let text = registries.cargo.clone().unwrap_or_default();
            files.push((PathBuf::from("cargo/config.toml"), text.into_bytes()));
        }
        Manager::Gem => {
            let text = registries.gem.clone().unwrap_or_default();
            files.push((PathBuf::from("gemrc"), text.into_bytes()));
        }
        Manager::Go | Manager::Npm | Manager::Pip => {}
    }
    Ok(files)
}

fn add(files: &mut Vec<(PathBuf, Vec<u8>)>, from: &Path, to: PathBuf) -> Result<(), BuildError> {
    if let Some(bytes) = read(from).map_err(prepare("read", from))? {
        // Keys are no text, and have no credentials.
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => without_credentials(&text).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        files.push((to, bytes));
    }
    Ok(())
}

/// A file's content; nothing if it is not there, or is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) if file.metadata()?.is_file() => {
            let mut bytes = Vec::new();
            file.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Ok(_) => Ok(None),
        // What this user may not read, his programs do not either.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
