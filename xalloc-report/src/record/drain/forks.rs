//! What each fork left for its child, until the child says hello.
//!
//! A forked child has its parent's blocks and modules as they were at the fork. The parent's stream does not wait for
//! the child: what it would inherit is kept under the fork's number. A fork that failed, or whose child ends without a
//! word, would keep it for ever, so only the latest few are kept.
//!
//! # Why they do not grow old
//! A child says hello with its first call, and that may be hours after the fork: a server forks its workers, and each
//! waits for its first connection.

use std::collections::{HashSet, VecDeque};

use super::identity::{Birth, Identity};
use super::modules::ModuleTables;
use crate::trace::ProcessIndex;

/// Forks that wait for their child: as many as a server has idle workers. One that allocates or executes something says
/// hello within milliseconds.
const MOST: usize = 64;

/// One fork.
#[derive(Debug)]
pub(crate) struct Fork<F> {
    pub(crate) parent: ProcessIndex,
    pub(crate) live_set: F,
    pub(crate) modules: ModuleTables,
}

/// Forks whose children have not begun, oldest first.
#[derive(Debug)]
pub(crate) struct Forks<F> {
    wanted: Wanted,
    waiting: VecDeque<Waiting<F>>,
}

/// Which forks are worth keeping.
#[derive(Debug)]
enum Wanted {
    /// None: children are not recorded.
    None,
    /// The latest: their children will say hello. A recorder numbers the forks of all processes.
    Latest,
    /// Those of these children, known beforehand. Each process has numbered its own forks.
    Of(HashSet<ForkNumber>),
}

/// The process id of the parent, 0 where a recorder numbers the forks of all, and the number.
type ForkNumber = (u32, u32);

#[derive(Debug)]
struct Waiting<F> {
    number: ForkNumber,
    fork: Fork<F>,
}

impl<F> Forks<F> {
    /// Forks of a recording that runs.
    pub(crate) fn of_session(are_followed: bool) -> Forks<F> {
        let wanted = if are_followed { Wanted::Latest } else { Wanted::None };
        Forks { wanted, waiting: VecDeque::new() }
    }

    /// Forks that these processes came from.
    pub(crate) fn of_children<'a>(children: impl IntoIterator<Item = &'a Identity>) -> Forks<F> {
        let number = |child: &'a Identity| match child.birth {
            Birth::Fork { serial } => Some((child.parent_pid, serial)),
            Birth::Exec => None,
        };
        Forks { wanted: Wanted::Of(children.into_iter().filter_map(number).collect()), waiting: VecDeque::new() }
    }

    /// Whether what this fork leaves is to be kept.
    pub(crate) fn wants(&self, parent_pid: u32, serial: u32) -> bool {
        match &self.wanted {
            Wanted::None => false,
            Wanted::Latest => true,
            Wanted::Of(numbers) => numbers.contains(&(parent_pid, serial)),
        }
    }

    pub(crate) fn keep(&mut self, parent_pid: u32, serial: u32, fork: Fork<F>) {
        let is_bounded = match self.wanted {
            Wanted::None | Wanted::Latest => true,
            Wanted::Of(_) => false,
        };
        if is_bounded && self.waiting.len() == MOST {
            self.waiting.pop_front();
        }
        let number = self.number(parent_pid, serial);
        self.waiting.push_back(Waiting { number, fork });
    }

    pub(crate) fn take(&mut self, parent_pid: u32, serial: u32) -> Option<Fork<F>> {
        let number = self.number(parent_pid, serial);
        let at = self.waiting.iter().position(|waiting| waiting.number == number)?;
        self.waiting.remove(at).map(|waiting| waiting.fork)
    }

    fn number(&self, parent_pid: u32, serial: u32) -> ForkNumber {
        match self.wanted {
            // A parent's id may be one of another namespace than the child sees.
            Wanted::None | Wanted::Latest => (0, serial),
            Wanted::Of(_) => (parent_pid, serial),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_waits_for_its_child_until_so_many_others_came_after_it() {
        let mut forks = Forks::of_session(true);
        for serial in 0..=MOST as u32 {
            let fork = Fork { parent: ProcessIndex(0), live_set: serial, modules: ModuleTables::new() };
            forks.keep(1, serial, fork);
        }
        assert!(forks.take(1, 0).is_none(), "the oldest of one more than are kept");
        assert_eq!(forks.take(1, 1).map(|fork| fork.live_set), Some(1));
        assert!(forks.take(1, 1).is_none(), "a fork has one child");
    }
}
