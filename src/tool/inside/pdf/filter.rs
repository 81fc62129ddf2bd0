//! The filters of streams, undone: each in bounded room, and as far as the bytes are whole. Those of images are not.

use std::io::Read;

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::object::{Dict, Object};
use super::{Budget, Fault};
use crate::limits::PDF_STREAM_BYTES;

/// Filters of one stream that are undone one after another: real files have one or two.
const MOST: usize = 8;

/// The stream's bytes with its filters undone. `names` and `settings` are what its dictionary says.
pub(super) fn undo(
    bytes: &[u8],
    filters: &[(String, Dict)],
    budget: &Budget,
) -> Result<Vec<u8>, Fault> {
    if filters.len() > MOST {
        return Err(Fault::Broken);
    }
    let mut bytes = bytes.to_vec();
    budget.unpack(0)?;
    for (name, settings) in filters {
        let undone = match name.as_str() {
            "FlateDecode" | "Fl" => predicted(flate(&bytes), settings),
            "LZWDecode" | "LZW" => predicted(lzw(&bytes, settings), settings),
            "ASCII85Decode" | "A85" => ascii85(&bytes),
            "ASCIIHexDecode" | "AHx" => ascii_hex(&bytes),
            "RunLengthDecode" | "RL" => run_length(&bytes),
            "Crypt" => bytes,
            _ => return Err(Fault::Broken),
        };
        budget.unpack(undone.len())?;
        if undone.len() >= PDF_STREAM_BYTES {
            return Err(Fault::Size);
        }
        bytes = undone;
    }
    Ok(bytes)
}

/// What can be had of a stream that may be cut, or whose head is broken.
fn flate(bytes: &[u8]) -> Vec<u8> {
    let whole = drain(ZlibDecoder::new(bytes));
    if !whole.is_empty() || bytes.len() < 3 {
        return whole;
    }
    drain(DeflateDecoder::new(&bytes[2..]))
}

fn drain(reader: impl Read) -> Vec<u8> {
    let (mut out, mut piece) = (Vec::new(), [0; 16 * 1024]);
    let mut reader = reader.take(PDF_STREAM_BYTES as u64);
    // What came before a fault counts.
    while let Ok(length @ 1..) = reader.read(&mut piece) {
        out.extend_from_slice(&piece[..length]);
    }
    out
}

fn lzw(bytes: &[u8], settings: &Dict) -> Vec<u8> {
    const CLEAR: usize = 256;
    const END: usize = 257;
    let early = settings.get("EarlyChange").count().unwrap_or(1).min(1);
    let mut out: Vec<u8> = Vec::new();
    // Each entry of the table is a piece of what was said.
    let mut table: Vec<(usize, usize)> = Vec::new();
    let (mut width, mut before) = (9, None::<(usize, usize)>);
    let (mut held, mut bits) = (0_usize, 0);
    for byte in bytes {
        held = (held << 8 | usize::from(*byte)) & 0xff_ffff;
        bits += 8;
        if bits < width {
            continue;
        }
        bits -= width;
        let code = held >> bits & ((1 << width) - 1);
        if code == END || out.len() >= PDF_STREAM_BYTES {
            break;
        }
        if code == CLEAR {
            table.clear();
            (width, before) = (9, None);
            continue;
        }
        let start = out.len();
        match (code, before) {
            (0..CLEAR, _) => out.push(u8::try_from(code).expect("a code below 256 is a byte")),
            (code, Some((from, to))) if code == END + 1 + table.len() => {
                out.extend_from_within(from..to);
                out.push(out[from]);
            }
            (code, _) => match table.get(code - END - 1) {
                Some((from, to)) => out.extend_from_within(*from..*to),
                None => break,
            },
        }
        if let Some((from, _)) = before
            && table.len() < 4096
        {
            // The last piece and the first byte of this one lie beside each other.
            table.push((from, start + 1));
        }
        before = Some((start, out.len()));
        width = match END + 1 + table.len() + early {
            0..512 => 9,
            512..1024 => 10,
            1024..2048 => 11,
            _ => 12,
        };
    }
    out
}

fn ascii85(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut group = Vec::with_capacity(5);
    for byte in bytes {
        match byte {
            b'~' => break,
            b'z' if group.is_empty() => out.extend([0; 4]),
            b'!'..=b'u' => group.push(u32::from(byte - b'!')),
            _ => {}
        }
        if group.len() == 5 {
            out.extend(word85(&group).to_be_bytes());
            group.clear();
        }
    }
    if let left @ 2..=4 = group.len() {
        group.resize(5, 84);
        out.extend(&word85(&group).to_be_bytes()[..left - 1]);
    }
    out
}

fn word85(group: &[u32]) -> u32 {
    group.iter().fold(0, |word: u32, digit| word.wrapping_mul(85).wrapping_add(*digit))
}

fn ascii_hex(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().take_while(|byte| **byte != b'>');
    let digits: Vec<_> = digits.filter_map(|byte| char::from(*byte).to_digit(16)).collect();
    let pair = |pair: &[u32]| pair[0] << 4 | pair.get(1).copied().unwrap_or(0);
    digits.chunks(2).filter_map(|digits| u8::try_from(pair(digits)).ok()).collect()
}

fn run_length(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at) {
        match usize::from(*length) {
            length @ 0..128 => {
                let end = (at + 2 + length).min(bytes.len());
                out.extend_from_slice(&bytes[(at + 1).min(end)..end]);
                at += 2 + length;
            }
            128 => break,
            length => {
                let Some(byte) = bytes.get(at + 1) else { break };
                out.extend(std::iter::repeat_n(*byte, 257 - length));
                at += 2;
            }
        }
        if out.len() >= PDF_STREAM_BYTES {
            break;
        }
    }
    out
}

/// Takes back what made the bytes easier to pack: rows as differences from the one above.
fn predicted(bytes: Vec<u8>, settings: &Dict) -> Vec<u8> {
    let setting = |key, usual: usize| settings.get(key).count().unwrap_or(usual);
    let predictor = setting("Predictor", 1);
    if predictor < 2 {
        return bytes;
    }
    let bits = setting("Colors", 1).clamp(1, 32) * setting("BitsPerComponent", 8).clamp(1, 16);
    let pixel = bits.div_ceil(8);
    let row = (bits * setting("Columns", 1).clamp(1, 1 << 20)).div_ceil(8);
    if predictor == 2 { added(bytes, row, pixel) } else { png(&bytes, row, pixel) }
}

/// The predictor of TIFF, for whole bytes; text never has others.
fn added(mut bytes: Vec<u8>, row: usize, pixel: usize) -> Vec<u8> {
    for row in bytes.chunks_mut(row) {
        for at in pixel..row.len() {
            row[at] = row[at].wrapping_add(row[at - pixel]);
        }
    }
    bytes
}

fn png(bytes: &[u8], row: usize, pixel: usize) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut above = vec![0; row];
    for line in bytes.chunks(row + 1) {
        let (kind, given) = (line[0], &line[1..]);
        let mut now = vec![0; row];
        for (at, byte) in given.iter().enumerate() {
            let left = if at < pixel { 0 } else { now[at - pixel] };
            let corner = if at < pixel { 0 } else { above[at - pixel] };
            let guess = match kind {
                1 => left,
                2 => above[at],
                3 => u8::midpoint(left, above[at]),
                4 => nearest(left, above[at], corner),
                _ => 0,
            };
            now[at] = byte.wrapping_add(guess);
        }
        out.extend_from_slice(&now[..given.len()]);
        above = now;
    }
    out
}

/// Which of the three is next to what goes on as they do.
fn nearest(left: u8, above: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, above, corner].map(i16::from);
    let goes_on = a + b - c;
    let far = |value: i16| (goes_on - value).abs();
    if far(a) <= far(b) && far(a) <= far(c) {
        left
    } else if far(b) <= far(c) {
        above
    } else {
        corner
    }
}

/// The filters that a stream's dictionary names, with their settings.
pub(super) fn named(names: &Object, settings: &Object) -> Vec<(String, Dict)> {
    let list = |object: &Object| match object {
        Object::Array(items) => items.clone(),
        Object::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let mut settings = list(settings).into_iter();
    let names = list(names).into_iter().map(move |name| {
        let settings = match settings.next() {
            Some(Object::Dict(settings)) => settings,
            _ => Dict::default(),
        };
        (name.name().unwrap_or("?").to_owned(), settings)
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::object::Reader;
    use super::*;

    fn dict(text: &str) -> Dict {
        match Reader::file(text.as_bytes(), 0).next() {
            Some(Object::Dict(dict)) => dict,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_filter_is_undone() {
        let check = |name: &str, bytes: &[u8], expected: &[u8]| {
            let filters = [(name.to_owned(), Dict::default())];
            let undone = undo(bytes, &filters, &Budget::test()).ok();
            assert_eq!(undone.as_deref(), Some(expected), "{name}");
        };
        check("ASCIIHexDecode", b"48 65 6c6C 6f 7>", b"Hellop");
        check("ASCII85Decode", b"87cURD]j7BEbo80~>", b"Hello world!");
        check("ASCII85Decode", b"z87cUR~>", b"\0\0\0\0Hell");
        check("RunLengthDecode", b"\x02abc\xfed\x80rest", b"abcddd");
        // The example of the format's own document.
        check(
            "LZWDecode",
            &[0x80, 0x0b, 0x60, 0x50, 0x22, 0x0c, 0x0c, 0x85, 0x01],
            &[45, 45, 45, 45, 45, 65, 45, 45, 45, 66],
        );
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&b"Hello ".repeat(1000)).unwrap();
        let packed = packed.finish().unwrap();
        check("FlateDecode", &packed, &b"Hello ".repeat(1000));
        let cut = undo(&packed[..30], &[("Fl".to_owned(), Dict::default())], &Budget::test());
        assert!(cut.ok().unwrap().starts_with(b"Hello Hello"));
        assert!(matches!(
            undo(b"", &[("DCTDecode".to_owned(), Dict::default())], &Budget::test()),
            Err(Fault::Broken)
        ));
    }

    #[test]
    fn rows_are_put_together_again() {
        let check = |bytes: &[u8], settings: &str, expected: &[u8]| {
            assert_eq!(predicted(bytes.to_vec(), &dict(settings)), expected, "{settings}");
        };
        check(
            b"\x01\x01\x01\x01\x02\x01\x01\x01",
            "<</Predictor 15/Columns 3>>",
            &[1, 2, 3, 2, 3, 4],
        );
        check(b"\x03\x04\x04\x04\x01\x01", "<</Predictor 12/Columns 2>>", &[4, 6, 5, 7]);
        check(&[1, 1, 1, 5, 1, 1], "<</Predictor 2/Columns 3>>", &[1, 2, 3, 5, 6, 7]);
        check(b"as it is", "<<>>", b"as it is");
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..=PDF_STREAM_BYTES / (1 << 20) {
            packed.write_all(&[0; 1 << 20]).unwrap();
        }
        let packed = packed.finish().unwrap();
        let filters = [("FlateDecode".to_owned(), Dict::default())];
        assert!(matches!(undo(&packed, &filters, &Budget::test()), Err(Fault::Size)));
    }
}
