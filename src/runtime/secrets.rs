//! Secrets of clients at rest: sealed with a key that lies in the data directory for its owner alone. So a secret is in no
//! copy of the database and of no session's disk; whoever has the whole directory has it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

const FILE: &str = "secrets.key";
const KEY_BYTES: usize = 32;

/// Why a secret cannot be kept or had. Fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The key's file.
    #[error("use the key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others can read it, or it holds no key.
    #[error("use the key file {}: it must hold {KEY_BYTES} bytes, and be its owner's alone", .0.display())]
    NoKey(PathBuf),
    /// What was sealed is not what is there.
    #[error("open a sealed secret: it was sealed with another key, or changed")]
    Sealed,
}

/// Seals and opens; the key is made with the first secret.
#[derive(Debug, Clone)]
pub(super) struct Secrets(PathBuf);

impl Secrets {
    /// Those of a data directory.
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Seals a secret: what is sealed under one name cannot be opened under another.
    pub(super) fn seal(&self, name: &str, secret: &str) -> Result<Vec<u8>, SecretError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the kernel gives randomness");
        let mut sealed = secret.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let done = self.key()?.seal_in_place_append_tag(unique, Aad::from(name), &mut sealed);
        done.expect("a secret is short");
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what was sealed under that name.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<String, SecretError> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(SecretError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Sealed)?;
        let mut rest = rest.to_vec();
        let opened = self.key()?.open_in_place(nonce, Aad::from(name), &mut rest);
        let opened = opened.map_err(|_| SecretError::Sealed)?;
        String::from_utf8(opened.to_vec()).map_err(|_| SecretError::Sealed)
    }

    fn key(&self) -> Result<LessSafeKey, SecretError> {
        let fail = |source| SecretError::File { path: self.0.clone(), source };
        let bytes = match File::open(&self.0) {
            Ok(file) => self.read(file)?,
            Err(e) if e.kind() == ErrorKind::NotFound => match self.make() {
                // Somebody was faster.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    self.read(File::open(&self.0).map_err(fail)?)?
                }
                made => made.map_err(fail)?,
            },
            Err(e) => return Err(fail(e)),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("it has the length of a key");
        Ok(LessSafeKey::new(key))
    }

    fn read(&self, file: File) -> Result<[u8; KEY_BYTES], SecretError> {
        let fail = |source| SecretError::File { path: self.0.clone(), source };
        let open = file.metadata().map_err(fail)?.mode() & 0o077 != 0;
        let mut bytes = Vec::new();
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
        let key = bytes.try_into().ok().filter(|_| !open);
        key.ok_or_else(|| SecretError::NoKey(self.0.clone()))
    }

    /// Written under another name and linked into place: nobody ever reads half a key.
    fn make(&self) -> io::Result<[u8; KEY_BYTES]> {
        let mut bytes = [0; KEY_BYTES];
        let random = SystemRandom::new();
        random.fill(&mut bytes).map_err(|_| io::Error::other("the kernel gives no randomness"))?;
        let fresh = self.0.with_extension(format!("{}.new", uuid::Uuid::now_v7()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&fresh, &self.0);
        std::fs::remove_file(&fresh)?;
        linked.map(|()| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_under_its_name_and_with_its_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::of(dir.path());
        let sealed = secrets.seal("a", "ghp_secret").unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("secret"));
        assert_ne!(sealed, secrets.seal("a", "ghp_secret").unwrap());
        assert_eq!(secrets.open("a", &sealed).unwrap(), "ghp_secret");
        assert!(matches!(secrets.open("b", &sealed), Err(SecretError::Sealed)));
        assert!(matches!(secrets.open("a", &sealed[1..]), Err(SecretError::Sealed)));
        assert!(matches!(secrets.open("a", b""), Err(SecretError::Sealed)));
        let path = dir.path().join(FILE);
        let mode = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        mode(0o640);
        assert!(matches!(secrets.open("a", &sealed), Err(SecretError::NoKey(_))));
        mode(0o600);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(secrets.open("a", &sealed), Err(SecretError::Sealed)));
    }
}
