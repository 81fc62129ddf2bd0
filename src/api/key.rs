//! The key that clients show: made once, kept in the data directory for its owner alone.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const FILE: &str = "api-key";
const PREFIX: &str = "sk-casemate-";
/// Bytes of chance in a key: no fewer than any guess could try.
const CHANCE: usize = 32;
/// Longest key that is read; one of the user's own may be longer than ours.
const MAX_KEY_BYTES: u64 = 1024;

/// A key. It has no `Debug` that shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be made or read.
    #[error("use the key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others can read the file.
    #[error(
        "use the key file {path}: other users can read it; `chmod 600 {path}`, or delete it to get a new key"
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no key.
    #[error("use the key file {path}: it holds no key; delete it to get a new one")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

impl ApiKey {
    /// The key of the data directory, which must exist; made if there is none.
    ///
    /// # Errors
    /// If the file cannot be used, or is no secret any more.
    pub fn of(data_dir: &Path) -> Result<Self, KeyError> {
        let path = data_dir.join(FILE);
        let failed = |source| KeyError::File { path: path.clone(), source };
        match File::open(&path) {
            Ok(file) => Self::read(file, &path),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match Self::make(data_dir, &path) {
                    // Another process was faster.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        Self::read(File::open(&path).map_err(failed)?, &path)
                    }
                    made => made.map_err(failed),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn read(file: File, path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned() });
        }
        let mut text = String::new();
        file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(failed)?;
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(KeyError::NoKey { path: path.to_owned() });
        }
        Ok(Self(key.to_owned()))
    }

    /// Written under another name and linked into place: nobody ever reads half a key.
    fn make(data_dir: &Path, path: &Path) -> io::Result<Self> {
        let mut chance = [0; CHANCE];
        File::open("/dev/urandom")?.read_exact(&mut chance)?;
        let mut key = PREFIX.to_owned();
        for byte in chance {
            write!(key, "{byte:02x}").expect("a string takes what it is given");
        }
        let draft = data_dir.join(format!("{FILE}.{}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let placed = file
            .write_all(format!("{key}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::hard_link(&draft, path));
        std::fs::remove_file(&draft)?;
        placed.map(|()| Self(key))
    }

    /// The key itself, for its owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the key. The time that this takes says nothing about where they differ.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differences = own
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ given.get(at).copied().unwrap_or(!byte))
            .fold(0, |sum, difference| std::hint::black_box(sum | difference));
        own.len() == given.len() && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let key = ApiKey::of(dir.path()).unwrap();
        assert_eq!(ApiKey::of(dir.path()).unwrap(), key);
        assert!(key.reveal().starts_with("sk-casemate-") && key.reveal().len() == 76);
        let path = dir.path().join("api-key");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!format!("{key:?}").contains(&key.reveal()[12..]));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(ApiKey::of(dir.path()).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        File::create(&path).unwrap();
        assert!(ApiKey::of(dir.path()).unwrap_err().to_string().contains("holds no key"));
    }

    #[test]
    fn only_the_whole_key_is_the_key() {
        let key = ApiKey("abc".to_owned());
        assert!(key.is("abc"));
        for wrong in ["", "ab", "abd", "abcd", "ABC", "bbc"] {
            assert!(!key.is(wrong), "{wrong}");
        }
    }
}
