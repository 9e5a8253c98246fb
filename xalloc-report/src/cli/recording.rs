//! How a program is recorded: what `record` and `check -- COMMAND` share.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

use crate::record::{self, Props};

/// Who is to serve the program's allocations.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Allocator {
    /// xalloc's own heap, which places chunks as glibc does
    Core,
    /// The program's own allocator, recorded from outside
    System,
    /// `core`, unless the program brings an allocator of its own
    #[default]
    Auto,
}

impl From<Allocator> for record::Allocator {
    fn from(choice: Allocator) -> record::Allocator {
        match choice {
            Allocator::Core => record::Allocator::Core,
            Allocator::System => record::Allocator::System,
            Allocator::Auto => record::Allocator::Auto,
        }
    }
}

/// What a thread does when its ring is full.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Overflow {
    /// Wait for the recorder: nothing is lost
    #[default]
    Wait,
    /// Drop the event and count it
    Drop,
}

impl From<Overflow> for record::Overflow {
    fn from(choice: Overflow) -> record::Overflow {
        match choice {
            Overflow::Wait => record::Overflow::Wait,
            Overflow::Drop => record::Overflow::Drop,
        }
    }
}

/// How to record.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How to record")]
pub(super) struct RecordingArgs {
    /// Who serves the program's allocations
    #[arg(long, value_enum, default_value_t)]
    allocator: Allocator,
    /// Record children that the program forks or executes (the default)
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Record only the program itself
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// What a thread does when the recorder does not keep up
    #[arg(long, value_enum, default_value_t)]
    overflow: Overflow,
    /// Frames that a call stack keeps, innermost first
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Leave out the heap's own steps (split, coalesce, bin)
    #[arg(long)]
    no_heap_steps: bool,
    /// Compare every N-th call stack with a plain walk and count the differences
    #[arg(long, value_name = "N", default_value_t = 0)]
    verify_stacks: u32,
    /// Do not look, at the end of each process, which of its blocks nothing points to
    #[arg(long)]
    no_leak_check: bool,
    /// Look for leaks too when SIGTERM or SIGINT ends a program that has no handler for it
    #[arg(long, conflicts_with = "no_leak_check")]
    leak_check_on_signal: bool,
    /// Leave functions unresolved; the trace keeps the build-ids
    #[arg(long)]
    no_symbols: bool,
}

impl RecordingArgs {
    /// The recording of a command.
    pub(super) fn props(&self, command: &[OsString]) -> Props {
        Props {
            allocator: self.allocator.into(),
            overflow: self.overflow.into(),
            follow: !self.no_follow,
            depth: self.depth,
            verify_every: self.verify_stacks,
            heap_steps: !self.no_heap_steps,
            leak_check: !self.no_leak_check,
            leak_check_on_signal: self.leak_check_on_signal,
            symbols: !self.no_symbols,
            ..Props::new(command.to_vec())
        }
    }
}
