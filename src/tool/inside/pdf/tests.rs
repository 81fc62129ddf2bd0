//! Files of a generator that writes what readers get wrong, files of other people's programs, and files that are broken.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::*;

/// A PDF in the making: objects as they are written, numbered from 1.
#[derive(Default)]
struct Made(Vec<Vec<u8>>);

/// Fonts that [`page`] knows: one of everybody's, one of Type 0, one with names of glyphs, one with a map.
const FONTS: &str =
    "<</Font<</F 4 0 R/C 5 0 R/D 7 0 R/U 8 0 R>>/XObject<</X 10 0 R/I 11 0 R/Y 12 0 R>>>>";

impl Made {
    fn add(&mut self, object: impl AsRef<[u8]>) -> &mut Self {
        self.0.push(object.as_ref().to_vec());
        self
    }

    fn stream(&mut self, head: &str, bytes: &[u8]) -> &mut Self {
        let mut object = format!("<<{head}/Length {}>>stream\n", bytes.len()).into_bytes();
        object.extend_from_slice(bytes);
        object.extend_from_slice(b"\nendstream");
        self.add(object)
    }

    fn file(&self) -> Vec<u8> {
        let mut file = b"%PDF-1.7\n".to_vec();
        for (i, object) in self.0.iter().enumerate() {
            file.extend(format!("{} 0 obj\n", i + 1).into_bytes());
            file.extend_from_slice(object);
            file.extend_from_slice(b"\nendobj\n");
        }
        file.extend_from_slice(b"trailer\n<</Root 1 0 R>>\nstartxref\n0\n%%EOF\n");
        file
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A file of one page with that program.
fn page(program: &str) -> Made {
    let mut made = Made::default();
    made.add("<</Type/Catalog/Pages 2 0 R>>")
        .add(format!("<</Type/Pages/Kids[3 0 R]/Count 1/Resources {FONTS}>>"))
        .add("<</Type/Page/Parent 2 0 R/Contents 9 0 R>>")
        .add("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
        .add(
            "<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/ToUnicode 6 0 R/DescendantFonts\
             [<</Subtype/CIDFontType2/DW 500/W[1[600 700] 3 9 400]>>]>>",
        )
        .stream(
            "",
            b"1 begincodespacerange <0000> <ffff> endcodespacerange 2 beginbfrange <0001> <0003> <0430> <0004> <0005> \
              [<00660069> <D83DDE00>] endbfrange",
        )
        .add(
            "<</Subtype/Type1/BaseFont/Y/FirstChar 1/Widths[500 500 500 500]/Encoding<</Differences[1/ffi/eacute\
             /uni20AC/g77]>>>>",
        )
        .add("<</Subtype/TrueType/BaseFont/Z/Encoding/WinAnsiEncoding>>")
        .stream("/Filter/FlateDecode", &packed(program.as_bytes()))
        .stream(
            "/Subtype/Form/Matrix[1 0 0 1 0 -50]/BBox[0 0 9 9]",
            b"BT /F 12 Tf 72 700 Td (in a form) Tj ET /X Do /Y Do",
        )
        .stream("/Subtype/Image/Filter/DCTDecode", b"\xff\xd8")
        .stream("/Subtype/Form", b"/X Do /Y Do");
    made
}

fn leash() -> Leash {
    Leash::new(std::sync::Arc::default())
}

#[track_caller]
fn text_of(file: &[u8]) -> String {
    read(file, &leash()).unwrap().text
}

#[track_caller]
fn check(program: &str, expected: &str) {
    assert_eq!(text_of(&page(program).file()), expected, "{program}");
}

#[test]
fn operators_place_text() {
    check("BT /F 12 Tf 72 700 Td (one) Tj ( two) Tj ET", "one two");
    check(
        "BT /F 12 Tf 14 TL 72 700 Td (one) Tj T* (two) Tj (three) ' 0 0 (four) \" ET",
        "one\ntwo\nthree\nfour",
    );
    check("BT /F 12 Tf 72 700 Td (a) Tj 0 -14 TD (b) Tj T* (c) Tj ET", "a\nb\nc");
    check("BT /F 12 Tf 72 700 Td [(wo)-20(rd)-300(next)] TJ ET", "word next");
    check("BT /F 12 Tf 1 0 0 1 72 700 Tm (a) Tj 1 0 0 1 72 600 Tm (b) Tj ET", "a\n\nb");
    check(
        "q 2 0 0 2 0 0 cm BT /F 12 Tf 36 350 Td (big) Tj ET Q BT /F 9 Tf 72 640 Td (small) Tj ET",
        "big\n\nsmall",
    );
    check("BT /F 12 Tf 3 Tr 72 700 Td (unseen) Tj ET", "unseen");
    check("BT /F 12 Tf 72 700 Td (x) Tj 5 Ts /F 7 Tf (2) Tj ET", "x2");
}

#[test]
fn fonts_say_what_codes_are() {
    check("BT /C 12 Tf 72 700 Td <000100020003> Tj <0004> Tj <0005> Tj ET", "абвfi😀");
    check("BT /D 12 Tf 72 700 Td <010203> Tj ET", "ffié€");
    check("BT /U 12 Tf 72 700 Td (na\\357ve \\200) Tj ET", "naïve €");
    check("BT /F 12 Tf 72 700 Td (it's) Tj ET", "it’s");
    let unknown = read(&page("BT /D 12 Tf 72 700 Td <0104> Tj ET").file(), &leash()).unwrap();
    assert_eq!(unknown.text, "ffi");
    assert!(unknown.notes[0].starts_with("1 characters are left out"), "{unknown:?}");
}

#[test]
fn forms_images_and_marks_are_followed() {
    check("BT /F 12 Tf 72 700 Td (above) Tj ET /X Do", "above\n\nin a form");
    check(
        "BT /F 12 Tf 72 700 Td (a) Tj ET BI /W 1 ID \x01\x02EI\x03 \nEI BT /F 12 Tf 72 690 Td (b) Tj ET",
        "a\nb",
    );
    check(
        "BT /F 12 Tf 72 700 Td /Span<</ActualText(whole)>>BDC (wh-) Tj (le) Tj EMC ( word) Tj ET",
        "whole word",
    );
}

#[test]
fn places_make_lines_columns_and_rows() {
    let at = |x: u32, y: u32, text: &str| format!("BT /F 10 Tf {x} {y} Td ({text}) Tj ET\n");
    // The second line is written first, and each word by itself.
    check(
        &(at(72, 688, "second") + &at(72, 700, "the") + &at(92, 700, "first")),
        "the first\nsecond",
    );
    let mut columns = at(72, 720, "A title that goes over both of the columns, and is long enough");
    for line in 0..6 {
        columns += &at(72, 700 - 12 * line, &format!("{line} left words left words words"));
        columns += &at(320, 700 - 12 * line, &format!("{line} right words right words words"));
    }
    let text = text_of(&page(&columns).file());
    let (left, right) = (text.find("5 left").unwrap(), text.find("0 right").unwrap());
    assert!(left < right && text.starts_with("A title"), "{text}");
    let mut table = String::new();
    for column in 0..3 {
        for row in 0..5 {
            table += &at(72 + 120 * column, 700 - 12 * row, &format!("{column}{row}"));
        }
    }
    let text = text_of(&page(&table).file());
    assert!(text.starts_with("00  10  20\n01  11  21\n"), "{text}");
    let turned = "BT /F 10 Tf 0 1 -1 0 40 300 Tm (up the edge) Tj ET ".to_owned();
    check(&(turned + &at(72, 700, "most of the page")), "most of the page\n\nup the edge");
}

#[test]
fn pages_come_in_order_with_their_numbers() {
    let mut made = page("BT /F 12 Tf 72 700 Td (one) Tj ET");
    made.0[1] =
        format!("<</Type/Pages/Kids[3 0 R 13 0 R 3 0 R 2 0 R]/Resources {FONTS}>>").into_bytes();
    made.add("<</Type/Page/Contents[14 0 R 14 0 R]>>")
        .stream("", b"BT /F 12 Tf 72 700 Td (two) Tj ET");
    let text = read(&made.file(), &leash()).unwrap();
    assert_eq!((text.pages, text.text.as_str()), (2, "[page 1]\none\n\n[page 2]\ntwo"));
}

#[test]
fn objects_are_found_where_nothing_says_where_they_are() {
    let program = "BT /F 12 Tf 72 700 Td (found) Tj ET";
    // Changed by appending: the later one counts.
    let mut changed = page("BT /F 12 Tf 72 700 Td (old) Tj ET").file();
    changed
        .extend(format!("9 0 obj<</Length 35>>stream\n{program}\nendstream endobj\n").into_bytes());
    assert_eq!(text_of(&changed), "found");
    // Without its tree of pages, and without its trailer.
    let mut made = page(program);
    made.0[1] = b"<</Type/Pages>>".to_vec();
    made.0[2] = format!("<</Type/Page/Contents 9 0 R/Resources {FONTS}>>").into_bytes();
    assert_eq!(text_of(&made.file()), "found");
    let file = page(program).file();
    let end = file.windows(7).rposition(|word| word == b"trailer").unwrap();
    assert_eq!(text_of(&file[..end]), "found");
    // In a stream of objects.
    let made = page(program);
    let (mut index, mut objects) = (String::new(), Vec::new());
    for (i, object) in made.0[..5].iter().enumerate() {
        write!(index, "{} {} ", i + 1, objects.len()).unwrap();
        objects.extend_from_slice(object);
        objects.push(b' ');
    }
    let first = index.len();
    let mut other = Made::default();
    for _ in 0..5 {
        other.add("null");
    }
    other.0.extend_from_slice(&made.0[5..]);
    other.stream(
        &format!("/Type/ObjStm/N 5/First {first}/Filter/FlateDecode"),
        &packed(&[index.as_bytes(), &objects].concat()),
    );
    assert_eq!(text_of(&other.file()), "found");
}

#[test]
fn what_has_no_text_says_so() {
    let text = read(&page("q 100 0 0 100 0 0 cm /I Do Q").file(), &leash()).unwrap();
    assert!(text.is_empty && text.text.is_empty(), "{text:?}");
    assert_eq!(text.notes, ["no text, only images, on page 1"]);
    let check = |file: &[u8], expected: &str| {
        let why = read(file, &leash()).unwrap_err();
        assert!(why.contains(expected), "{why}");
        assert_eq!(pages(file, &leash()).unwrap_err(), why);
    };
    check(b"%PDF-1.7 rest", "it is broken: no page");
    check(b"%PDF-", "it is broken: no page");
    check(include_bytes!("../../../../tests/pdf/password.pdf"), "it is encrypted");
}

/// What a person reads there, in its order.
#[test]
fn files_of_other_programs_are_read() {
    let words = |file: &[u8]| {
        let text = text_of(file);
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let columns = words(include_bytes!("../../../../tests/pdf/columns.pdf"));
    assert_eq!(columns.len(), 992 + 4);
    assert_eq!(columns[2..6].join(" "), "Title over both columns");
    let has = |words: &[String], text: &str| {
        let joined = words.join(" ");
        assert!(joined.contains(text), "{text}: {joined}");
    };
    // The end of one column's line and the beginning of the next line in it.
    has(&columns, "than around each american so workflow");
    let table = words(include_bytes!("../../../../tests/pdf/table.pdf"));
    has(&table, "Name Count Price Remark");
    let typst = words(include_bytes!("../../../../tests/pdf/typst.pdf"));
    assert_eq!(typst.len(), 1455 + 4);
    has(&typst, "• first item • second item 1. numbered");
}

/// None of these may take long, or memory without bound: they are what a page of the web may send.
#[test]
fn traps_end() {
    let began = Instant::now();
    let program = "BT /F 12 Tf 72 700 Td (still here) Tj ET";
    let still = |made: &Made| {
        let text = read(&made.file(), &leash());
        assert!(text.as_ref().is_ok_and(|text| text.text.contains("still here")), "{text:?}");
    };
    // Forms that draw each other, and a chain of them that doubles with each.
    still(&page(&format!("{program} /Y Do")));
    let mut made = page(&format!("{program} /X Do"));
    for depth in 0..40 {
        let resources = format!("/Resources<</XObject<</X {} 0 R>>>>", 14 + depth);
        made.stream(&format!("/Subtype/Form{resources}"), &b"/X Do ".repeat(2));
    }
    let resources = FONTS.replace("/X 10 0 R", "/X 13 0 R");
    made.0[1] = format!("<</Type/Pages/Kids[3 0 R]/Resources {resources}>>").into_bytes();
    still(&made);
    // References in a circle, and a tree of pages that is one.
    let mut made = page(program);
    made.0[3] = b"4 0 R".to_vec();
    still(&made);
    made.0[1] = format!("<</Type/Pages/Kids[2 0 R 2 0 R 3 0 R]/Resources {FONTS}>>").into_bytes();
    still(&made);
    // A length that points at itself.
    let mut made = page(program);
    made.0[8] = format!("<</Length 9 0 R>>stream\n{program}\nendstream").into_bytes();
    still(&made);
    // Depth.
    still(&page(&format!("{} {program}", "[".repeat(100_000) + &"]".repeat(100_000))));
    still(&page(&format!("{} {program}", "q ".repeat(100_000))));
    // Bombs: one that holds too much, one within another, and a thousand of those that may be.
    let mut made = page(program);
    let zeros = packed(&vec![b' '; 33 << 20]);
    made.0[8] = Made::default().stream("/Filter/FlateDecode", &zeros).0[0].clone();
    let refused = read(&made.file(), &leash()).unwrap();
    assert!(refused.is_empty && refused.notes[0].contains("holds more"), "{refused:?}");
    made.0[8] = Made::default().stream("/Filter[/Fl/Fl/Fl]", &packed(&packed(&zeros))).0[0].clone();
    assert!(read(&made.file(), &leash()).unwrap().notes[0].contains("holds more"));
    let large = packed(&vec![b' '; 31 << 20]);
    made.0[8] = Made::default().stream("/Filter/FlateDecode", &large).0[0].clone();
    made.0[2] = format!("<</Type/Page/Contents[{}]>>", "9 0 R ".repeat(1000)).into_bytes();
    assert!(read(&made.file(), &leash()).unwrap().notes[0].contains("holds more"));
    // Streams that never end.
    let mut made = page(program);
    for _ in 0..20_000 {
        made.add("<<>>stream\n");
    }
    still(&made);
    assert!(began.elapsed() < PDF_TIME, "{:?}", began.elapsed());
}

#[test]
fn time_and_patience_end() {
    let long = "BT /F 12 Tf 72 700 Td (words) Tj ET ".repeat(20_000);
    let budget = Budget::new(leash(), Duration::ZERO);
    assert!(read_within(&page(&long).file(), &budget).unwrap_err().contains("took more than"));
    let cancelled = std::sync::Arc::new(true.into());
    let why = read(&page(&long).file(), &Leash::new(cancelled)).unwrap_err();
    assert!(why.contains("cancelled"), "{why}");
}

/// All that a page of ours has, for bytes to be changed in.
fn sample() -> Vec<u8> {
    let program = "BT /F 12 Tf 14 TL 72 700 Td [(wo)-20(rd)-300(next)] TJ T* /C 9 Tf <00010004> Tj ET q /X Do /Y Do Q";
    let mut made = page(program);
    // As it is, too: what is packed is mostly lost by a change.
    made.0[8] = Made::default().stream("", program.as_bytes()).0[0].clone();
    made.file()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nothing that a byte can be changed to, cut or put in makes it panic or take its time.
    #[test]
    fn broken_files_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..24),
        which in 0..3_u8,
    ) {
        let mut file = match which {
            0 => include_bytes!("../../../../tests/pdf/table.pdf").to_vec(),
            1 => include_bytes!("../../../../tests/pdf/typst.pdf").to_vec(),
            _ => sample(),
        };
        for (place, byte, how) in changes {
            let at = place.index(file.len());
            match how {
                0 => file[at] = byte,
                1 => file.insert(at, byte),
                2 => drop(file.remove(at)),
                _ => file.truncate(at.max(file.len() / 2)),
            }
        }
        let began = Instant::now();
        // What comes of it is not known; that it comes is.
        if let Ok(text) = read(&file, &leash()) {
            prop_assert!(text.pages > 0);
        }
        prop_assert!(began.elapsed() < PDF_TIME);
    }

    /// The readers of fonts and of streams get bytes that nobody wrote.
    #[test]
    fn noise_is_read_or_refused(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        for filter in ["FlateDecode", "LZWDecode", "ASCII85Decode", "ASCIIHexDecode", "RunLengthDecode"] {
            let mut made = page("");
            let settings = "/DecodeParms<</Predictor 15/Columns 3>>";
            made.0[8] = Made::default().stream(&format!("/Filter/{filter}{settings}"), &noise).0[0].clone();
            made.0[5] = Made::default().stream("", &noise).0[0].clone();
            prop_assert!(read(&made.file(), &leash()).is_ok());
        }
        cmap::CMap::read(&noise);
    }
}
