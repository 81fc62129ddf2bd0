//! Which tool call a delta belongs to, among servers that number calls wrongly, late or not at all. Pure.

use crate::provider::repair::Shape;

/// What a delta says of its call.
#[derive(Debug, Default)]
pub(super) struct Clue<'a> {
    pub(super) index: Option<u64>,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) arguments: &'a str,
}

#[derive(Debug)]
struct Call {
    block: usize,
    index: Option<u64>,
    id: String,
    name: String,
    shape: Shape,
}

/// The calls of one answer, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

/// Where a delta goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A new call, in the block given to [`Calls::place`].
    New,
    /// The call in that block.
    Open(usize),
    /// The call in that block, which learns its name only now.
    Named(usize),
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all arguments so far are closed; a call without arguments counts as closed.
    pub(super) fn are_whole(&self) -> bool {
        self.0.iter().all(|call| call.shape.is_whole() || call.shape.is_blank())
    }

    /// Finds the delta's call, or begins one in `next_block`.
    pub(super) fn place(&mut self, clue: &Clue<'_>, next_block: usize) -> Target {
        let Some(call) = self.continued(clue) else {
            let mut shape = Shape::default();
            shape.feed(clue.arguments);
            let (id, name) = (clue.id.to_owned(), clue.name.to_owned());
            self.0.push(Call { block: next_block, index: clue.index, id, name, shape });
            return Target::New;
        };
        call.shape.feed(clue.arguments);
        if call.id.is_empty() {
            clue.id.clone_into(&mut call.id);
        }
        if call.name.is_empty() && !clue.name.is_empty() {
            clue.name.clone_into(&mut call.name);
            return Target::Named(call.block);
        }
        Target::Open(call.block)
    }

    /// The call that the delta continues: the last one at its index, or with its id, or simply the last; unless the
    /// delta shows that it begins another.
    fn continued(&mut self, clue: &Clue<'_>) -> Option<&mut Call> {
        let candidate = self.0.iter_mut().rev().find(|call| match (clue.index, call.index) {
            (Some(wanted), Some(index)) => wanted == index,
            _ => clue.id.is_empty() || call.id.is_empty() || call.id == clue.id,
        })?;
        let other_id = !clue.id.is_empty() && !candidate.id.is_empty() && clue.id != candidate.id;
        let same_id = !clue.id.is_empty() && clue.id == candidate.id;
        // Without ids, a name on a call that is complete, or another name, begins a new call. With the same id the
        // delta is taken for the same call even so: better one call with broken arguments than a call that runs twice.
        let named_anew = !clue.name.is_empty()
            && !candidate.name.is_empty()
            && (candidate.shape.is_whole() || candidate.name != clue.name);
        (!other_id && (same_id || !named_anew)).then_some(candidate)
    }
}
