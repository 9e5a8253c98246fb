//! Sets of call stacks: a bit for each that a recording has, for a program has a hundred thousand and asks at every
//! allocation.

use crate::trace::StackIndex;

/// A set of call stacks.
#[derive(Clone, Default, Debug)]
pub struct Stacks {
    words: Vec<u64>,
}

impl Stacks {
    /// An empty set, with room for the stacks below `stacks`.
    #[must_use]
    pub fn new(stacks: usize) -> Stacks {
        Stacks { words: vec![0; stacks.div_ceil(64)] }
    }

    /// Adds a stack; false if it was there.
    #[inline(always)]
    pub fn insert(&mut self, stack: StackIndex) -> bool {
        let (at, bit) = (stack.0 as usize / 64, 1 << (stack.0 % 64));
        match self.words.get_mut(at) {
            Some(word) => {
                let was_there = *word & bit != 0;
                *word |= bit;
                !was_there
            }
            None => self.insert_far(at, bit),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_far(&mut self, at: usize, bit: u64) -> bool {
        self.words.resize((at + 1).next_power_of_two(), 0);
        self.words[at] = bit;
        true
    }

    pub(super) fn absorb(&mut self, other: &Stacks) {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (into, from) in self.words.iter_mut().zip(&other.words) {
            *into |= from;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = StackIndex> + '_ {
        let bits = |(at, &word): (u32, &u64)| {
            (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| StackIndex(64 * at + bit))
        };
        (0..).zip(&self.words).filter(|(_, word)| **word != 0).flat_map(bits)
    }
}

impl FromIterator<StackIndex> for Stacks {
    fn from_iter<I: IntoIterator<Item = StackIndex>>(stacks: I) -> Stacks {
        let mut set = Stacks::default();
        for stack in stacks {
            set.insert(stack);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_each_stack_once_whatever_set_it_comes_from() {
        let of = |stacks: &[u32]| stacks.iter().copied().map(StackIndex).collect::<Stacks>();
        let mut all = of(&[1, 64, 63, 1]);
        assert!(!all.insert(StackIndex(64)));
        assert!(all.insert(StackIndex(1_000)));
        all.absorb(&of(&[2, 63, 70_000]));
        assert_eq!(all.iter().map(|stack| stack.0).collect::<Vec<_>>(), [1, 2, 63, 64, 1_000, 70_000]);
        assert_eq!(all.count(), 6);
    }
}
