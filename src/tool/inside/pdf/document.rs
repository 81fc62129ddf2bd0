//! The objects of a file, and its pages.
//!
//! A file's own table of where its objects lie is not believed: it is what is wrong in most broken files, and its pieces may
//! form circles. The file is read from its beginning to its end once instead; of two objects with one number the later
//! counts, as it does in a file that was changed by appending to it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::filter;
use super::object::{Dict, Object, Reader};
use super::{Budget, Fault};
use crate::limits::{PDF_KEPT_BYTES, PDF_NESTING, PDF_OBJECTS, PDF_PAGES};

/// Where an object lies.
#[derive(Clone)]
enum Place {
    /// In the file, with the bytes that follow it if it is a stream.
    File { at: usize, stream: Option<(usize, usize)> },
    /// In what a stream of objects holds.
    Packed { stream: Rc<[u8]>, at: usize },
}

pub(super) struct Document<'b> {
    bytes: &'b [u8],
    places: HashMap<u32, Place>,
    root: Dict,
    pub(super) budget: &'b Budget,
}

/// A page, with the resources that it has or takes over.
pub(super) struct Page {
    pub(super) dict: Dict,
    pub(super) resources: Dict,
}

/// What was seen on the way through the file.
#[derive(Default)]
struct Seen {
    /// Dictionaries that may say where everything begins.
    trailers: Vec<Dict>,
    /// Streams of objects, in the order of the file.
    packed: Vec<u32>,
    catalog: Option<u32>,
}

impl<'b> Document<'b> {
    /// Finds everything in the file.
    pub(super) fn open(bytes: &'b [u8], budget: &'b Budget) -> Result<Self, Fault> {
        let mut document = Self { bytes, places: HashMap::new(), root: Dict::default(), budget };
        let mut seen = Seen::default();
        document.survey(&mut seen)?;
        if seen.trailers.iter().any(|trailer| *trailer.get("Encrypt") != Object::Null) {
            return Err(Fault::Locked);
        }
        document.unpack(&mut seen)?;
        let roots = seen.trailers.iter().rev().map(|trailer| trailer.get("Root").clone());
        let roots = roots.chain(seen.catalog.map(Object::Ref));
        let root = roots
            .filter_map(|root| document.dict(&root).ok())
            .find(|root| *root.get("Pages") != Object::Null);
        document.root = root.unwrap_or_default();
        Ok(document)
    }

    fn survey(&mut self, seen: &mut Seen) -> Result<(), Fault> {
        let mut at = 0;
        // From here on no stream ends.
        let mut endless = self.bytes.len();
        while let Some(found) = find(&self.bytes[at..], b"obj", b"trailer") {
            let begin = at + found;
            if self.bytes[begin] == b't' {
                at = begin + b"trailer".len();
                if let Some(Object::Dict(dict)) = Reader::file(self.bytes, at).next() {
                    seen.trailers.push(dict);
                }
                continue;
            }
            at = begin + b"obj".len();
            let Some(number) = number_before(&self.bytes[..begin]) else { continue };
            if self.places.len() >= PDF_OBJECTS {
                return Err(Fault::Size);
            }
            self.budget.check_now()?;
            let mut reader = Reader::file(self.bytes, at);
            let object = reader.next().unwrap_or_default();
            let mut stream = None;
            if let Object::Dict(dict) = &object {
                stream = self.stream_after(reader.at, dict, &mut endless);
                note(number, dict, stream.is_some(), seen);
            }
            self.places.insert(number, Place::File { at, stream });
            at = stream.map_or(at, |(_, end)| end);
        }
        Ok(())
    }

    /// Where the bytes of the stream lie whose dictionary ends there, if one follows it.
    fn stream_after(&self, at: usize, dict: &Dict, endless: &mut usize) -> Option<(usize, usize)> {
        let mut reader = Reader::file(self.bytes, at);
        reader.skip_space();
        if !reader.take(b"stream") {
            return None;
        }
        if !reader.take(b"\r\n") && !reader.take(b"\n") {
            reader.take(b"\r");
        }
        let start = reader.at;
        if let Some(end) = dict.get("Length").count().map(|length| start.saturating_add(length))
            && end <= self.bytes.len()
        {
            let mut after = Reader::file(self.bytes, end);
            after.skip_space();
            if after.take(b"endstream") {
                return Some((start, end));
            }
        }
        if start >= *endless {
            return Some((start, self.bytes.len()));
        }
        let end = find(&self.bytes[start..], b"endstream", b"endstream");
        if end.is_none() {
            *endless = start;
        }
        Some((start, end.map_or(self.bytes.len(), |end| start + end)))
    }

    /// Finds the objects within streams of objects. One that stands in the file itself, after the stream, is newer.
    fn unpack(&mut self, seen: &mut Seen) -> Result<(), Fault> {
        let mut room = PDF_KEPT_BYTES;
        for number in std::mem::take(&mut seen.packed) {
            let Some(Place::File { at: place, .. }) = self.places.get(&number).cloned() else {
                continue;
            };
            let Ok((dict, held)) = self.stream(&Object::Ref(number)) else {
                self.budget.check()?;
                continue;
            };
            room = room.checked_sub(held.len()).ok_or(Fault::Size)?;
            let count = self.resolve(dict.get("N"))?.count().unwrap_or(0).min(PDF_OBJECTS);
            let first = self.resolve(dict.get("First"))?.count().unwrap_or(0);
            let held: Rc<[u8]> = held.into();
            let mut index = Reader::program(&held);
            for _ in 0..count {
                let (Some(name), Some(at)) = (index.next(), index.next()) else { break };
                let (Some(name), Some(at)) = (name.count(), at.count()) else { break };
                let Ok(name) = u32::try_from(name) else { continue };
                let newer =
                    matches!(self.places.get(&name), Some(Place::File { at, .. }) if *at > place);
                if !newer {
                    let stream = Rc::clone(&held);
                    self.places.insert(name, Place::Packed { stream, at: first + at });
                }
                if self.places.len() > PDF_OBJECTS {
                    return Err(Fault::Size);
                }
            }
        }
        if seen.catalog.is_none() && seen.trailers.is_empty() {
            let is_catalog = |number: &&u32| {
                let dict = self.dict(&Object::Ref(**number));
                dict.is_ok_and(|dict| dict.get("Type").is("Catalog"))
            };
            seen.catalog = self.places.keys().find(is_catalog).copied();
        }
        Ok(())
    }

    /// The object itself, where a reference stands for it.
    pub(super) fn resolve(&self, object: &Object) -> Result<Object, Fault> {
        let Object::Ref(number) = object else { return Ok(object.clone()) };
        let mut number = *number;
        for _ in 0..PDF_NESTING {
            self.budget.check()?;
            let mut reader = match self.places.get(&number) {
                None => return Ok(Object::Null),
                Some(Place::File { at, .. }) => Reader::file(self.bytes, *at),
                Some(Place::Packed { stream, at }) => Reader::file(stream, *at),
            };
            match reader.next().unwrap_or_default() {
                Object::Ref(next) => number = next,
                // `endobj`: the object is empty.
                Object::Word(_) => return Ok(Object::Null),
                object => return Ok(object),
            }
        }
        Ok(Object::Null)
    }

    /// What stands under a key, resolved.
    pub(super) fn get(&self, dict: &Dict, key: &str) -> Result<Object, Fault> {
        self.resolve(dict.get(key))
    }

    pub(super) fn dict(&self, object: &Object) -> Result<Dict, Fault> {
        match self.resolve(object)? {
            Object::Dict(dict) => Ok(dict),
            _ => Err(Fault::Broken),
        }
    }

    /// The dictionary under a key; an empty one where there is none.
    pub(super) fn dict_of(&self, dict: &Dict, key: &str) -> Result<Dict, Fault> {
        match self.get(dict, key)? {
            Object::Dict(dict) => Ok(dict),
            _ => Ok(Dict::default()),
        }
    }

    /// The list under a key; a single object is a list of itself.
    pub(super) fn list(&self, dict: &Dict, key: &str) -> Result<Vec<Object>, Fault> {
        Ok(match self.get(dict, key)? {
            Object::Array(items) => items,
            Object::Null => Vec::new(),
            _ => vec![dict.get(key).clone()],
        })
    }

    /// The numbers of a list.
    pub(super) fn numbers(&self, dict: &Dict, key: &str) -> Result<Vec<f64>, Fault> {
        let items = self.list(dict, key)?;
        items.iter().map(|item| Ok(self.resolve(item)?.number().unwrap_or(0.0))).collect()
    }

    /// A stream's dictionary and its bytes, unpacked.
    pub(super) fn stream(&self, object: &Object) -> Result<(Dict, Vec<u8>), Fault> {
        let mut number = match object {
            Object::Ref(number) => *number,
            _ => return Err(Fault::Broken),
        };
        for _ in 0..PDF_NESTING {
            let Some(Place::File { at, stream }) = self.places.get(&number) else {
                return Err(Fault::Broken);
            };
            match (Reader::file(self.bytes, *at).next(), stream) {
                (Some(Object::Ref(next)), _) => number = next,
                (Some(Object::Dict(dict)), Some((start, end))) => {
                    let filters = self.filters(&dict)?;
                    let raw = &self.bytes[*start..*end];
                    return Ok((dict, filter::undo(raw, &filters, self.budget)?));
                }
                _ => return Err(Fault::Broken),
            }
        }
        Err(Fault::Broken)
    }

    fn filters(&self, dict: &Dict) -> Result<Vec<(String, Dict)>, Fault> {
        let resolved = |key, short| {
            let key = if *dict.get(key) == Object::Null { short } else { key };
            let items = self.list(dict, key)?;
            let items = items.iter().map(|item| self.resolve(item)).collect::<Result<_, _>>()?;
            Ok::<_, Fault>(Object::Array(items))
        };
        Ok(filter::named(&resolved("Filter", "F")?, &resolved("DecodeParms", "DP")?))
    }

    /// The dictionary of the form that the whole document is.
    pub(super) fn root(&self) -> &Dict {
        &self.root
    }

    /// All pages in their order.
    pub(super) fn pages(&self) -> Result<Vec<Page>, Fault> {
        let mut pages = Vec::new();
        let mut visited = HashSet::new();
        self.pages_below(
            self.root.get("Pages"),
            &Dict::default(),
            PDF_NESTING,
            &mut visited,
            &mut pages,
        )?;
        if pages.is_empty() {
            self.loose_pages(&mut pages)?;
        }
        Ok(pages)
    }

    fn pages_below(
        &self,
        node: &Object,
        above: &Dict,
        depth: usize,
        visited: &mut HashSet<u32>,
        pages: &mut Vec<Page>,
    ) -> Result<(), Fault> {
        let is_new = match node {
            Object::Ref(number) => visited.insert(*number),
            _ => true,
        };
        let Some(depth) = depth.checked_sub(1).filter(|_| is_new && pages.len() < PDF_PAGES) else {
            return Ok(());
        };
        let Object::Dict(dict) = self.resolve(node)? else { return Ok(()) };
        let resources = match self.get(&dict, "Resources")? {
            Object::Dict(own) => own,
            _ => above.clone(),
        };
        let kids = self.list(&dict, "Kids")?;
        if kids.is_empty() && !dict.get("Type").is("Pages") {
            pages.push(Page { dict, resources });
            return Ok(());
        }
        for kid in kids {
            self.pages_below(&kid, &resources, depth, visited, pages)?;
        }
        Ok(())
    }

    /// The pages of a file whose tree of them is broken, in the order of their numbers.
    fn loose_pages(&self, pages: &mut Vec<Page>) -> Result<(), Fault> {
        let mut numbers: Vec<_> = self.places.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Object::Dict(dict) = self.resolve(&Object::Ref(number))? else { continue };
            if dict.get("Type").is("Page") && pages.len() < PDF_PAGES {
                let resources = self.dict_of(&dict, "Resources")?;
                pages.push(Page { dict, resources });
            }
        }
        Ok(())
    }
}

fn note(number: u32, dict: &Dict, is_stream: bool, seen: &mut Seen) {
    match dict.get("Type").name() {
        Some("ObjStm") if is_stream => seen.packed.push(number),
        Some("XRef") if is_stream => seen.trailers.push(dict.clone()),
        Some("Catalog") => seen.catalog = Some(number),
        _ => {}
    }
}

/// Where the first of the two words stands.
fn find(bytes: &[u8], one: &[u8], other: &[u8]) -> Option<usize> {
    let (first, second) = (one[0], other[0]);
    let stands = |at: &usize| {
        let here = bytes[*at];
        (here == first && bytes[*at..].starts_with(one))
            || (here == second && bytes[*at..].starts_with(other))
    };
    (0..bytes.len()).find(stands)
}

/// The number of an object, of what stands before its `obj`: `12 0 `.
fn number_before(bytes: &[u8]) -> Option<u32> {
    let spaces =
        |bytes: &[u8]| bytes.iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    let digits = |bytes: &[u8]| bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    // A generation and a number have so many digits at most, and nobody writes long gaps.
    let mut rest = &bytes[bytes.len().saturating_sub(32)..];
    rest = &rest[..rest.len() - spaces(rest)];
    let generation = digits(rest);
    rest = &rest[..rest.len() - generation];
    let gap = spaces(rest);
    rest = &rest[..rest.len() - gap];
    let number = digits(rest);
    if generation == 0 || gap == 0 || number == 0 {
        return None;
    }
    std::str::from_utf8(&rest[rest.len() - number..]).ok()?.parse().ok()
}
