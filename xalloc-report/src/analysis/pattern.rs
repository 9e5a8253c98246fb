//! Patterns of suppressions, of `--own`, of program names and of call sites: text in which `*` stands for any text.
//!
//! Matching goes back to the last `*` only, which is enough, because a later `*` can take what an earlier one could:
//! the time is bounded by pattern times text, whatever a symbol looks like.

/// A pattern, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Letter(char),
    One,
    Any,
}

impl Pattern {
    /// The whole text: `*` is any text, `?` one character, as valgrind's suppressions and shells have it.
    #[must_use]
    pub fn whole(pattern: &str) -> Pattern {
        let tokens = pattern.chars().map(|letter| match letter {
            '*' => Token::Any,
            '?' => Token::One,
            letter => Token::Letter(letter),
        });
        Pattern { tokens: tokens.collect() }
    }

    /// A part of the text, as LeakSanitizer has it: `*` is any text, `^` in front the text's beginning, `$` its end.
    #[must_use]
    pub fn part(pattern: &str) -> Pattern {
        let anchored = pattern.strip_prefix('^');
        let mut tokens: Vec<_> = anchored.is_none().then_some(Token::Any).into_iter().collect();
        for letter in anchored.unwrap_or(pattern).chars() {
            match letter {
                '*' => tokens.push(Token::Any),
                // What follows the end of the text cannot be there.
                '$' => return Pattern { tokens },
                letter => tokens.push(Token::Letter(letter)),
            }
        }
        tokens.push(Token::Any);
        Pattern { tokens }
    }

    /// Whether the text is one of those that the pattern stands for.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let tokens = &self.tokens;
        let (mut at, mut rest) = (0, text.chars());
        // Where to go on after the last `Any`, once it has taken one character more.
        let mut again: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if tokens.get(at) == Some(&Token::Any) {
                at += 1;
                again = Some((at, rest.clone()));
                continue;
            }
            let fits = match (tokens.get(at), rest.next()) {
                (None, None) => return true,
                (Some(Token::Letter(wanted)), Some(letter)) => *wanted == letter,
                (Some(Token::One), Some(_)) => true,
                (Some(_), None) => return false,
                (None | Some(Token::Any), _) => false,
            };
            if fits {
                at += 1;
                continue;
            }
            let Some((from, text)) = &mut again else { return false };
            if text.next().is_none() {
                return false;
            }
            (at, rest) = (*from, text.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_pattern_covers_the_text_from_end_to_end() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbc"),
            ("a?c", "abc"),
            ("*b*b*", "abcb"),
            ("**x", "yx"),
            ("ö?", "öß"),
        ] {
            assert!(Pattern::whole(pattern).matches(text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("a", ""), ("a*c", "abcd"), ("a?c", "ac"), ("?", ""), ("*b*b*", "acb"), ("a", "aa")]
        {
            assert!(!Pattern::whole(pattern).matches(text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_part_may_lie_anywhere_unless_it_is_anchored() {
        for (pattern, text) in [
            ("foo", "a_foo_b"),
            ("^foo", "foobar"),
            ("foo$", "myfoo"),
            ("^foo$", "foo"),
            ("a*c", "xxabcxx"),
            ("", "x"),
            ("^", "x"),
        ] {
            assert!(Pattern::part(pattern).matches(text), "{pattern} {text}");
        }
        for (pattern, text) in [("^foo", "a_foo"), ("foo$", "foob"), ("^foo$", "foo2"), ("a*c", "cba"), ("f?o", "foo")]
        {
            assert!(!Pattern::part(pattern).matches(text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_more_than_pattern_times_text() {
        let pattern = Pattern::whole(&"*a".repeat(200));
        assert!(!pattern.matches(&"a".repeat(199)));
        assert!(!Pattern::whole(&format!("{}b", "a*".repeat(100))).matches(&"a".repeat(20_000)));
    }
}
