//! Pieces of text with their places become lines in the order in which a person reads them.
//!
//! Files write text in any order and in any pieces, often without spaces. Characters that follow each other are put together
//! as they come; pieces are then ordered by where they lie: from the top down, and column by column where text flows in
//! columns. The cells of a table stay rows.

use super::Fault;
use crate::limits::PDF_FRAGMENTS;

/// A gap of so many parts of the text's size is a space.
const SPACE: f64 = 0.15;
/// A gap of so many is no space any more: another cell, another column.
const CELL: f64 = 2.0;
/// The least room between columns.
const GUTTER: f64 = 1.0;
/// Lines that a column has at least, and its width: all else is a table or a list.
const COLUMN_LINES: usize = 4;
const COLUMN_WIDTH: f64 = 10.0;
/// The share of a column that its lines fill, on average.
const COLUMN_FILLED: f64 = 0.5;
/// Columns within columns.
const DEPTH: usize = 6;
/// How far lines of one paragraph are apart at most, in parts of their size.
const LEADING: f64 = 1.75;

/// A piece of text on one line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fragment {
    text: String,
    /// Along the line.
    left: f64,
    right: f64,
    /// Upwards.
    base: f64,
    size: f64,
    /// Quarter turns to the left.
    turn: u8,
}

impl Fragment {
    fn top(&self) -> f64 {
        self.base + 0.7 * self.size
    }

    fn bottom(&self) -> f64 {
        self.base - 0.2 * self.size
    }
}

/// Puts characters together that follow one another.
#[derive(Default)]
pub(super) struct Pen {
    done: Vec<Fragment>,
    now: Option<Fragment>,
    /// Where the last character began.
    last: f64,
}

impl Pen {
    /// Writes a character, or nothing that takes room.
    pub(super) fn write(
        &mut self,
        text: &str,
        from: (f64, f64),
        to: (f64, f64),
        size: f64,
    ) -> Result<(), Fault> {
        /// Beyond this no page goes, and the arithmetic goes wrong.
        const FAR: f64 = 1e7;
        if ![from.0, from.1, to.0, to.1, size].iter().all(|number| number.abs() < FAR) {
            return Ok(());
        }
        let turn = self.turn(to.0 - from.0, to.1 - from.1);
        let ((left, base), (right, _)) = (turned(from, turn), turned(to, turn));
        let size = size.max(0.1);
        if let Some(now) = &mut self.now {
            let gap = left - now.right;
            let follows = now.turn == turn
                && (base - now.base).abs() < 0.2 * now.size.max(size)
                && (-0.4..CELL).contains(&(gap / size));
            // What is written twice over itself is bold.
            let again = (left - self.last).abs() < 0.1 * size && now.text.ends_with(text);
            if follows && again && !text.trim().is_empty() {
                return Ok(());
            }
            if follows {
                if gap > SPACE * size && !now.text.ends_with(' ') && !text.starts_with(' ') {
                    now.text.push(' ');
                }
                push(&mut now.text, text);
                now.right = now.right.max(right);
                now.size = now.size.max(size);
                self.last = left;
                return Ok(());
            }
        }
        self.lift()?;
        let mut begun = String::new();
        push(&mut begun, text);
        self.last = left;
        self.now = Some(Fragment { text: begun, left, right: right.max(left), base, size, turn });
        Ok(())
    }

    fn turn(&self, x: f64, y: f64) -> u8 {
        match (x.abs() >= y.abs(), x >= 0.0, y >= 0.0) {
            _ if x == 0.0 && y == 0.0 => self.now.as_ref().map_or(0, |now| now.turn),
            (true, true, _) => 0,
            (false, _, true) => 1,
            (true, false, _) => 2,
            (false, _, false) => 3,
        }
    }

    fn lift(&mut self) -> Result<(), Fault> {
        let Some(now) = self.now.take() else { return Ok(()) };
        let again = self.done.last().is_some_and(|before| {
            let near = |a: f64, b: f64| (a - b).abs() < 0.2 * now.size;
            before.text == now.text && near(before.left, now.left) && near(before.base, now.base)
        });
        if !again && !now.text.trim().is_empty() {
            self.done.push(now);
        }
        if self.done.len() > PDF_FRAGMENTS { Err(Fault::Size) } else { Ok(()) }
    }

    /// All pieces, in the order in which they were written.
    pub(super) fn finish(mut self) -> Vec<Fragment> {
        // One more than there may be does no harm.
        self.lift().unwrap_or_default();
        self.done
    }
}

/// A place as one sees it who turns the page until the text is upright.
fn turned((x, y): (f64, f64), turn: u8) -> (f64, f64) {
    match turn {
        0 => (x, y),
        1 => (y, -x),
        2 => (-x, -y),
        _ => (-y, x),
    }
}

/// Adds text as it is read: ligatures as their letters, no characters that only steer.
fn push(to: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            'ﬀ' => to.push_str("ff"),
            'ﬁ' => to.push_str("fi"),
            'ﬂ' => to.push_str("fl"),
            'ﬃ' => to.push_str("ffi"),
            'ﬄ' => to.push_str("ffl"),
            'ﬅ' | 'ﬆ' => to.push_str("st"),
            '\u{ad}' => to.push('-'),
            '\u{a0}' | '\t' | '\n' | '\r' => to.push(' '),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{200b}') => {}
            c => to.push(c),
        }
    }
}

/// A line of the text to be.
struct Line {
    text: String,
    base: f64,
    size: f64,
}

/// The text of a page.
pub(super) fn text(fragments: Vec<Fragment>) -> String {
    let mut turns: [Vec<Fragment>; 4] = Default::default();
    for fragment in fragments {
        turns[usize::from(fragment.turn)].push(fragment);
    }
    // What stands as most of the page does comes first; what is written up its edge, last.
    turns.sort_by_key(|turn| std::cmp::Reverse(turn.iter().map(|f| f.text.len()).sum::<usize>()));
    let mut text = String::new();
    for turn in turns {
        let mut lines = Vec::new();
        arrange(turn, DEPTH, &mut lines);
        write(&lines, &mut text);
    }
    text.truncate(text.trim_end().len());
    text
}

fn write(lines: &[Line], text: &mut String) {
    let mut before: Option<&Line> = None;
    for line in lines {
        if let Some(before) = before {
            let apart = before.base - line.base;
            if !(0.0..=LEADING * before.size.max(line.size)).contains(&apart) {
                text.push('\n');
            }
        } else if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line.text.trim_end());
        text.push('\n');
        before = Some(line);
    }
}

/// Appends the lines of the pieces.
fn arrange(mut fragments: Vec<Fragment>, depth: usize, lines: &mut Vec<Line>) {
    fragments.sort_by(|a, b| b.base.total_cmp(&a.base));
    for group in groups(fragments) {
        let columns = group.gutter.filter(|_| depth > 0);
        match columns.and_then(|gutter| split(&group.fragments, gutter)) {
            Some((left, right)) => {
                arrange(left, depth - 1, lines);
                arrange(right, depth - 1, lines);
            }
            None => rows(group.fragments, lines),
        }
    }
}

/// Pieces below one another that leave the same room free, or none.
#[derive(Default)]
struct Group {
    fragments: Vec<Fragment>,
    /// Where there is something, from left to right.
    taken: Vec<(f64, f64)>,
    /// The middle of the widest room within.
    gutter: Option<f64>,
}

/// Cuts what lies from the top down into groups, such that columns are not cut.
fn groups(fragments: Vec<Fragment>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for band in bands(fragments) {
        let Some(now) = groups.last_mut() else {
            groups.push(band);
            continue;
        };
        let (taken, size) = (joined(&now.taken, &band.taken), size_of(&band.fragments));
        let gutter = widest(&taken, size);
        // Text without a gutter goes on until some begins that has one; text with one, as long as it is kept free.
        let goes_on = match now.gutter {
            None => band.gutter.is_none(),
            Some(_) => gutter.is_some(),
        };
        if goes_on {
            now.fragments.extend(band.fragments);
            (now.taken, now.gutter) = (taken, gutter);
        } else {
            groups.push(band);
        }
    }
    groups
}

/// Pieces that overlap in height.
fn bands(fragments: Vec<Fragment>) -> Vec<Group> {
    let mut bands: Vec<Vec<Fragment>> = Vec::new();
    let mut bottom = f64::INFINITY;
    for fragment in fragments {
        let apart = fragment.top() <= bottom;
        bottom = if apart { fragment.bottom() } else { bottom.min(fragment.bottom()) };
        match bands.last_mut() {
            Some(band) if !apart => band.push(fragment),
            _ => bands.push(vec![fragment]),
        }
    }
    let group = |fragments: Vec<Fragment>| {
        let mut taken: Vec<_> = fragments.iter().map(|f| (f.left, f.right)).collect();
        taken.sort_by(|a, b| a.0.total_cmp(&b.0));
        let taken = joined(&taken, &[]);
        let gutter = widest(&taken, size_of(&fragments));
        Group { fragments, taken, gutter }
    };
    bands.into_iter().map(group).collect()
}

/// The usual size of the text.
fn size_of(fragments: &[Fragment]) -> f64 {
    let weight: usize = fragments.iter().map(|f| f.text.len()).sum();
    let sizes = fragments.iter().map(|f| f.size * f.text.len() as f64);
    sizes.sum::<f64>() / weight.max(1) as f64
}

/// Two sorted lists of intervals as one in which none touch.
fn joined(one: &[(f64, f64)], other: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut all: Vec<_> = one.iter().chain(other).copied().collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for (left, right) in all {
        match joined.last_mut() {
            Some(last) if left <= last.1 => last.1 = last.1.max(right),
            _ => joined.push((left, right)),
        }
    }
    joined
}

fn widest(taken: &[(f64, f64)], size: f64) -> Option<f64> {
    let gaps = taken.windows(2).map(|pair| (pair[0].1, pair[1].0));
    let gaps = gaps.filter(|(from, to)| to - from >= GUTTER * size);
    let widest = gaps.max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0)));
    widest.map(|(from, to)| f64::midpoint(from, to))
}

/// The two sides of a gutter, if text flows on both.
fn split(fragments: &[Fragment], gutter: f64) -> Option<(Vec<Fragment>, Vec<Fragment>)> {
    let (left, right): (Vec<_>, Vec<_>) =
        fragments.iter().cloned().partition(|f| f.right <= gutter);
    (flows(&left) && flows(&right)).then_some((left, right))
}

/// Whether these are lines of text, one below the other.
fn flows(fragments: &[Fragment]) -> bool {
    let size = size_of(fragments);
    let (mut lines, mut filled, mut base) = (0, 0.0, f64::INFINITY);
    for fragment in fragments {
        if fragment.base < base - 0.5 * size {
            (lines, base) = (lines + 1, fragment.base);
        }
        filled += fragment.right - fragment.left;
    }
    let left = fragments.iter().map(|f| f.left).fold(f64::INFINITY, f64::min);
    let right = fragments.iter().map(|f| f.right).fold(f64::NEG_INFINITY, f64::max);
    let width = right - left;
    lines >= COLUMN_LINES
        && width >= COLUMN_WIDTH * size
        && filled >= COLUMN_FILLED * width * f64::from(u32::try_from(lines).unwrap_or(u32::MAX))
}

/// Pieces on one height become a line, from left to right.
fn rows(fragments: Vec<Fragment>, lines: &mut Vec<Line>) {
    let mut row: Vec<Fragment> = Vec::new();
    for fragment in fragments {
        let same = row.first().is_some_and(|first| {
            (first.base - fragment.base).abs() < 0.45 * first.size.max(fragment.size)
        });
        if !same {
            lines.extend(line(std::mem::take(&mut row)));
        }
        row.push(fragment);
    }
    lines.extend(line(row));
}

fn line(mut row: Vec<Fragment>) -> Option<Line> {
    row.sort_by(|a, b| a.left.total_cmp(&b.left));
    let mut pieces = row.into_iter();
    let first = pieces.next()?;
    let (mut text, mut right) = (first.text, first.right);
    let (mut base, mut size) = (first.base, first.size);
    for piece in pieces {
        let gap = (piece.left - right) / piece.size.max(size);
        if gap >= CELL {
            text.truncate(text.trim_end().len());
            text.push_str("  ");
        } else if gap > SPACE && !text.ends_with(' ') && !piece.text.starts_with(' ') {
            text.push(' ');
        }
        text.push_str(&piece.text);
        right = right.max(piece.right);
        // The largest text says where the line is: the others are raised or lowered.
        if piece.size > size {
            (base, size) = (piece.base, piece.size);
        }
    }
    Some(Line { text, base, size })
}
