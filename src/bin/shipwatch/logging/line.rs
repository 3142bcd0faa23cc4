//! A message as lines that nothing in it can forge: names of files may hold any character.

use std::borrow::Cow;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The journal: a line per message, after its priority.
    Journal,
    /// A person: lines after the first are indented.
    Terminal,
    /// A file or another program: a line per message.
    Plain,
}

impl Form {
    /// The text with all that moves a cursor or ends a line written out.
    pub(super) fn text(self, text: &str) -> Cow<'_, str> {
        if !text.contains(breaks) {
            return Cow::Borrowed(text);
        }
        let mut line = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            match c {
                '\n' if self == Self::Terminal => line.push_str("\n  "),
                c if breaks(c) => line.extend(c.escape_default()),
                c => line.push(c),
            }
        }
        Cow::Owned(line)
    }
}

/// Control characters, and what Unicode ends lines and paragraphs with.
fn breaks(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forges_no_line() {
        let name = "a\n<3>error: all is lost\r\u{1b}[2K\u{2028}.png";
        let line = r"a\n<3>error: all is lost\r\u{1b}[2K\u{2028}.png";
        assert_eq!(Form::Journal.text(name), line);
        assert_eq!(Form::Plain.text(name), line);
        assert_eq!(
            Form::Terminal.text("line 2\nerror: no\r"),
            "line 2\n  error: no\\r"
        );
        assert_eq!(Form::Plain.text("Möwe 'x'.png"), "Möwe 'x'.png");
    }
}
