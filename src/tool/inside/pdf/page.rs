//! What a page shows, by running its program: pieces of text, each with its place.

use std::rc::Rc;

use super::document::{Document, Page};
use super::font::{Font, Fonts, Glyph};
use super::layout::{Fragment, Pen};
use super::object::{Dict, Object, Reader};
use super::{Fault, encoding};
use crate::limits::{PDF_FORMS, PDF_OPERANDS, PDF_STATES};

/// What a page shows.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) fragments: Vec<Fragment>,
    /// Images; there may be text in them.
    pub(super) images: usize,
    /// Characters that nothing says the meaning of.
    pub(super) unknown: usize,
}

/// Runs the page's program, and what its form fields look like.
pub(super) fn show(
    document: &Document<'_>,
    page: &Page,
    fonts: &mut Fonts,
) -> Result<Shown, Fault> {
    let mut program = Vec::new();
    for part in document.list(&page.dict, "Contents")? {
        match document.stream(&part) {
            Ok((_, bytes)) => program.extend(bytes),
            Err(Fault::Broken) => continue,
            Err(fault) => return Err(fault),
        }
        program.push(b' ');
    }
    let mut run =
        Run { document, fonts, pen: Pen::default(), images: 0, unknown: 0, open: Vec::new() };
    run.program(&program, &page.resources, Matrix::ONE)?;
    for field in document.list(&page.dict, "Annots")? {
        match run.field(&field) {
            Ok(()) | Err(Fault::Broken) => {}
            Err(fault) => return Err(fault),
        }
    }
    let Run { pen, images, unknown, .. } = run;
    Ok(Shown { fragments: pen.finish(), images, unknown })
}

/// A change of coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Matrix([f64; 6]);

impl Matrix {
    const ONE: Self = Self([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);

    fn of(numbers: &[f64]) -> Option<Self> {
        numbers.try_into().ok().map(Self)
    }

    fn moved(self, x: f64, y: f64) -> Self {
        Self([1.0, 0.0, 0.0, 1.0, x, y]).then(self)
    }

    /// First this one, then the other.
    fn then(self, other: Self) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.0, other.0);
        Self([
            a * g + b * i,
            a * h + b * j,
            c * g + d * i,
            c * h + d * j,
            e * g + f * i + k,
            e * h + f * j + l,
        ])
    }

    fn place(self, x: f64, y: f64) -> (f64, f64) {
        let [a, b, c, d, e, f] = self.0;
        (a * x + c * y + e, b * x + d * y + f)
    }

    /// How much longer what stands upright becomes.
    fn height(self) -> f64 {
        self.0[2].hypot(self.0[3])
    }
}

/// What `q` keeps and `Q` brings back.
#[derive(Clone)]
struct State {
    page: Matrix,
    font: Rc<Font>,
    size: f64,
    character_space: f64,
    word_space: f64,
    stretch: f64,
    leading: f64,
    rise: f64,
}

struct Run<'r, 'b> {
    document: &'r Document<'b>,
    fonts: &'r mut Fonts,
    pen: Pen,
    images: usize,
    unknown: usize,
    /// Forms that are being drawn, one within the other.
    open: Vec<u32>,
}

/// The text that the file says to stand for what is shown in between.
struct Meant {
    /// How many marks were open when it began.
    depth: usize,
    /// Until it was said.
    text: Option<String>,
}

/// One program on its way.
struct Program<'p> {
    resources: &'p Dict,
    state: State,
    kept: Vec<State>,
    /// Where the next character and where the line begins.
    text: Matrix,
    line: Matrix,
    marks: usize,
    meant: Option<Meant>,
}

impl Run<'_, '_> {
    fn program(&mut self, bytes: &[u8], resources: &Dict, page: Matrix) -> Result<(), Fault> {
        let state = State {
            page,
            font: Rc::new(Font::none()),
            size: 1.0,
            character_space: 0.0,
            word_space: 0.0,
            stretch: 1.0,
            leading: 0.0,
            rise: 0.0,
        };
        let mut program = Program {
            resources,
            state,
            kept: Vec::new(),
            text: Matrix::ONE,
            line: Matrix::ONE,
            marks: 0,
            meant: None,
        };
        let mut reader = Reader::program(bytes);
        let mut operands = Vec::new();
        while let Some(object) = reader.next() {
            let Object::Word(word) = object else {
                operands.push(object);
                if operands.len() > PDF_OPERANDS {
                    operands.remove(0);
                }
                continue;
            };
            self.document.budget.step()?;
            match word.as_slice() {
                b"ID" => reader.skip_image(),
                // What is drawn and not written is none of ours; what is wrong with one operator is its own affair.
                word => match self.operator(word, &operands, &mut program) {
                    Ok(()) | Err(Fault::Broken) => {}
                    Err(fault) => return Err(fault),
                },
            }
            operands.clear();
        }
        Ok(())
    }

    fn operator(
        &mut self,
        word: &[u8],
        operands: &[Object],
        program: &mut Program<'_>,
    ) -> Result<(), Fault> {
        let number = |at: usize| operands.get(at).and_then(Object::number).unwrap_or(0.0);
        let last = operands.last().unwrap_or(&Object::Null);
        let matrix = || {
            let numbers: Vec<_> = operands.iter().filter_map(Object::number).collect();
            Matrix::of(&numbers).ok_or(Fault::Broken)
        };
        match word {
            b"q" if program.kept.len() < PDF_STATES => program.kept.push(program.state.clone()),
            b"Q" => program.state = program.kept.pop().ok_or(Fault::Broken)?,
            b"cm" => program.state.page = matrix()?.then(program.state.page),
            b"BT" => (program.text, program.line) = (Matrix::ONE, Matrix::ONE),
            b"Tf" => {
                program.state.size = number(1);
                let name = operands.first().and_then(Object::name).ok_or(Fault::Broken)?;
                let fonts = self.document.dict_of(program.resources, "Font")?;
                program.state.font = self.fonts.get(self.document, fonts.get(name))?;
            }
            b"Tc" => program.state.character_space = number(0),
            b"Tw" => program.state.word_space = number(0),
            b"Tz" => program.state.stretch = number(0) / 100.0,
            b"TL" => program.state.leading = number(0),
            b"Ts" => program.state.rise = number(0),
            b"Td" => program.move_line(number(0), number(1)),
            b"TD" => {
                program.state.leading = -number(1);
                program.move_line(number(0), number(1));
            }
            b"Tm" => {
                program.line = matrix()?;
                program.text = program.line;
            }
            b"T*" => program.next_line(),
            b"Tj" => self.show(last, program)?,
            b"'" => {
                program.next_line();
                self.show(last, program)?;
            }
            b"\"" => {
                program.state.word_space = number(0);
                program.state.character_space = number(1);
                program.next_line();
                self.show(last, program)?;
            }
            b"TJ" => self.show_all(last, program)?,
            b"Do" => {
                let objects = self.document.dict_of(program.resources, "XObject")?;
                self.draw(objects.get(last.name().ok_or(Fault::Broken)?), program)?;
            }
            b"EI" => self.images += 1,
            b"BMC" => program.marks += 1,
            b"BDC" => {
                program.marks += 1;
                self.begin_meant(last, program)?;
            }
            b"EMC" => {
                program.marks = program.marks.saturating_sub(1);
                if program.meant.as_ref().is_some_and(|meant| meant.depth > program.marks) {
                    program.meant = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A mark may say which text stands for what is shown until it ends: a ligature, a word without its hyphen.
    fn begin_meant(&self, properties: &Object, program: &mut Program<'_>) -> Result<(), Fault> {
        if program.meant.is_some() {
            return Ok(());
        }
        let properties = match properties {
            Object::Name(_) => {
                let named = self.document.dict_of(program.resources, "Properties")?;
                self.document.dict(named.get(properties.name().ok_or(Fault::Broken)?))?
            }
            other => self.document.dict(other)?,
        };
        if let Object::Text(text) = self.document.get(&properties, "ActualText")? {
            let text = Some(encoding::text(&text));
            program.meant = Some(Meant { depth: program.marks, text });
        }
        Ok(())
    }

    fn show_all(&mut self, items: &Object, program: &mut Program<'_>) -> Result<(), Fault> {
        let Object::Array(items) = items else { return Err(Fault::Broken) };
        for item in items {
            match item.number() {
                Some(back) => {
                    let State { size, stretch, .. } = program.state;
                    program.text = program.text.moved(-back / 1000.0 * size * stretch, 0.0);
                }
                None => self.show(item, program)?,
            }
        }
        Ok(())
    }

    fn show(&mut self, string: &Object, program: &mut Program<'_>) -> Result<(), Fault> {
        let Object::Text(string) = string else { return Err(Fault::Broken) };
        let font = Rc::clone(&program.state.font);
        font.each(string, |glyph| {
            self.document.budget.step()?;
            self.write(&glyph, program)
        })
    }

    /// Writes one character and goes on to the place of the next.
    fn write(&mut self, glyph: &Glyph<'_>, program: &mut Program<'_>) -> Result<(), Fault> {
        let state = &program.state;
        let whole = program.text.then(state.page);
        let space = state.character_space + if glyph.is_space { state.word_space } else { 0.0 };
        let width = glyph.width * state.size * state.stretch;
        let from = whole.place(0.0, state.rise);
        let to = whole.place(width, state.rise);
        let size = (state.size * whole.height()).abs();
        program.text = program.text.moved(width + space * state.stretch, 0.0);
        let text = match &mut program.meant {
            Some(meant) => &meant.text.take().unwrap_or_default(),
            None => match &glyph.text {
                Some(text) => text.as_ref(),
                None => {
                    self.unknown += 1;
                    ""
                }
            },
        };
        self.pen.write(text, from, to, size)
    }

    /// Runs a form, or counts an image.
    fn draw(&mut self, object: &Object, program: &Program<'_>) -> Result<(), Fault> {
        let dict = self.document.dict(object)?;
        if dict.get("Subtype").is("Image") {
            self.images += 1;
            return Ok(());
        }
        let own = self.document.numbers(&dict, "Matrix")?;
        let page = Matrix::of(&own).unwrap_or(Matrix::ONE).then(program.state.page);
        self.form(object, program.resources, page)
    }

    fn form(&mut self, object: &Object, outer: &Dict, page: Matrix) -> Result<(), Fault> {
        let Object::Ref(number) = object else { return Err(Fault::Broken) };
        if self.open.contains(number) || self.open.len() >= PDF_FORMS {
            return Err(Fault::Broken);
        }
        let (dict, bytes) = self.document.stream(object)?;
        let resources = match self.document.get(&dict, "Resources")? {
            Object::Dict(own) => own,
            _ => outer.clone(),
        };
        self.open.push(*number);
        let outcome = self.program(&bytes, &resources, page);
        self.open.pop();
        outcome
    }

    /// What a form field looks like: whoever filled it in, wrote there.
    fn field(&mut self, object: &Object) -> Result<(), Fault> {
        let document = self.document;
        let dict = document.dict(object)?;
        let kind = document.get(&dict, "Subtype")?;
        if !kind.is("Widget") && !kind.is("FreeText") {
            return Ok(());
        }
        let mut looks = document.dict_of(&dict, "AP")?.get("N").clone();
        if let Some(state) = document.get(&dict, "AS")?.name()
            && document.stream(&looks).is_err()
        {
            looks = document.dict(&looks)?.get(state).clone();
        }
        let corner = |numbers: Vec<f64>| match numbers[..] {
            [a, b, c, d] => Ok((a.min(c), b.min(d))),
            _ => Err(Fault::Broken),
        };
        let (x, y) = corner(document.numbers(&dict, "Rect")?)?;
        let form = document.dict(&looks)?;
        let own = Matrix::of(&document.numbers(&form, "Matrix")?).unwrap_or(Matrix::ONE);
        let (left, low) = corner(document.numbers(&form, "BBox")?)?;
        let (left, low) = own.place(left, low);
        let page = own.then(Matrix([1.0, 0.0, 0.0, 1.0, x - left, y - low]));
        let defaults = document.dict_of(document.root(), "AcroForm")?;
        let resources = document.dict_of(&defaults, "DR")?;
        self.form(&looks, &resources, page)
    }
}

impl Program<'_> {
    fn move_line(&mut self, x: f64, y: f64) {
        self.line = self.line.moved(x, y);
        self.text = self.line;
    }

    fn next_line(&mut self) {
        self.move_line(0.0, -self.state.leading);
    }
}
