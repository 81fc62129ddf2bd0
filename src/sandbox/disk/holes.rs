//! Copies of files that keep their holes: what a session leaves out takes no room anywhere.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::unistd::{Whence, lseek};

/// Copies the content of a file into an empty one. Returns how many bytes were written.
pub(super) fn copy(from: &mut File, to: &mut File) -> io::Result<u64> {
    let size = from.metadata()?.len();
    let (mut at, mut written) = (0, 0);
    while let Some((start, end)) = next_data(from, at, size)? {
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        written += io::copy(&mut from.by_ref().take(end - start), to)?;
        at = end;
    }
    // The hole at the end, if there is one; and one that has become shorter meanwhile is seen by its size.
    to.set_len(size)?;
    Ok(written)
}

/// The next part of a file that is no hole, from one byte on.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let look = |at: u64, whence| {
        let at = i64::try_from(at).map_err(io::Error::other)?;
        match lseek(file, at, whence) {
            Ok(found) => Ok(Some(found.unsigned_abs().min(size))),
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => Ok(None),
            Err(e) => Err(io::Error::from(e)),
        }
    };
    match look(at, Whence::SeekData) {
        Ok(Some(start)) if start >= size => Ok(None),
        Ok(Some(start)) => Ok(Some((start, look(start, Whence::SeekHole)?.unwrap_or(size)))),
        Ok(None) => Ok(None),
        // A file system that knows no holes has none.
        Err(_) => Ok(Some((at, size))),
    }
}

/// The bytes of a file that take room.
pub(super) fn held(facts: &FileStat) -> u64 {
    let allocated = facts.st_blocks.unsigned_abs() * 512;
    allocated.min(facts.st_size.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        const MIB: u64 = 1 << 20;
        let check = |parts: &[(u64, &[u8])], size: u64| {
            let (mut from, mut to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            for (at, bytes) in parts {
                from.seek(SeekFrom::Start(*at)).unwrap();
                from.write_all(bytes).unwrap();
            }
            from.set_len(size).unwrap();
            let written = copy(&mut from, &mut to).unwrap();
            let data: u64 = parts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            let room = to.metadata().unwrap().blocks() * 512;
            let [mut left, mut right] = [&from, &to].map(|file| {
                let mut file = file.try_clone().unwrap();
                file.rewind().unwrap();
                file
            });
            assert_eq!(to.metadata().unwrap().len(), size);
            assert!(written <= data + 8192 && room <= data + 16384, "{written} and {room}");
            let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            loop {
                let n = left.read(&mut a).unwrap();
                right.read_exact(&mut b[..n]).unwrap();
                assert_eq!(a[..n], b[..n]);
                if n == 0 {
                    break;
                }
            }
        };
        check(&[], 0);
        check(&[(0, b"all of it")], 9);
        check(&[], 64 * MIB);
        check(&[(0, b"begins")], 64 * MIB);
        check(&[(64 * MIB - 4, b"ends")], 64 * MIB);
        check(&[(5 * MIB, &[7; 100_000]), (32 * MIB + 3, b"between")], 64 * MIB);
    }

    #[test]
    fn a_hole_takes_no_room() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(held(&nix::sys::stat::fstat(&file).unwrap()), 0);
    }
}
