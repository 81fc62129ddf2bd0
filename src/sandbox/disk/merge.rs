//! Two changes of one text put together, where they do not meet. Pure.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices};

/// Lines of the base that a change replaces, and what by.
struct Hunk<'a> {
    from: usize,
    to: usize,
    lines: &'a [&'a str],
}

/// The text with both changes; nothing, if they touch the same or neighbouring lines in different ways.
pub(super) fn three_way(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let (base, ours, theirs) = (lines(base), lines(ours), lines(theirs));
    let mut left = hunks(&base, &ours).into_iter().peekable();
    let mut right = hunks(&base, &theirs).into_iter().peekable();
    let mut merged = String::new();
    let mut at = 0;
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a.from <= b.to && b.from <= a.to => {
                let same = (a.from, a.to, a.lines) == (b.from, b.to, b.lines);
                if !same {
                    return None;
                }
                right.next();
                left.next()?
            }
            (Some(a), Some(b)) if b.from < a.from => right.next()?,
            (Some(_), _) => left.next()?,
            (None, Some(_)) => right.next()?,
        };
        merged.extend(base[at..next.from].iter().copied());
        merged.extend(next.lines.iter().copied());
        at = next.to;
    }
    merged.extend(base[at..].iter().copied());
    Some(merged)
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn hunks<'a>(base: &[&str], changed: &'a [&'a str]) -> Vec<Hunk<'a>> {
    let ops = capture_diff_slices(Algorithm::Myers, base, changed);
    let changes = ops.into_iter().filter(|op| op.tag() != DiffTag::Equal);
    let hunk = |op: DiffOp| {
        let (old, new) = (op.old_range(), op.new_range());
        Hunk { from: old.start, to: old.end, lines: &changed[new] }
    };
    let mut joined: Vec<Hunk<'a>> = Vec::new();
    joined.extend(changes.map(hunk));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_do_not_meet_are_put_together() {
        let check = |base: &str, ours: &str, theirs: &str, expected: Option<&str>| {
            assert_eq!(
                three_way(base, ours, theirs).as_deref(),
                expected,
                "{base} {ours} {theirs}"
            );
            assert_eq!(three_way(base, theirs, ours).as_deref(), expected, "the other way round");
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
}
