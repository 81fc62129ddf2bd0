//! `robots.txt` (RFC 9309), for users who want it obeyed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{WEB_CACHE_AGE, WEB_ROBOTS_KEPT};

/// What sites said, for a while.
#[derive(Debug, Default)]
pub(super) struct Robots(HashMap<String, (Instant, Arc<Rules>)>);

impl Robots {
    pub(super) fn get(&self, origin: &str, now: Instant) -> Option<Arc<Rules>> {
        let (at, rules) = self.0.get(origin)?;
        (now - *at <= WEB_CACHE_AGE).then(|| Arc::clone(rules))
    }

    pub(super) fn put(&mut self, origin: String, now: Instant, rules: Arc<Rules>) {
        if self.0.len() >= WEB_ROBOTS_KEPT {
            self.0.clear();
        }
        self.0.insert(origin, (now, rules));
    }
}

/// The rules of one site for one product.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(Vec<(bool, String)>);

impl Rules {
    /// The rules of the groups that name `product`, else of those for everybody.
    pub(super) fn parse(text: &str, product: &str) -> Self {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        let (mut names_us, mut names_all, mut in_names) = (false, false, false);
        let mut named = false;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match key.as_str() {
                "user-agent" => {
                    if !in_names {
                        (names_us, names_all, in_names) = (false, false, true);
                    }
                    let us = value.eq_ignore_ascii_case(product);
                    names_us |= us;
                    named |= us;
                    names_all |= value == "*";
                }
                "allow" | "disallow" => {
                    in_names = false;
                    if value.is_empty() {
                        continue;
                    }
                    let rule = (key == "allow", value.to_owned());
                    if names_us {
                        own.push(rule);
                    } else if names_all {
                        others.push(rule);
                    }
                }
                _ => {}
            }
        }
        Self(if named { own } else { others })
    }

    /// Whether a path with its query may be fetched: the longest rule that matches decides, and of two `allow`.
    pub(super) fn allow(&self, path: &str) -> bool {
        let matching = self.0.iter().filter(|(_, pattern)| matches(pattern, path));
        let decisive = matching.max_by_key(|(allow, pattern)| (pattern.len(), *allow));
        decisive.is_none_or(|(allow, _)| *allow)
    }
}

/// A prefix in which `*` is any text and a `$` at the end is the end.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, whole) = match pattern.strip_suffix('$') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        if whole && i + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    !whole || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_decides() {
        let check = |text: &str, path: &str, expected: bool| {
            assert_eq!(Rules::parse(text, "casemate").allow(path), expected, "{text:?} {path}");
        };
        check("", "/", true);
        check("User-agent: *\nDisallow: /", "/a", false);
        check("User-agent: *\nDisallow:", "/a", true);
        check("user-agent: * # all\ndisallow: /a\nallow: /a/b", "/a/b/c", true);
        check("user-agent: * # all\ndisallow: /a\nallow: /a/b", "/a/c", false);
        check("User-agent: Casemate\nDisallow: /x\n\nUser-agent: *\nDisallow: /", "/y", true);
        check("User-agent: other\nUser-agent: casemate\nDisallow: /x", "/x", false);
        check("User-agent: other\nDisallow: /x\nUser-agent: *\nAllow: /", "/x", true);
        check("User-agent: casemate\n\nUser-agent: *\nDisallow: /", "/x", false);
        check("User-agent: *\nDisallow: /*.pdf$", "/a/b.pdf", false);
        check("User-agent: *\nDisallow: /*.pdf$", "/a/b.pdf?x", true);
        check("User-agent: *\nDisallow: /a*c*e", "/abcde", false);
        check("User-agent: *\nDisallow: /fish$", "/fish.html", true);
        check("\u{feff}User-agent: *\r\nDisallow: /p\r\n", "/page", false);
        check("nonsense\n: :\n::::\nDisallow: /", "/", true);
    }
}
