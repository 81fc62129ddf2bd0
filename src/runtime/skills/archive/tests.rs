//! Archives that a tool would write, and those that no tool would.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::*;

/// An entry to be written, with whatever it lies about.
#[derive(Clone)]
struct Item {
    name: Vec<u8>,
    local_name: Option<Vec<u8>>,
    content: Vec<u8>,
    method: u16,
    mode: u32,
    flags: u16,
    size: Option<u32>,
    crc: Option<u32>,
}

fn item(name: &str, content: &[u8]) -> Item {
    Item {
        name: name.as_bytes().to_vec(),
        local_name: None,
        content: content.to_vec(),
        method: DEFLATED,
        mode: 0o100_644,
        flags: 0,
        size: None,
        crc: None,
    }
}

fn zip(items: &[Item]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for item in items {
        let packed = if item.method == DEFLATED {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&item.content).unwrap();
            encoder.finish().unwrap()
        } else {
            item.content.clone()
        };
        let mut crc = Crc::new();
        crc.update(&item.content);
        let size = item.size.unwrap_or(item.content.len().try_into().unwrap());
        let numbers = [item.crc.unwrap_or(crc.sum()), packed.len().try_into().unwrap(), size];
        let common = |name: &[u8]| {
            let mut common = [20, item.flags, item.method, 0, 0x21]
                .iter()
                .flat_map(|number: &u16| number.to_le_bytes())
                .collect::<Vec<_>>();
            common.extend(numbers.iter().flat_map(|number: &u32| number.to_le_bytes()));
            common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            common.extend([0, 0]);
            common
        };
        let local = item.local_name.as_ref().unwrap_or(&item.name);
        let offset = u32::try_from(bytes.len()).unwrap();
        bytes.extend(LOCAL.to_le_bytes());
        bytes.extend(common(local));
        bytes.extend(local);
        bytes.extend(packed);
        directory.extend(CENTRAL.to_le_bytes());
        directory.extend((UNIX << 8 | 20).to_le_bytes());
        directory.extend(common(&item.name));
        directory.extend([0; 6]);
        directory.extend((item.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&item.name);
    }
    let offset = u32::try_from(bytes.len()).unwrap();
    bytes.extend(end_of(directory, offset, items.len().try_into().unwrap()));
    bytes
}

/// Unpacks it: the files with their content and mode, or what is said.
fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>, u32)>, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let root = dir.path().join("t");
    let mut tree = Tree::new(&root).unwrap();
    unpack(&mut file, &mut tree).map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    list(&root, Path::new(""), &mut files).unwrap();
    let one = |path: PathBuf| {
        let full = root.join(&path);
        let mode = full.metadata().unwrap().permissions().mode() & 0o777;
        (path.display().to_string(), std::fs::read(full).unwrap(), mode)
    };
    Ok(files.into_iter().map(one).collect())
}

#[test]
fn what_a_tool_writes_is_unpacked_and_packed_again() {
    let long = b"text ".repeat(50_000);
    let mut directory = item("demo/", b"");
    (directory.mode, directory.method) = (0o040_755, STORED);
    let mut stored = item("demo/scripts/run.sh", b"#!/bin/sh\n");
    (stored.method, stored.mode) = (STORED, 0o100_755);
    let forks = item("__MACOSX/demo/._SKILL.md", b"fork");
    let items = [directory, item("demo/SKILL.md", b"skill"), stored, forks, item("demo/l", &long)];
    let expected = [
        ("SKILL.md".to_owned(), b"skill".to_vec(), 0o444),
        ("l".to_owned(), long, 0o444),
        ("scripts/run.sh".to_owned(), b"#!/bin/sh\n".to_vec(), 0o555),
    ];
    let mut commented = zip(&items);
    let at = commented.len() - 2;
    commented[at] = 5;
    commented.extend(b"hello");
    for bytes in [zip(&items), commented] {
        assert_eq!(unpacked(&bytes).unwrap(), expected);
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("t");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&zip(&items)).unwrap();
    unpack(&mut file, &mut Tree::new(&root).unwrap()).unwrap();
    let packed: Vec<u8> = pack(root, "demo").flat_map(Result::unwrap).collect();
    assert_eq!(unpacked(&packed).unwrap(), expected);
}

#[test]
fn what_no_tool_writes_is_refused_by_name() {
    let check = |items: &[Item], expected: &str| {
        let said = unpacked(&zip(items)).unwrap_err();
        assert!(said.contains(expected), "{said}, not {expected}");
    };
    let with = |change: &dyn Fn(&mut Item)| {
        let mut item = item("demo/SKILL.md", b"text");
        change(&mut item);
        [item]
    };
    check(&[item("demo/../../etc/x", b"")], "demo/../../etc/x: must not have `.` or `..` in it");
    check(&[item("/demo/x", b"")], "is an absolute path");
    check(&[item("demo/a", b""), item("other/b", b"")], "the top directory `other`");
    check(&[item("demo/a", b""), item("demo/A", b"")], "but for the case of letters");
    check(&with(&|item| item.mode = 0o120_777), "demo/SKILL.md: is a link");
    check(&with(&|item| item.mode = 0o020_666), "is neither a file nor a directory");
    check(&with(&|item| item.name = b"demo/\xff".to_vec()), "has a name that is not UTF-8");
    check(&with(&|item| item.flags = 1), "is encrypted");
    check(&with(&|item| item.method = 12), "is packed in another way than `deflate`");
    check(&with(&|item| item.size = Some(3)), "is larger than it says");
    check(&with(&|item| item.size = Some(5)), "is not what its checksum says");
    check(&with(&|item| item.crc = Some(1)), "is not what its checksum says");
    check(&with(&|item| (item.method, item.size) = (STORED, Some(9))), "has two sizes");
    check(&with(&|item| item.size = Some(u32::MAX)), "has 64-bit sizes");
    let other = Some(b"demo/SKILL.mx".to_vec());
    check(&with(&|item| item.local_name.clone_from(&other)), "is not where the directory of");
    let zeros = vec![0; 2 << 20];
    check(&[item("demo/zeros", &zeros)], "would be more than 100 times as large as it is packed");
    let many: Vec<_> = (0..2001).map(|n| item(&format!("demo/{n}"), b"")).collect();
    check(&many, "says that it has 2001 entries");
    let some: Vec<_> = (0..1001).map(|n| item(&format!("demo/{n}"), b"")).collect();
    check(&some, "is one more than 1000 files");
    let mut stored = item("demo/large", &vec![1; 16 << 20]);
    stored.method = STORED;
    let two = [stored.clone(), Item { name: b"demo/larger".to_vec(), ..stored }];
    check(&two, "can have at most 31457280 bytes");
}

#[test]
fn a_broken_archive_is_no_worse_than_none() {
    let whole = zip(&[item("demo/SKILL.md", b"some text"), item("demo/other", b"more text")]);
    for cut in 0..whole.len() {
        assert!(unpacked(&whole[..cut]).is_err(), "{cut}");
    }
    // Whatever becomes of one byte, it ends in an answer.
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            drop(unpacked(&changed));
        }
    }
    // Two entries of one place.
    let mut twice = whole;
    let end = twice.len() - END_BYTES;
    let begins = usize::try_from(number(&twice, end + 16, 4)).unwrap();
    let second = begins + CENTRAL_BYTES + "demo/SKILL.md".len();
    twice[second + 42..second + 46].copy_from_slice(&[0; 4]);
    assert!(unpacked(&twice).unwrap_err().contains("is not where the directory of contents says"));
    // One that is said to be longer than it is reaches into the next.
    let mut item = item("demo/SKILL.md", b"some text");
    item.method = STORED;
    let mut longer = zip(&[item.clone(), Item { name: b"demo/other".to_vec(), ..item }]);
    let end = longer.len() - END_BYTES;
    let begins = usize::try_from(number(&longer, end + 16, 4)).unwrap();
    for at in [20, 24] {
        longer[begins + at..begins + at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    assert_eq!(unpacked(&longer).unwrap_err(), "the zip file has entries that overlap");
}
