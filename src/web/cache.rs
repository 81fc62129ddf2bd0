//! Pages that were fetched a moment ago: an agent that reads on asks for the same one again. In memory alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::fetch::Page;
use crate::limits::{WEB_CACHE_AGE, WEB_CACHE_BYTES};

/// The newest pages, bounded by bytes and age.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pages: VecDeque<(String, Instant, Arc<Page>)>,
    bytes: usize,
}

impl Cache {
    /// The page that was fetched from there.
    pub(super) fn get(&mut self, url: &str, now: Instant) -> Option<Arc<Page>> {
        while self.pages.front().is_some_and(|(_, at, _)| now - *at > WEB_CACHE_AGE) {
            self.pop();
        }
        let found = self.pages.iter().rev().find(|(own, ..)| own == url);
        found.map(|(_, _, page)| Arc::clone(page))
    }

    /// Keeps a page, and lets the oldest go.
    pub(super) fn put(&mut self, url: String, now: Instant, page: Arc<Page>) {
        self.bytes += page.bytes.len();
        self.pages.push_back((url, now, page));
        while self.bytes > WEB_CACHE_BYTES {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, _, page)) = self.pages.pop_front() {
            self.bytes -= page.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: usize) -> Arc<Page> {
        Arc::new(Page { bytes: vec![b'x'; bytes], ..Page::default() })
    }

    #[test]
    fn it_forgets_by_age_and_by_size() {
        let mut cache = Cache::default();
        let start = Instant::now();
        cache.put("a".to_owned(), start, page(1));
        assert!(cache.get("a", start + WEB_CACHE_AGE).is_some());
        assert!(cache.get("b", start).is_none());
        cache.put("b".to_owned(), start + WEB_CACHE_AGE, page(WEB_CACHE_BYTES));
        assert!(cache.get("a", start + WEB_CACHE_AGE).is_none(), "the older one went");
        assert!(cache.get("b", start + 3 * WEB_CACHE_AGE).is_none(), "too old");
        assert_eq!(cache.bytes, 0);
    }
}
