//! Fonts, as far as text needs them: which characters the codes of a string are, and how wide.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use encoding_rs::{BIG5, EUC_KR, Encoding, GBK, SHIFT_JIS};

use super::cmap::CMap;
use super::document::Document;
use super::encoding::{self, Known};
use super::object::{Dict, Object, Reader};
use super::{Fault, widths};
use crate::limits::{PDF_CMAP_ENTRIES, PDF_FONTS};

/// The fonts that were met, by the number of their object.
#[derive(Default)]
pub(super) struct Fonts(HashMap<u32, Rc<Font>>);

impl Fonts {
    pub(super) fn get(
        &mut self,
        document: &Document<'_>,
        object: &Object,
    ) -> Result<Rc<Font>, Fault> {
        let Object::Ref(number) = object else {
            return Ok(Rc::new(Font::read(document, &document.dict(object)?)?));
        };
        if let Some(font) = self.0.get(number) {
            return Ok(Rc::clone(font));
        }
        // A document of so many may have each of them read again.
        if self.0.len() >= PDF_FONTS {
            self.0.clear();
        }
        let font = Rc::new(Font::read(document, &document.dict(object)?)?);
        self.0.insert(*number, Rc::clone(&font));
        Ok(font)
    }
}

/// A character of a string.
pub(super) struct Glyph<'f> {
    /// What it stands for, if anything says it.
    pub(super) text: Option<std::borrow::Cow<'f, str>>,
    /// How far it leads, in parts of the font's size.
    pub(super) width: f64,
    /// Whether it is the one that word spacing is for.
    pub(super) is_space: bool,
}

pub(super) struct Font {
    codes: Codes,
    unicode: Option<CMap>,
    widths: Widths,
}

/// How strings are cut into codes, and what those are where no map to Unicode says it.
enum Codes {
    /// A byte each.
    Bytes(Vec<Option<String>>),
    /// Two bytes each, which are numbers of glyphs.
    Pairs,
    /// As the font's own map has it.
    Mapped(CMap),
    /// Text in an encoding of the language.
    Language(&'static Encoding),
}

enum Widths {
    Bytes {
        first: usize,
        widths: Vec<f64>,
        missing: f64,
    },
    /// None are given: those of a font of that name.
    Named(String),
    /// By the first glyph of a range: the last one, and the width.
    Glyphs {
        usual: f64,
        ranges: BTreeMap<u32, (u32, f64)>,
    },
}

impl Font {
    /// What is used before any font was chosen.
    pub(super) fn none() -> Self {
        let codes = Codes::Bytes(table(Known::Standard));
        Self { codes, unicode: None, widths: Widths::Named(String::new()) }
    }

    fn read(document: &Document<'_>, dict: &Dict) -> Result<Self, Fault> {
        let unicode = map(document, dict.get("ToUnicode"))?;
        if dict.get("Subtype").is("Type0") {
            let below = document.list(dict, "DescendantFonts")?;
            let below = below.first().map(|font| document.dict(font)).transpose()?;
            let below = below.unwrap_or_default();
            let codes = composite(document, dict)?;
            return Ok(Self { codes, unicode, widths: glyph_widths(document, &below)? });
        }
        let codes = Codes::Bytes(simple(document, dict)?);
        Ok(Self { codes, unicode, widths: byte_widths(document, dict)? })
    }

    /// Says each character of the string.
    pub(super) fn each(
        &self,
        string: &[u8],
        mut say: impl FnMut(Glyph<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut rest = string;
        while !rest.is_empty() {
            let (code, length) = self.first(rest);
            let bytes = &rest[..length];
            rest = &rest[length.max(1)..];
            let said = self.unicode.as_ref().and_then(|map| map.unicode(code));
            let said = said.filter(|text| !text.is_empty() && text != "\0").map(Into::into);
            let text = said.or_else(|| self.own(code, bytes));
            let is_space = length == 1 && code == u32::from(b' ');
            say(Glyph { text, width: self.width(code), is_space })?;
        }
        Ok(())
    }

    fn first(&self, bytes: &[u8]) -> (u32, usize) {
        let code = |bytes: &[u8]| bytes.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
        let length = match &self.codes {
            Codes::Bytes(_) => 1,
            Codes::Pairs => 2,
            Codes::Mapped(map) => return map.first(bytes),
            Codes::Language(encoding) => length_in(encoding, bytes[0]),
        };
        let length = length.min(bytes.len());
        (code(&bytes[..length]), length)
    }

    fn own(&self, code: u32, bytes: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
        match &self.codes {
            Codes::Bytes(table) => Some(table.get(usize::try_from(code).ok()?)?.as_deref()?.into()),
            Codes::Pairs | Codes::Mapped(_) => None,
            Codes::Language(encoding) => {
                let (text, broken) = encoding.decode_without_bom_handling(bytes);
                (!broken).then(|| text.into_owned().into())
            }
        }
    }

    fn width(&self, code: u32) -> f64 {
        match &self.widths {
            Widths::Bytes { first, widths, missing } => {
                let at = usize::try_from(code).ok().and_then(|code| code.checked_sub(*first));
                at.and_then(|at| widths.get(at)).copied().unwrap_or(*missing)
            }
            Widths::Named(name) => widths::of(name, u8::try_from(code).unwrap_or_default()),
            Widths::Glyphs { usual, ranges } => {
                let glyph = match &self.codes {
                    Codes::Mapped(map) => map.number(code).unwrap_or(code),
                    Codes::Bytes(_) | Codes::Pairs | Codes::Language(_) => code,
                };
                let found = ranges.range(..=glyph).next_back();
                found.filter(|(_, (to, _))| glyph <= *to).map_or(*usual, |(_, (_, width))| *width)
            }
        }
    }
}

/// Bytes of a character that begins so.
fn length_in(encoding: &'static Encoding, byte: u8) -> usize {
    let alone = byte < 0x80 || (encoding == SHIFT_JIS && (0xa0..0xe0).contains(&byte));
    if alone && encoding != encoding_rs::UTF_16BE { 1 } else { 2 }
}

fn map(document: &Document<'_>, object: &Object) -> Result<Option<CMap>, Fault> {
    match document.stream(object) {
        Ok((_, program)) => Ok(Some(CMap::read(&program))),
        Err(Fault::Broken) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn composite(document: &Document<'_>, dict: &Dict) -> Result<Codes, Fault> {
    if let Some(map) = map(document, dict.get("Encoding"))? {
        return Ok(if map.has_spaces() { Codes::Mapped(map) } else { Codes::Pairs });
    }
    let encoding = document.get(dict, "Encoding")?;
    let name = encoding.name().unwrap_or("Identity-H");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    Ok(if has(&["UCS2", "UTF16"]) {
        Codes::Language(encoding_rs::UTF_16BE)
    } else if has(&["RKSJ"]) {
        Codes::Language(SHIFT_JIS)
    } else if has(&["GBK", "GB-EUC"]) {
        Codes::Language(GBK)
    } else if has(&["B5pc", "ETen", "HKscs"]) {
        Codes::Language(BIG5)
    } else if has(&["KSC"]) {
        Codes::Language(EUC_KR)
    } else {
        Codes::Pairs
    })
}

fn table(known: Known) -> Vec<Option<String>> {
    (0..=u8::MAX).map(|code| known.character(code).map(String::from)).collect()
}

/// What the bytes of a simple font stand for: its own encoding, then what the file says that differs.
fn simple(document: &Document<'_>, dict: &Dict) -> Result<Vec<Option<String>>, Fault> {
    let said = document.get(dict, "Encoding")?;
    let name = document.get(dict, "BaseFont")?.name().unwrap_or_default().to_owned();
    let descriptor = document.dict_of(dict, "FontDescriptor")?;
    let (base, differences) = match said {
        Object::Name(_) => (said, Vec::new()),
        Object::Dict(dict) => {
            (document.get(&dict, "BaseEncoding")?, document.list(&dict, "Differences")?)
        }
        _ => (Object::Null, Vec::new()),
    };
    let mut codes = match base.name().and_then(Known::named) {
        Some(known) => table(known),
        None if name.contains("Symbol") => table(Known::Symbol),
        None if name.contains("Dingbats") => table(Known::Dingbats),
        None if document.get(dict, "Subtype")?.is("TrueType") => table(Known::Windows),
        None => match built_in(document, &descriptor)? {
            Some(codes) => codes,
            None => table(Known::Standard),
        },
    };
    let mut at = 0;
    for item in differences {
        match document.resolve(&item)? {
            Object::Name(name) => {
                if let (Some(code), Ok(name)) = (codes.get_mut(at), std::str::from_utf8(&name)) {
                    *code = encoding::of_name(name);
                }
                at += 1;
            }
            other => at = other.count().unwrap_or(at),
        }
    }
    Ok(codes)
}

/// The encoding that a font of Type 1 says in its own program: `dup 65 /A put`.
fn built_in(
    document: &Document<'_>,
    descriptor: &Dict,
) -> Result<Option<Vec<Option<String>>>, Fault> {
    let program = match document.stream(descriptor.get("FontFile")) {
        Ok((_, program)) => program,
        Err(Fault::Broken) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let head = program.windows(5).position(|words| words == b"eexec").unwrap_or(program.len());
    let head = &program[..head];
    let Some(start) = head.windows(9).position(|words| words == b"/Encoding") else {
        return Ok(None);
    };
    let mut reader = Reader::program(&head[start + 9..]);
    let mut codes: Vec<Option<String>> = vec![None; 256];
    let mut last = [Object::Null, Object::Null];
    while let Some(object) = reader.next() {
        match &object {
            Object::Word(word) if word == b"StandardEncoding" => return Ok(None),
            Object::Word(word) if word == b"def" || word == b"readonly" => break,
            Object::Word(word) if word == b"put" => {
                let [code, name] = &last;
                if let Some(place) = code.count().and_then(|code| codes.get_mut(code)) {
                    *place = name.name().and_then(encoding::of_name);
                }
            }
            _ => {}
        }
        last = [std::mem::take(&mut last[1]), object];
    }
    Ok(Some(codes))
}

fn byte_widths(document: &Document<'_>, dict: &Dict) -> Result<Widths, Fault> {
    let given = document.numbers(dict, "Widths")?;
    if given.is_empty() {
        let name = document.get(dict, "BaseFont")?;
        return Ok(Widths::Named(name.name().unwrap_or_default().to_owned()));
    }
    // Fonts that are drawn by the page's own program measure in units of their own.
    let unit = match document.numbers(dict, "FontMatrix")?.first() {
        Some(unit) if dict.get("Subtype").is("Type3") => unit.abs(),
        _ => 0.001,
    };
    let descriptor = document.dict_of(dict, "FontDescriptor")?;
    let missing = document.get(&descriptor, "MissingWidth")?.number().unwrap_or(0.0);
    let first = document.get(dict, "FirstChar")?.count().unwrap_or(0);
    let widths = given.into_iter().take(256).map(|width| width * unit).collect();
    Ok(Widths::Bytes { first, widths, missing: missing * unit })
}

fn glyph_widths(document: &Document<'_>, dict: &Dict) -> Result<Widths, Fault> {
    let usual = document.get(dict, "DW")?.number().unwrap_or(1000.0) / 1000.0;
    let mut ranges = BTreeMap::new();
    let mut given = document.list(dict, "W")?.into_iter();
    let number = |object: Option<Object>| {
        let count = document.resolve(&object?).ok()?.count()?;
        u32::try_from(count).ok()
    };
    while let Some(first) = number(given.next()) {
        let Some(second) = given.next() else { break };
        match document.resolve(&second)? {
            Object::Array(widths) => {
                for (glyph, width) in (first..).zip(widths) {
                    let width = document.resolve(&width)?.number().unwrap_or(0.0) / 1000.0;
                    ranges.insert(glyph, (glyph, width));
                }
            }
            last => {
                let (Some(last), Some(width)) = (number(Some(last)), given.next()) else { break };
                let width = document.resolve(&width)?.number().unwrap_or(0.0) / 1000.0;
                ranges.insert(first, (last, width));
            }
        }
        if ranges.len() > PDF_CMAP_ENTRIES {
            break;
        }
    }
    Ok(Widths::Glyphs { usual, ranges })
}
