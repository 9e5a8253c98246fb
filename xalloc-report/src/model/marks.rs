//! The marks that a program set, for whoever wants to see them beside its figures.

/// Marks that are kept; of a program that sets more, those that came first.
const MOST: usize = 10_000;

/// A mark.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Its name.
    pub name: String,
}

/// The first marks, and how many there are.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Marks {
    /// By time.
    pub first: Vec<Mark>,
    /// How many there are in all.
    pub count: u64,
}

impl Marks {
    /// Adds one that is later than all others.
    pub(super) fn add(&mut self, at_ns: u64, name: &str) {
        self.count += 1;
        if self.first.len() < MOST {
            self.first.push(Mark { at_ns, name: name.to_owned() });
        }
    }

    /// Adds those of another process.
    pub(super) fn absorb(&mut self, other: Marks) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.sort();
        self.first.truncate(MOST);
    }
}
