//! The conversation as the last request said it. The next request begins with the same bytes and appends to them: a long
//! session is not written anew for each turn, and what the provider cached stays what it was.

use std::sync::Arc;

use serde::Serialize;

use super::{Message, Role};

/// JSON of messages in a wire format, with commas between them.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    said: Vec<(Arc<Message>, usize)>,
    json: Vec<u8>,
}

impl Transcript {
    /// Makes it the transcript of these messages. `write` appends the JSON of one, as [`push`] does it; those that the
    /// last request began with are not written again. A message cannot change while it is held here, so that the same
    /// pointer is the same message.
    pub(super) fn follow(
        &mut self,
        messages: &[Arc<Message>],
        write: impl Fn(&Message, &mut Vec<u8>),
    ) {
        let pairs = self.said.iter().zip(messages);
        let same = pairs.take_while(|((said, _), message)| Arc::ptr_eq(said, message)).count();
        self.said.truncate(same);
        self.json.truncate(self.said.last().map_or(0, |(_, end)| *end));
        for message in &messages[same..] {
            write(message, &mut self.json);
            self.said.push((Arc::clone(message), self.json.len()));
        }
    }

    /// All of it.
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Where the user's messages end in it, the last one first. Those that the format cannot say are left out.
    pub(super) fn ends_of_user(&self) -> impl Iterator<Item = usize> {
        (0..self.said.len()).rev().filter_map(|n| {
            let (message, end) = &self.said[n];
            let start = n.checked_sub(1).map_or(0, |before| self.said[before].1);
            (message.role == Role::User && start < *end).then_some(*end)
        })
    }
}

/// Appends a value to a list that is being written.
pub(super) fn push(list: &mut Vec<u8>, value: &impl Serialize) {
    if !list.is_empty() {
        list.push(b',');
    }
    serde_json::to_writer(list, value).expect("a message has string keys only");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ContentBlock;
    use crate::provider::Block;

    fn message(role: Role, text: &str) -> Arc<Message> {
        Arc::new(Message { role, blocks: vec![Block::Content(ContentBlock::text(text))] })
    }

    #[test]
    fn only_what_is_new_is_written() {
        let mut transcript = Transcript::default();
        let mut check = |messages: &[&Arc<Message>], new: &[&str], json: &str, ends: &[usize]| {
            let written = std::cell::RefCell::new(Vec::new());
            let messages: Vec<_> = messages.iter().copied().cloned().collect();
            transcript.follow(&messages, |message, list| {
                let [Block::Content(ContentBlock::Text { text })] = &message.blocks[..] else {
                    panic!("{message:?}")
                };
                written.borrow_mut().push(text.clone());
                if !text.is_empty() {
                    push(list, text);
                }
            });
            assert_eq!(written.take(), new);
            assert_eq!(String::from_utf8_lossy(transcript.json()), json);
            assert_eq!(transcript.ends_of_user().collect::<Vec<_>>(), ends);
        };
        let (a, b) = (message(Role::User, "a"), message(Role::Assistant, "b"));
        let (c, silent) = (message(Role::User, "c"), message(Role::User, ""));
        check(&[], &[], "", &[]);
        check(&[&a], &["a"], r#""a""#, &[3]);
        check(&[&a, &b], &["b"], r#""a","b""#, &[3]);
        check(&[&a, &b], &[], r#""a","b""#, &[3]);
        check(&[&a, &b, &c], &["c"], r#""a","b","c""#, &[11, 3]);
        check(&[&a, &b, &silent], &[""], r#""a","b""#, &[3]);
        // Another conversation, and one that was taken back.
        check(&[&c, &b], &["c", "b"], r#""c","b""#, &[3]);
        check(&[&c], &[], r#""c""#, &[3]);
        // A message that was added to is another message, whatever it began with.
        let mut grown = c.clone();
        Arc::make_mut(&mut grown).blocks[0] = Block::Content(ContentBlock::text("c2"));
        check(&[&grown], &["c2"], r#""c2""#, &[4]);
    }
}
