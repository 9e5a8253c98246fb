//! The one source of atomics and cells: core's, or loom's when the models run (`--cfg xalloc_loom`).
//!
//! Code that takes part in a model imports from here and nowhere else. loom's constructors are not `const`, so types
//! that live in statics have their `new` split by the same cfg; the models use no statics.

#[cfg(not(xalloc_loom))]
pub use core::hint::spin_loop;
#[cfg(not(xalloc_loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(xalloc_loom)]
pub use loom::hint::spin_loop;
#[cfg(xalloc_loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(xalloc_loom)]
pub use loom::cell::UnsafeCell;

/// A cell with loom's interface: the pointer is lent to a closure, so that a model sees where each access ends.
#[cfg(not(xalloc_loom))]
#[derive(Default, Debug)]
#[repr(transparent)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(xalloc_loom))]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        UnsafeCell(core::cell::UnsafeCell::new(value))
    }

    /// Lends a pointer for reading.
    #[inline(always)]
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Lends a pointer for writing.
    #[inline(always)]
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
