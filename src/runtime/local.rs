//! Files of the person who calls: what the commands read and write for him, with bounds.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::environment::ProfileSource;
use crate::limits::MAX_PROFILE_BYTES;

/// A profile by its name, or the file at that path as it reads now.
///
/// # Errors
/// If the file cannot be read.
pub fn profile_source(named: &str) -> std::io::Result<ProfileSource> {
    let path = Path::new(named);
    if !named.contains('/') && path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(ProfileSource::BuiltIn(named.to_owned()));
    }
    let text = read_bounded(path, MAX_PROFILE_BYTES)?;
    Ok(ProfileSource::File { path: std::path::absolute(path)?, text })
}

/// A definition that a person has written.
///
/// # Errors
/// The system's, or that it has more than `most` bytes.
pub fn read_bounded(path: &Path, most: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let size = std::fs::File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if size as u64 > most {
        let reason = format!("it has more than {most} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

/// A new directory for one use; `wanted`, which must be missing or empty, or one of its own in the temporary directory.
///
/// # Errors
/// The system's, or that `wanted` is not empty.
pub fn fresh_directory(wanted: Option<&Path>) -> std::io::Result<PathBuf> {
    let Some(wanted) = wanted else {
        let template = std::env::temp_dir().join("casemate-demo-XXXXXX");
        return Ok(nix::unistd::mkdtemp(&template)?);
    };
    std::fs::create_dir_all(wanted)?;
    if std::fs::read_dir(wanted)?.next().is_some() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::DirectoryNotEmpty,
            "the directory is not empty",
        ));
    }
    wanted.canonicalize()
}

/// Writes a file that is not there yet.
///
/// # Errors
/// The system's.
pub fn new_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::io::Write::write_all(&mut std::fs::File::create_new(path)?, content)
}
