//! What values must be, besides what their types say.

use std::fmt;

/// A value that parses but makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its section.
    pub key: String,
    /// What it must be.
    pub reason: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.reason)
    }
}

/// A key, whether its value makes sense, and what it must be.
pub(super) type Rule = (&'static str, bool, &'static str);

pub(super) fn broken(
    rules: impl IntoIterator<Item = Rule>,
    key: impl Fn(&str) -> String,
) -> impl Iterator<Item = Problem> {
    let broken = rules.into_iter().filter(|(_, holds, _)| !holds);
    broken.map(move |(name, _, reason)| Problem {
        key: key(name),
        reason,
    })
}
