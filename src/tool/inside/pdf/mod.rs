//! A PDF as text, with what reads it: for models that take no documents, and for documents that are too large to be given.
//!
//! Owns: the file's objects ([`document`], [`object`], [`filter`]), what its fonts say about characters ([`font`], [`cmap`],
//! [`encoding`]), what its pages show ([`page`]), and the order in which a person would read that ([`layout`]).
//! Does not: look at images, decrypt what needs a password, or draw.
//! Invariants: a PDF is a stranger's input. Everything that is unpacked, kept, nested, looped over or waited for has a bound,
//! all of them in one [`Budget`]; what is broken is passed over, and what was not shown is said.

mod cmap;
mod document;
mod encoding;
mod filter;
mod font;
mod layout;
mod object;
mod page;
mod widths;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::time::{Duration, Instant};

use document::Document;

use super::Leash;
use crate::limits::{PDF_OPERATORS, PDF_TEXT_BYTES, PDF_TIME, PDF_UNPACKED_BYTES};

/// Why something of a file cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// This part makes no sense; others may.
    Broken,
    /// It needs a password.
    Locked,
    /// It is larger than anything honest.
    Size,
    /// It took too long.
    Time,
    /// Nobody waits any more.
    Cancelled,
}

/// What may still be spent on a file.
struct Budget {
    leash: Leash,
    deadline: Instant,
    unpacked: Cell<usize>,
    operators: Cell<usize>,
    checks: Cell<u32>,
}

/// Looks at the clock once in so many checks.
const CHECKS: u32 = 64;

impl Budget {
    fn new(leash: Leash, time: Duration) -> Self {
        Self {
            leash,
            deadline: Instant::now() + time,
            unpacked: Cell::new(PDF_UNPACKED_BYTES),
            operators: Cell::new(PDF_OPERATORS),
            checks: Cell::new(0),
        }
    }

    #[cfg(test)]
    fn test() -> Self {
        Self::new(Leash::new(std::sync::Arc::default()), PDF_TIME)
    }

    /// Whether there is time left, for steps of which there are many.
    fn check(&self) -> Result<(), Fault> {
        let checks = self.checks.get();
        self.checks.set(checks.wrapping_add(1));
        if checks.is_multiple_of(CHECKS) { self.check_now() } else { Ok(()) }
    }

    fn check_now(&self) -> Result<(), Fault> {
        if Instant::now() > self.deadline {
            return Err(Fault::Time);
        }
        self.leash.check().map_err(|_| Fault::Cancelled)
    }

    /// Counts what a stream was unpacked to, and what one costs however small it is.
    fn unpack(&self, bytes: usize) -> Result<(), Fault> {
        const LEAST: usize = 64;
        let left = self.unpacked.get().checked_sub(bytes.max(LEAST)).ok_or(Fault::Size)?;
        self.unpacked.set(left);
        self.check_now()
    }

    /// Counts one step of a page's program.
    fn step(&self) -> Result<(), Fault> {
        self.operators.set(self.operators.get().checked_sub(1).ok_or(Fault::Size)?);
        self.check()
    }
}

/// The text of a PDF.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// Page for page.
    pub(super) text: String,
    /// Pages of the file.
    pub(super) pages: usize,
    /// What is not in the text, in sentences.
    pub(super) notes: Vec<String>,
    /// Whether no page had any text.
    pub(super) is_empty: bool,
}

/// Whether the bytes say that they are a PDF.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(b"%PDF-")
}

/// How many pages the file has.
pub(super) fn pages(bytes: &[u8], leash: &Leash) -> Result<usize, String> {
    let budget = Budget::new(leash.clone(), PDF_TIME);
    let pages = Document::open(bytes, &budget).and_then(|document| document.pages());
    Ok(pages.map_err(why).and_then(some)?.len())
}

/// Makes text of the file.
pub(super) fn read(bytes: &[u8], leash: &Leash) -> Result<Text, String> {
    read_within(bytes, &Budget::new(leash.clone(), PDF_TIME))
}

fn read_within(bytes: &[u8], budget: &Budget) -> Result<Text, String> {
    let document = Document::open(bytes, budget).map_err(why)?;
    let pages = document.pages().map_err(why).and_then(some)?;
    let mut fonts = font::Fonts::default();
    let mut told = Text { pages: pages.len(), is_empty: true, ..Text::default() };
    let (mut pictures, mut unknown) = (Vec::new(), 0);
    for (i, page) in pages.iter().enumerate() {
        let number = i + 1;
        let shown = match page::show(&document, page, &mut fonts) {
            Ok(shown) => shown,
            Err(Fault::Cancelled) => return Err("The call was cancelled.".to_owned()),
            Err(fault) => {
                told.notes
                    .push(format!("page {number} and what follows are missing: {}", why(fault)));
                break;
            }
        };
        unknown += shown.unknown;
        let text = layout::text(shown.fragments);
        told.is_empty &= text.is_empty();
        if text.is_empty() && shown.images > 0 {
            pictures.push(number);
        }
        if pages.len() > 1 {
            told.text.push_str(&format!("[page {number}]\n"));
        }
        told.text.push_str(&text);
        told.text.push_str("\n\n");
        if told.text.len() > PDF_TEXT_BYTES && number < pages.len() {
            told.notes.push(format!("only the first {number} of {} pages are here", pages.len()));
            break;
        }
    }
    told.notes.extend(of_pictures(&pictures));
    if unknown > 0 {
        told.notes.push(format!(
            "{unknown} characters are left out: their fonts do not say which ones they are"
        ));
    }
    told.text.truncate(told.text.trim_end().len());
    Ok(told)
}

fn of_pictures(pages: &[usize]) -> Option<String> {
    /// Pages that are named.
    const NAMED: usize = 20;
    let names: Vec<_> = pages.iter().take(NAMED).map(usize::to_string).collect();
    let more = match pages.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!pages.is_empty()).then(|| format!("no text, only images, on page {}{more}", names.join(", ")))
}

fn some(pages: Vec<document::Page>) -> Result<Vec<document::Page>, String> {
    if pages.is_empty() { Err(why(Fault::Broken)) } else { Ok(pages) }
}

/// The fault in words.
fn why(fault: Fault) -> String {
    match fault {
        Fault::Broken => "it is broken: no page can be found in it".to_owned(),
        Fault::Locked => "it is encrypted".to_owned(),
        Fault::Size => "it holds more than a document can".to_owned(),
        Fault::Time => format!("it took more than {} s", PDF_TIME.as_secs()),
        Fault::Cancelled => "the call was cancelled".to_owned(),
    }
}
