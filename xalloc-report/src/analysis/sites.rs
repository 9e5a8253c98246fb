//! Naming a call site on the command line: by the id that reports give it, or by a function.

use rustc_hash::FxHashMap;

use super::frames;
use super::pattern::Pattern;
use crate::simulate::Requests;
use crate::trace::{Contents, StackIndex};

/// Fewest digits by which an id can be named.
const LEAST_DIGITS: usize = 6;

/// The stacks that a word names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sites {
    /// By number of the stack.
    named: Vec<bool>,
    /// Distinct call stacks among them that allocated.
    pub stacks: u64,
    /// Their allocations, reallocs included.
    pub allocations: u64,
}

impl Sites {
    /// The stacks of these requests that `word` names: a stack whose id begins with it, or which goes through a
    /// function of that name, the allocator's own included (`operator new*`). A name may be written without its parameters
    /// and without its namespaces, and is a [`Pattern`] of the whole.
    #[must_use]
    pub fn named(contents: &Contents, requests: &Requests, word: &str) -> Sites {
        let function = Pattern::whole(word);
        Sites::of(contents, requests, |stack| {
            is_id(contents, stack, word) || frames::functions(contents, stack).any(|name| is_function(name, &function))
        })
    }

    /// The stacks of these requests with this id.
    #[must_use]
    pub(super) fn with_id(contents: &Contents, requests: &Requests, id: &str) -> Sites {
        Sites::of(contents, requests, |stack| is_id(contents, stack, id))
    }

    fn of(contents: &Contents, requests: &Requests, is_one: impl Fn(StackIndex) -> bool) -> Sites {
        let mut counts: FxHashMap<StackIndex, u64> = FxHashMap::default();
        for &stack in &requests.stacks {
            *counts.entry(stack).or_default() += 1;
        }
        let mut sites = Sites { named: vec![false; contents.stacks.len()], stacks: 0, allocations: 0 };
        for (stack, count) in counts {
            if is_one(stack)
                && let Some(named) = sites.named.get_mut(stack.0 as usize)
            {
                *named = true;
                sites.stacks += 1;
                sites.allocations += count;
            }
        }
        sites
    }

    /// Whether the stack is one of them.
    #[must_use]
    pub fn contains(&self, stack: StackIndex) -> bool {
        self.named.get(stack.0 as usize).is_some_and(|&named| named)
    }
}

/// Whether a word is the beginning of the stack's id.
fn is_id(contents: &Contents, stack: StackIndex, word: &str) -> bool {
    let is_id = word.len() >= LEAST_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id && frames::id(contents, stack).starts_with(&word.to_ascii_lowercase())
}

/// Whether a word means the function `name`.
fn is_function(name: &str, word: &Pattern) -> bool {
    let bare = without_parameters(name);
    [name, bare, without_namespaces(bare)].iter().any(|name| word.matches(name))
}

/// `ns::f<int (char)>(long) const` without `(long) const`: from the bracket that the last one closes.
fn without_parameters(name: &str) -> &str {
    let Some(closing) = name.rfind(')') else { return name };
    let mut depth = 0;
    let opening = name[..=closing].rfind(|letter| {
        depth += match letter {
            ')' => 1,
            '(' => -1,
            _ => 0,
        };
        depth == 0
    });
    let bare = opening.map_or(name, |opening| &name[..opening]);
    // `(anonymous namespace)::f` has none, and `operator()` without parameters is one.
    let is_name = name[closing..].contains("::") || bare.is_empty() || bare.ends_with("operator");
    if is_name { name } else { bare }
}

/// What follows the last `::` that stands in no brackets.
fn without_namespaces(name: &str) -> &str {
    let mut depth = 0_i32;
    for (at, letter) in name.char_indices().rev() {
        match letter {
            '>' | ')' => depth += 1,
            '<' | '(' => depth -= 1,
            ':' if depth <= 0 => return &name[at + 1..],
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_with_or_without_what_is_around_its_name() {
        let name = "http::Parser::parse_header(Request&)";
        for word in [name, "http::Parser::parse_header", "parse_header", "parse_*", "*Parser*", "*"] {
            assert!(is_function(name, &Pattern::whole(word)), "{word}");
        }
        for word in ["parse", "Parser", "header", "parse_header(", "x*", ""] {
            assert!(!is_function(name, &Pattern::whole(word)), "{word}");
        }
    }

    #[test]
    fn brackets_of_other_kinds_are_not_taken_for_parameters() {
        for (name, words) in [
            ("operator new(unsigned long)", &["operator new*", "operator new", "operator new(unsigned long)"][..]),
            ("operator new[](unsigned long)", &["operator new[]", "operator new*"]),
            ("(anonymous namespace)::fill(int)", &["fill", "(anonymous namespace)::fill", "*::fill"]),
            ("(anonymous namespace)::fill", &["fill"]),
            ("Vec<int (char)>::at(long) const", &["at", "Vec<int (char)>::at", "Vec<*>::at"]),
            ("std::map<a::b, c::d>::operator[](a::b const&)", &["operator[]", "std::map*"]),
            ("Job::operator()(int)", &["operator()", "Job::operator()"]),
            ("<alloc::vec::Vec<T> as Clone>::clone", &["clone"]),
        ] {
            for word in words {
                assert!(is_function(name, &Pattern::whole(word)), "{word} is {name}");
            }
        }
        assert!(!is_function("operator new(unsigned long)", &Pattern::whole("operator delete*")));
    }
}
