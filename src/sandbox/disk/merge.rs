//! Two changes of one text put together, where they do not meet. Pure.

use std::ops::RangeInclusive;

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices};

/// Lines of the base that a change replaces, what by, and where that is in the changed text.
struct Hunk<'a> {
    from: usize,
    to: usize,
    lines: &'a [&'a str],
    at: usize,
}

impl Hunk<'_> {
    fn is_same(&self, other: &Hunk<'_>) -> bool {
        (self.from, self.to, self.lines) == (other.from, other.to, other.lines)
    }

    /// Whether both replace the same or neighbouring lines in different ways.
    fn meets(&self, other: &Hunk<'_>) -> bool {
        self.from <= other.to && other.from <= self.to && !self.is_same(other)
    }

    /// Its lines in the changed text, counted from 1; where lines are gone, the one before.
    fn shown(&self) -> RangeInclusive<usize> {
        let last = self.at + self.lines.len();
        last.min(self.at + 1)..=last
    }
}

/// The text with both changes, or the lines of theirs that ours meet.
pub(super) fn three_way(
    base: &str,
    ours: &str,
    theirs: &str,
) -> Result<String, Vec<RangeInclusive<usize>>> {
    let (base, ours, theirs) = (lines(base), lines(ours), lines(theirs));
    let (left, right) = (hunks(&base, &ours), hunks(&base, &theirs));
    let meet = right.iter().filter(|theirs| left.iter().any(|ours| ours.meets(theirs)));
    let meet: Vec<_> = meet.map(Hunk::shown).collect();
    if !meet.is_empty() {
        return Err(meet);
    }
    let others = right.into_iter().filter(|theirs| !left.iter().any(|ours| ours.is_same(theirs)));
    let mut all: Vec<_> = others.collect();
    all.extend(left);
    all.sort_by_key(|hunk| hunk.from);
    let mut merged = String::new();
    let mut at = 0;
    for hunk in all {
        merged.extend(base[at..hunk.from].iter().copied());
        merged.extend(hunk.lines.iter().copied());
        at = hunk.to;
    }
    merged.extend(base[at..].iter().copied());
    Ok(merged)
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn hunks<'a>(base: &[&str], changed: &'a [&'a str]) -> Vec<Hunk<'a>> {
    let ops = capture_diff_slices(Algorithm::Myers, base, changed);
    let changes = ops.into_iter().filter(|op| op.tag() != DiffTag::Equal);
    let hunk = |op: DiffOp| {
        let (old, new) = (op.old_range(), op.new_range());
        Hunk { from: old.start, to: old.end, at: new.start, lines: &changed[new] }
    };
    changes.map(hunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_do_not_meet_are_put_together() {
        let check = |base: &str, ours: &str, theirs: &str, expected: Option<&str>| {
            assert_eq!(
                three_way(base, ours, theirs).ok().as_deref(),
                expected,
                "{base} {ours} {theirs}"
            );
            assert_eq!(
                three_way(base, theirs, ours).ok().as_deref(),
                expected,
                "the other way round"
            );
        };
        let base = "a\nb\nc\nd\ne\n";
        check(base, base, base, Some(base));
        check(base, "A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n", Some("A\nb\nc\nd\nE\n"));
        check(base, "a\nb\nc\nd\ne\nf\n", "b\nc\nd\ne\n", Some("b\nc\nd\ne\nf\n"));
        check(base, "a\nB\nc\nd\ne\n", "a\nB\nc\nd\ne\n", Some("a\nB\nc\nd\ne\n"));
        check(base, "a\nB\nc\nd\ne\n", "a\nX\nc\nd\ne\n", None);
        check(base, "a\nB\nc\nd\ne\n", "a\nb\nC\nd\ne\n", None);
        check(base, "", "a\nb\nC\nd\ne\n", None);
        check("a", "a\nb", "a", Some("a\nb"));
        check("", "ours\n", "theirs\n", None);
    }

    #[test]
    fn the_users_lines_that_meet_are_named() {
        let check = |ours: &str, theirs: &str, expected: &[RangeInclusive<usize>]| {
            assert_eq!(three_way("a\nb\nc\nd\ne\nf\n", ours, theirs), Err(expected.to_vec()));
        };
        check("a\nB\nc\nd\ne\nf\n", "a\nX\nY\nc\nd\ne\nf\n", &[2..=3]);
        check("A\nb\nc\nd\ne\nF\n", "0\nX\nb\nc\nd\ne\nY\n", &[1..=2, 7..=7]);
        check("a\nB\nc\nd\ne\nf\n", "a\nc\nd\ne\nF\n", &[1..=1]);
        check("", "a\nb\nC\nd\ne\nf\n", &[3..=3]);
    }
}
