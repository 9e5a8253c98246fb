//! Makes names from the recorded program harmless where they are shown.
//!
//! A symbol name may hold anything: escape sequences that reprogram a terminal, line breaks that forge a line of the
//! report, direction marks that turn text around, markup. The rule is one: what is not printable is shown as its
//! number, and the markup of the target is escaped on top.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with every character that does not just print itself replaced by `\u{…}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(prints_itself) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if prints_itself(letter) {
            escaped.push(letter);
        } else {
            // Writing to a String does not fail.
            let _ = write!(escaped, "\\u{{{:x}}}", letter as u32);
        }
    }
    Cow::Owned(escaped)
}

/// False for control characters, for marks that change the direction of text or are invisible, and for what XML does
/// not allow at all.
fn prints_itself(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}')
}

/// The text as XML character data or attribute value.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in printable(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The text as one frame of a folded stack: without `;`, and such that neither the line's beginning can be taken for
/// a comment nor the name's end for a number of samples.
#[must_use]
pub fn folded(label: &str) -> String {
    let mut label = printable(label.trim()).replace(';', ":");
    if label.is_empty() {
        label.push_str("[no name]");
    }
    if label.starts_with('#') {
        label.insert(0, '\\');
    }
    let last_word = label.rsplit(' ').next().unwrap_or_default();
    if last_word.parse::<f64>().is_ok()
        && let Some(blank) = label.rfind(' ')
    {
        label.replace_range(blank..=blank, "\u{a0}");
    }
    label
}

/// The text as one word of a POSIX shell command, quoted only if it must be.
#[must_use]
pub fn shell(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./=:,@%+".contains(letter);
    let text = printable(word);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A command as a shell would be given it.
#[must_use]
pub fn command_line(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| shell(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_drives_a_terminal_gets_through() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{9b}d"), "a\\u{1b}[31mb\\u{a}c\\u{9b}d");
        assert_eq!(printable("evil\u{202e}cba"), "evil\\u{202e}cba");
        assert!(matches!(printable("std::vector<int>::größer"), Cow::Borrowed(_)));
    }

    #[test]
    fn markup_of_xml_is_escaped_and_forbidden_characters_with_it() {
        assert_eq!(xml("<b a='1'>&\"\u{0}\u{ffff}"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;\\u{0}\\u{ffff}");
    }

    #[test]
    fn a_frame_cannot_end_its_stack_nor_pose_as_a_count() {
        assert_eq!(folded("[u8; 8]"), "[u8: 8]");
        assert_eq!(folded("operator 12"), "operator\u{a0}12");
        assert_eq!(folded("# comment"), "\\# comment");
        assert_eq!(folded("  "), "[no name]");
    }

    #[test]
    fn a_word_is_quoted_when_a_shell_would_read_more_into_it() {
        assert_eq!(command_line(&["./app", "--save", ""].map(str::to_owned)), "./app --save ''");
        assert_eq!(shell("out/app.xtrace"), "out/app.xtrace");
        assert_eq!(shell("my app's.xtrace"), r"'my app'\''s.xtrace'");
    }
}
