//! Skills as zip files, in and out. What comes in is a stranger's: its directory of contents is judged as a whole before
//! anything is unpacked, and what is unpacked must be what it says.
//!
//! Of the format this reads what tools write for a handful of small files: stored or deflated entries, one volume, no
//! encryption, no 64-bit sizes. Whatever else a zip can be is refused by name.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::library::SkillError;
use super::tree::Tree;
use crate::limits::{
    MAX_SKILL_BYTES, MAX_SKILL_ENTRIES, MAX_SKILL_PATH_BYTES, MAX_SKILL_RATIO,
    SKILL_RATIO_FREE_BYTES,
};

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
/// Sizes of the fixed parts.
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
/// How an entry is packed.
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Who made it, in the upper byte: one that writes permissions.
const UNIX: u16 = 3;
/// What the system of some tools adds to every archive.
const RESOURCE_FORKS: &str = "__MACOSX/";

/// An entry as the directory of contents has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    mode: Option<u32>,
    offset: u64,
}

/// A number of the file, smallest byte first.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::try_from(number(bytes, at, 2)).expect("two bytes fit")
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::try_from(number(bytes, at, 4)).expect("four bytes fit")
}

fn broken(problem: &str) -> SkillError {
    SkillError::Refused(format!("the zip file {problem}"))
}

/// Unpacks an archive into a tree.
pub(super) fn unpack(zip: &mut File, tree: &mut Tree) -> Result<(), SkillError> {
    let (entries, end) = contents(zip)?;
    judge(&entries)?;
    let places = places(zip, &entries, end)?;
    for (entry, begins) in entries.iter().zip(places) {
        if entry.name.starts_with(RESOURCE_FORKS) {
            continue;
        }
        if let Some(directory) = entry.name.strip_suffix('/') {
            tree.directory(directory)?;
            continue;
        }
        let runs = entry.mode.map(|mode| mode & 0o111 != 0);
        tree.begin(&entry.name, runs)?;
        let fail = SkillError::at("read", Path::new("the zip file"));
        zip.seek(SeekFrom::Start(begins)).map_err(fail)?;
        extract(zip, entry, tree)?;
        tree.end()?;
    }
    Ok(())
}

/// Where the bytes of each entry begin. No two share any, and none is a part of what describes them.
fn places(zip: &File, entries: &[Entry], end: u64) -> Result<Vec<u64>, SkillError> {
    let places = entries.iter().map(|entry| data_of(zip, entry));
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let spans = entries.iter().zip(&places);
    let mut spans: Vec<_> =
        spans.map(|(entry, begins)| (entry.offset, begins + entry.packed)).collect();
    spans.sort_unstable();
    spans.push((end, end));
    if spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(broken("has entries that overlap"));
    }
    Ok(places)
}

/// The entries, and where what describes them begins.
fn contents(zip: &File) -> Result<(Vec<Entry>, u64), SkillError> {
    let fail = || SkillError::at("read", Path::new("the zip file"));
    let size = zip.metadata().map_err(fail())?.len();
    // The end may be followed by a comment of at most 64 KiB.
    let tail = size.min(END_BYTES as u64 + u64::from(u16::MAX));
    let mut bytes = vec![0; usize::try_from(tail).expect("64 KiB fit")];
    zip.read_exact_at(&mut bytes, size - tail).map_err(fail())?;
    let is_end = |at: &usize| {
        long(&bytes, *at) == END
            && at + END_BYTES + usize::from(short(&bytes, at + 20)) == bytes.len()
    };
    let last = bytes.len().checked_sub(END_BYTES);
    let at = last.and_then(|last| (0..=last).rev().find(is_end));
    let at = at.ok_or_else(|| broken("is none, or is cut"))?;
    let (here, all) = (short(&bytes, at + 8), short(&bytes, at + 10));
    let (length, begins) = (number(&bytes, at + 12, 4), number(&bytes, at + 16, 4));
    if number(&bytes, at + 4, 4) != 0 || here != all {
        return Err(broken("has more than one volume"));
    }
    if here == u16::MAX || length == u64::from(u32::MAX) || begins == u64::from(u32::MAX) {
        return Err(broken("has 64-bit sizes, and no skill is that large"));
    }
    if usize::from(here) > 2 * MAX_SKILL_ENTRIES {
        return Err(SkillError::Refused(format!(
            "the zip file says that it has {here} entries, and a skill has at most {MAX_SKILL_ENTRIES}"
        )));
    }
    if begins + length > size - tail + at as u64 {
        return Err(broken("has a directory of contents beyond its end"));
    }
    let most = usize::from(here) * (CENTRAL_BYTES + MAX_SKILL_PATH_BYTES + 4096);
    let length = usize::try_from(length).ok().filter(|length| *length <= most);
    let mut directory = vec![0; length.ok_or_else(|| broken("describes itself at length"))?];
    zip.read_exact_at(&mut directory, begins).map_err(fail())?;
    let mut entries = Vec::new();
    let mut rest = directory.as_slice();
    for _ in 0..here {
        let (entry, after) = described(rest)?;
        entries.push(entry);
        rest = after;
    }
    Ok((entries, begins))
}

/// The first entry of a directory of contents, and what follows it.
fn described(bytes: &[u8]) -> Result<(Entry, &[u8]), SkillError> {
    let cut = || broken("has a directory of contents that is cut");
    if bytes.len() < CENTRAL_BYTES || long(bytes, 0) != CENTRAL {
        return Err(cut());
    }
    let lengths = [28, 30, 32].map(|at| usize::from(short(bytes, at)));
    let name_end = CENTRAL_BYTES + lengths[0];
    let end = name_end + lengths[1] + lengths[2];
    let name = bytes.get(CENTRAL_BYTES..name_end).ok_or_else(cut)?;
    let rest = bytes.get(end..).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| {
        let shown = String::from_utf8_lossy(name);
        SkillError::of(&shown, "has a name that is not UTF-8")
    })?;
    let mode = (short(bytes, 4) >> 8 == UNIX).then(|| long(bytes, 38) >> 16);
    let entry = Entry {
        name: name.to_owned(),
        flags: short(bytes, 8),
        method: short(bytes, 10),
        crc: long(bytes, 16),
        packed: number(bytes, 20, 4),
        size: number(bytes, 24, 4),
        mode: mode.filter(|mode| *mode != 0),
        offset: number(bytes, 42, 4),
    };
    Ok((entry, rest))
}

/// What can be told of an archive before it is unpacked.
fn judge(entries: &[Entry]) -> Result<(), SkillError> {
    const KIND: u32 = 0o170_000;
    let mut sum: u64 = 0;
    for entry in entries {
        let refuse = |problem: &str| Err(SkillError::of(&entry.name, problem));
        let is_directory = entry.name.ends_with('/');
        match entry.mode.map_or(0, |mode| mode & KIND) {
            0o120_000 => return refuse("is a link"),
            0 => {}
            0o100_000 if !is_directory => {}
            0o040_000 if is_directory => {}
            _ => return refuse("is neither a file nor a directory"),
        }
        if entry.flags & 1 != 0 {
            return refuse("is encrypted");
        }
        if !matches!(entry.method, STORED | DEFLATED) {
            return refuse("is packed in another way than `deflate`");
        }
        if [entry.packed, entry.size, entry.offset].contains(&u64::from(u32::MAX)) {
            return refuse("has 64-bit sizes, and no skill is that large");
        }
        if is_directory && entry.size > 0 {
            return refuse("is a directory with content");
        }
        if entry.method == STORED && entry.size != entry.packed {
            return refuse("has two sizes");
        }
        if entry.size > SKILL_RATIO_FREE_BYTES && entry.size / entry.packed.max(1) > MAX_SKILL_RATIO
        {
            let problem =
                format!("would be more than {MAX_SKILL_RATIO} times as large as it is packed");
            return refuse(&problem);
        }
        sum += entry.size;
    }
    if sum > MAX_SKILL_BYTES {
        return Err(SkillError::TooLarge);
    }
    Ok(())
}

/// Where the bytes of an entry begin. What stands before them must be what the directory of contents says.
fn data_of(zip: &File, entry: &Entry) -> Result<u64, SkillError> {
    let lies = || SkillError::of(&entry.name, "is not where the directory of contents says");
    let mut head = vec![0; LOCAL_BYTES + entry.name.len()];
    zip.read_exact_at(&mut head, entry.offset).map_err(|_| lies())?;
    let lengths = [26, 28].map(|at| usize::from(short(&head, at)));
    let same = head[LOCAL_BYTES..] == *entry.name.as_bytes() && lengths[0] == entry.name.len();
    if long(&head, 0) != LOCAL || !same {
        return Err(lies());
    }
    Ok(entry.offset + (LOCAL_BYTES + lengths[0] + lengths[1]) as u64)
}

/// Unpacks one entry, and no byte more than it says.
fn extract(zip: &mut File, entry: &Entry, tree: &mut Tree) -> Result<(), SkillError> {
    let packed = zip.take(entry.packed);
    let mut unpacked: Box<dyn io::Read + '_> = match entry.method {
        STORED => Box::new(packed),
        _ => Box::new(DeflateDecoder::new(packed)),
    };
    let (mut piece, mut crc, mut size) = (vec![0; 64 * 1024], Crc::new(), 0);
    loop {
        let count = unpacked.read(&mut piece);
        let count = count.map_err(|_| SkillError::of(&entry.name, "cannot be unpacked"))?;
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > entry.size {
            return Err(SkillError::of(&entry.name, "is larger than it says"));
        }
        crc.update(&piece[..count]);
        tree.write(&piece[..count])?;
    }
    if size != entry.size || crc.sum() != entry.crc {
        return Err(SkillError::of(&entry.name, "is not what its checksum says"));
    }
    Ok(())
}

/// An archive of a tree, whose entries lie below `top`: piece by piece, none larger than a file. Nothing is packed: a skill
/// is small.
pub(super) fn pack(root: PathBuf, top: &str) -> impl Iterator<Item = io::Result<Vec<u8>>> + use<> {
    let top = top.to_owned();
    let mut files = Vec::new();
    let mut failed = list(&root, Path::new(""), &mut files).err();
    let (mut directory, mut offset, mut count) = (Vec::new(), 0, 0);
    let mut files = files.into_iter();
    let mut ended = false;
    std::iter::from_fn(move || {
        if let Some(error) = failed.take() {
            ended = true;
            return Some(Err(error));
        }
        if ended {
            return None;
        }
        let Some(below) = files.next() else {
            ended = true;
            return Some(Ok(end_of(std::mem::take(&mut directory), offset, count)));
        };
        let packed = entry_of(&root, &below, &top, offset);
        Some(packed.map(|(bytes, described)| {
            offset += u32::try_from(bytes.len()).expect("a skill is small");
            count += 1;
            directory.extend(described);
            bytes
        }))
    })
}

/// A file with its head, and its entry in the directory of contents.
fn entry_of(root: &Path, below: &Path, top: &str, offset: u32) -> io::Result<(Vec<u8>, Vec<u8>)> {
    /// The first moment that the format knows: what lies in an archive has no time of its own.
    const THEN: [u8; 4] = [0, 0, 0x21, 0];
    /// Names are UTF-8.
    const FLAGS: u16 = 1 << 11;
    const VERSION: u16 = 20;
    let path = root.join(below);
    let content = std::fs::read(&path)?;
    let name = format!("{top}/{}", below.display());
    let mut crc = Crc::new();
    crc.update(&content);
    let size = u32::try_from(content.len()).expect("a skill is small");
    let length = u16::try_from(name.len()).expect("a path is short");
    let mut common = Vec::new();
    common.extend(VERSION.to_le_bytes());
    common.extend(FLAGS.to_le_bytes());
    common.extend(STORED.to_le_bytes());
    common.extend(THEN);
    [crc.sum(), size, size].iter().for_each(|number| common.extend(number.to_le_bytes()));
    common.extend(length.to_le_bytes());
    // No extra field.
    common.extend([0, 0]);
    let mut bytes = LOCAL.to_le_bytes().to_vec();
    bytes.extend(&common);
    bytes.extend(name.as_bytes());
    bytes.extend(content);
    let mut described = CENTRAL.to_le_bytes().to_vec();
    described.extend((UNIX << 8 | VERSION).to_le_bytes());
    described.extend(&common);
    // No comment, the first volume, no attributes but the mode.
    described.extend([0; 6]);
    described.extend((path.metadata()?.mode() << 16).to_le_bytes());
    described.extend(offset.to_le_bytes());
    described.extend(name.as_bytes());
    Ok((bytes, described))
}

fn end_of(directory: Vec<u8>, offset: u32, count: u16) -> Vec<u8> {
    let length = u32::try_from(directory.len()).expect("a skill is small");
    let mut end = directory;
    end.extend(END.to_le_bytes());
    end.extend([0; 4]);
    [count, count].iter().for_each(|number| end.extend(number.to_le_bytes()));
    [length, offset].iter().for_each(|number| end.extend(number.to_le_bytes()));
    end.extend([0; 2]);
    end
}

fn list(root: &Path, at: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let names = std::fs::read_dir(root.join(at))?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
    names.sort_unstable();
    for name in names {
        let below = at.join(name);
        if root.join(&below).is_dir() {
            list(root, &below, files)?;
        } else {
            files.push(below);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
