//! The state of one arena.

/// Bytes that an arena's state takes at the start of its first sub-heap (placement policy, section 1).
pub const ARENA_BYTES: usize = 2200;
