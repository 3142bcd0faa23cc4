//! Messages that come again and again: the first few of a minute are shown, the others counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use log::Level;

/// So many that are alike are shown in each minute.
const SHOWN: u64 = 5;

/// How long is counted.
const MINUTE: Duration = Duration::from_secs(60);

/// Kinds of messages that are counted at once; any more are all shown.
const KINDS: usize = 256;

/// What was said in the last minute. Warnings are alike that differ in what stands before the first `": "`, which is
/// whom they are about, or in digits; errors that are the same. Anything below a warning is never held back: who
/// wants fewer of those chooses another level.
#[derive(Debug)]
pub(super) struct Repeats(BTreeMap<(Level, String), Kind>);

#[derive(Debug)]
struct Kind {
    since: Duration,
    seen: u64,
    /// The last that was not shown.
    last: String,
}

/// Messages that were not shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) level: Level,
    count: u64,
    last: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, last, .. } = self;
        write!(
            f,
            "{last} (the last of {count} more like it within a minute)"
        )
    }
}

impl Repeats {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether a message is to be shown.
    pub(super) fn admit(&mut self, level: Level, text: &str, now: Duration) -> bool {
        let shape = match level {
            Level::Error => text.to_owned(),
            Level::Warn => shape(text),
            _ => return true,
        };
        let key = (level, shape);
        if self.0.len() >= KINDS && !self.0.contains_key(&key) {
            return true;
        }
        let kind = self.0.entry(key).or_insert(Kind {
            since: now,
            seen: 0,
            last: String::new(),
        });
        kind.seen += 1;
        let shown = kind.seen <= SHOWN;
        if !shown {
            text.clone_into(&mut kind.last);
        }
        shown
    }

    /// What was held back in the minutes that are over.
    pub(super) fn over(&mut self, now: Duration) -> impl Iterator<Item = Summary> + use<> {
        let over = |kind: &Kind| now.saturating_sub(kind.since) >= MINUTE;
        let over = self.0.extract_if(.., |_, kind| over(kind));
        let over: Vec<Summary> = over.filter_map(summary).collect();
        over.into_iter()
    }

    /// What was held back until now.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = Summary> + use<> {
        std::mem::take(&mut self.0).into_iter().filter_map(summary)
    }
}

fn summary(((level, _), kind): ((Level, String), Kind)) -> Option<Summary> {
    let count = kind.seen.checked_sub(SHOWN).filter(|&count| count > 0)?;
    Some(Summary {
        level,
        count,
        last: kind.last,
    })
}

/// The text without whom it is about, each number as a zero.
fn shape(text: &str) -> String {
    let about = text.find(": ").unwrap_or(0);
    let mut shape = String::with_capacity(text.len() - about);
    let mut number = false;
    for c in text[about..].chars() {
        let digit = c.is_ascii_digit();
        if !digit {
            shape.push(c);
        } else if !number {
            shape.push('0');
        }
        number = digit;
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn after(seconds: u64) -> Duration {
        START + Duration::from_secs(seconds)
    }

    fn admitted(repeats: &mut Repeats, level: Level, texts: &[&str]) -> usize {
        let admitted = texts
            .iter()
            .filter(|text| repeats.admit(level, text, START));
        admitted.count()
    }

    #[test]
    fn warnings_that_are_alike_are_counted_and_summed_up() {
        let mut repeats = Repeats::new();
        let files: Vec<String> = (0..42)
            .map(|n| format!("in/{n}.jpg: is cut off at {n}"))
            .collect();
        let shown = files
            .iter()
            .enumerate()
            .filter(|(second, file)| repeats.admit(Level::Warn, file, after(*second as u64)));
        assert_eq!(shown.count(), 5);
        assert!(repeats.admit(Level::Warn, "in/7.jpg: is empty", after(42)));
        assert_eq!(repeats.over(after(59)).count(), 0);
        let said: Vec<_> = repeats.over(after(60)).map(|s| s.to_string()).collect();
        let wanted = "in/41.jpg: is cut off at 41 (the last of 37 more like it within a minute)";
        assert_eq!(said, [wanted]);
        assert!(
            repeats.admit(Level::Warn, &files[0], after(60)),
            "a new minute"
        );
        assert_eq!(repeats.rest().count(), 0, "each was shown");
    }

    #[test]
    fn errors_are_alike_if_they_are_the_same() {
        let mut repeats = Repeats::new();
        let errors: Vec<String> = (0..20).map(|n| format!("{n}.png: fails")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        assert_eq!(admitted(&mut repeats, Level::Error, &errors), 20);
        let same = ["1.png: fails"; 20];
        assert_eq!(admitted(&mut repeats, Level::Error, &same), 4);
        let rest: Vec<_> = repeats.rest().collect();
        let told = Summary {
            level: Level::Error,
            count: 16,
            last: "1.png: fails".into(),
        };
        assert_eq!(rest, [told]);
    }

    #[test]
    fn frames_are_never_held_back() {
        let mut repeats = Repeats::new();
        let same = ["a.png: 1 ship"; 100];
        assert_eq!(admitted(&mut repeats, Level::Info, &same), 100);
        assert_eq!(admitted(&mut repeats, Level::Debug, &same), 100);
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let mut repeats = Repeats::new();
        for letter in 0..2 * KINDS {
            let text = "x".repeat(letter);
            assert!(repeats.admit(Level::Warn, &text, START), "{letter}");
        }
        assert_eq!(repeats.0.len(), KINDS);
    }
}
