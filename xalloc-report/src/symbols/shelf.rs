//! A place for things that are found during a lookup and must live as long as it.
//!
//! The DWARF context borrows the bytes it reads; a split file (`.dwo`) is found only while the context is in use. A shelf
//! takes the file's map through a shared reference and lends it out for the shelf's own lifetime.
//!
//! # Invariant
//! Row `n` holds `2^n` places and is made once; a place is filled once and never moves, because neither a boxed slice
//! nor a filled [`OnceCell`] does. That is the whole reason why no unsafe code is needed here; a growing `Vec` would
//! move its items, and reference-counted bytes would have to be copied out of the map.

use std::cell::{Cell, OnceCell};

/// Rows that a shelf can have: 2^32 items, more than there are files.
const ROWS: usize = 32;

/// An append-only store that lends its items for its own lifetime.
pub(super) struct Shelf<T> {
    rows: [OnceCell<Box<[OnceCell<T>]>>; ROWS],
    filled: Cell<usize>,
}

impl<T> Shelf<T> {
    pub(super) fn new() -> Self {
        Shelf { rows: std::array::from_fn(|_| OnceCell::new()), filled: Cell::new(0) }
    }

    /// Keeps `item` until the shelf is dropped; `None` when the shelf is full.
    pub(super) fn put(&self, item: T) -> Option<&T> {
        let position = self.filled.get() + 1;
        let row = position.ilog2() as usize;
        let places = self.rows.get(row)?.get_or_init(|| (0..1_usize << row).map(|_| OnceCell::new()).collect());
        let place = places.get(position - (1 << row))?;
        self.filled.set(position);
        Some(place.get_or_init(|| item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_first_is_still_there_after_a_thousand_more() {
        let shelf = Shelf::new();
        let lent: Vec<&String> = (0..1000).map(|i| shelf.put(format!("item {i}")).unwrap()).collect();
        assert!(lent.iter().enumerate().all(|(i, item)| **item == format!("item {i}")));
    }
}
