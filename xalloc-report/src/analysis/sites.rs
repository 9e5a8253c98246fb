//! Naming a call site on the command line: by the id that reports give it, or by a function.

use rustc_hash::FxHashMap;
use xalloc_core::wire::Call;

use super::frames::{self, CallStack};
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
    /// function of that name. A name may be written without its parameters and without its namespaces; `*` stands for
    /// any letters.
    #[must_use]
    pub fn named(contents: &Contents, requests: &Requests, word: &str) -> Sites {
        Sites::of(contents, requests, |stack| {
            is_id(contents, stack, word) || is_named(&CallStack::of(contents, stack, Call::Malloc), word)
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

fn is_named(stack: &CallStack, word: &str) -> bool {
    stack.frames.iter().filter_map(|frame| frame.function.as_deref()).any(|name| is_function(name, word))
}

/// Whether a word means the function `name`.
fn is_function(name: &str, word: &str) -> bool {
    let without_parameters = name.split('(').next().unwrap_or(name);
    let last = without_parameters.rsplit("::").next().unwrap_or(without_parameters);
    [name, without_parameters, last].iter().any(|name| matches(name, word))
}

/// Whether `text` is `pattern`, in which `*` stands for any letters.
fn matches(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_with_or_without_what_is_around_its_name() {
        let name = "http::Parser::parse_header(Request&)";
        for word in [name, "http::Parser::parse_header", "parse_header", "parse_*", "*Parser*", "*"] {
            assert!(is_function(name, word), "{word}");
        }
        for word in ["parse", "Parser", "header", "parse_header(", "x*", ""] {
            assert!(!is_function(name, word), "{word}");
        }
    }

    #[test]
    fn a_star_stands_for_any_letters_and_parts_come_in_order() {
        assert!(matches("grow_buffer", "*row*ffer") && matches("grow", "grow*") && matches("grow", "g*w"));
        assert!(!matches("grow", "*x*") && !matches("aba", "ab*ba") && !matches("grow", "row"));
    }
}
