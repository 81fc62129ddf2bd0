//! Typed ids: a prefix that says what the id names, then a UUIDv7 in Crockford base32.
//!
//! Ids sort by the time at which they were minted. A parsed id has the right prefix and a body of
//! 1 to [`MAX_BODY`] characters out of `[0-9A-Za-z_]`: what other servers mint is accepted too.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;

/// Longest accepted id body in characters, so that an id never becomes a payload.
pub const MAX_BODY: usize = 64;

/// Why a string is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {kind}: expected `{prefix}` followed by 1 to 64 letters, digits or `_`")]
pub struct IdError {
    given: String,
    kind: &'static str,
    prefix: &'static str,
}

/// Crockford's alphabet in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn mint_body(at: Timestamp) -> String {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    let seconds = millis / 1000;
    let nanos = u32::try_from(millis % 1000).expect("a remainder of 1000 fits") * 1_000_000;
    let uuid = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
    let bits = uuid.as_u128();
    // 128 bits are 26 characters of 5 bits, the first of which holds 3.
    let char_at = |i: u32| char::from(ALPHABET[((bits >> (125 - 5 * i)) & 31) as usize]);
    (0..26).map(char_at).collect()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes a new id that sorts by `at`.
            #[must_use]
            pub fn mint(at: Timestamp) -> Self {
                Self(format!("{}{}", Self::PREFIX, mint_body(at)).into())
            }

            /// The id as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<Self, IdError> {
                let body = s.strip_prefix(Self::PREFIX).unwrap_or_default();
                let plain = body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if body.is_empty() || body.len() > MAX_BODY || !plain {
                    let given = s.chars().take(80).collect();
                    return Err(IdError { given, kind: $kind, prefix: Self::PREFIX });
                }
                Ok(Self(s.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// Names an agent definition.
    AgentId = "agent_", "an agent id";
    /// Names an environment definition.
    EnvironmentId = "env_", "an environment id";
    /// Names a session.
    SessionId = "sesn_", "a session id";
    /// Names a thread of a session.
    ThreadId = "sthr_", "a thread id";
    /// Names an uploaded or harvested file.
    FileId = "file_", "a file id";
    /// Names a stored skill.
    SkillId = "skill_", "a skill id";
    /// Names one version of a stored skill.
    SkillVersionId = "skillver_", "the id of a skill's version";
    /// Names what a session was given: a file, a repository.
    ResourceId = "sesrsc_", "the id of a session's resource";
    /// Names one event of a session's log.
    EventId = "sevt_", "an event id";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn minted_ids_parse_and_sort_by_time() {
        let clock = ManualClock::at_millis(1_700_000_000_000);
        let first = SessionId::mint(clock.now());
        clock.advance_millis(1);
        let second = SessionId::mint(clock.now());
        assert!(first < second, "{first} < {second}");
        assert_eq!(first.as_str().len(), "sesn_".len() + 26);
        assert_eq!(first.as_str().parse::<SessionId>().as_ref(), Ok(&first));
    }

    #[test]
    fn foreign_or_broken_ids_are_refused_with_the_expected_prefix() {
        for bad in [
            "",
            "sesn_",
            "agent_x",
            "sesn_a b",
            "sesn_../../x",
            &format!("sesn_{}", "a".repeat(65)),
        ] {
            let error = bad.parse::<SessionId>().unwrap_err().to_string();
            assert!(error.contains("`sesn_`"), "{error}");
        }
    }
}
