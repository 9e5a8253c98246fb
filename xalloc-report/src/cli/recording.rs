//! How a program is recorded: what `record` and `check -- COMMAND` share.

use std::ffi::OsString;

use clap::{Args, ValueEnum};
use xalloc_core::sampling::MOST_MEAN_BYTES;

use super::Failure;
use super::values::bytes;
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

/// What follows the report of a misused heap.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
enum OnError {
    /// Abort where libc does
    #[default]
    Abort,
    /// Go on: the call has no effect
    Report,
}

impl From<OnError> for record::OnError {
    fn from(choice: OnError) -> record::OnError {
        match choice {
            OnError::Abort => record::OnError::Abort,
            OnError::Report => record::OnError::Report,
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

/// What events are stamped with.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Clock {
    /// The time-stamp counter where it runs at one rate on all cores, else the system's clock
    #[default]
    Auto,
    /// The time-stamp counter
    Tsc,
    /// The system's monotonic clock: some 20 ns more an event
    Monotonic,
}

impl From<Clock> for record::Clock {
    fn from(choice: Clock) -> record::Clock {
        match choice {
            Clock::Auto => record::Clock::Auto,
            Clock::Tsc => record::Clock::Tsc,
            Clock::Monotonic => record::Clock::Monotonic,
        }
    }
}

/// By which signal the recorder is asked for something: those that mean nothing to it otherwise.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum AskingSignal {
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
}

impl From<AskingSignal> for record::AskingSignal {
    fn from(choice: AskingSignal) -> record::AskingSignal {
        match choice {
            AskingSignal::Usr1 => record::AskingSignal::Usr1,
            AskingSignal::Usr2 => record::AskingSignal::Usr2,
        }
    }
}

/// The mean distance of recorded bytes.
fn mean(text: &str) -> Result<u32, String> {
    if !text.starts_with(|letter: char| letter.is_ascii_digit()) {
        return Err(format!("`{text}` is no size; write for example `--sample 512KiB` before the command"));
    }
    let known = bytes(text)?;
    let wrong = || format!("`{text}` is not between 1 B and 1 GiB; usual are 64KiB to 4MiB");
    u32::try_from(known).ok().filter(|mean| (1..=MOST_MEAN_BYTES).contains(mean)).ok_or_else(wrong)
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
    /// What events are stamped with
    #[arg(long, value_enum, default_value_t)]
    clock: Clock,
    /// Frames that a call stack keeps, innermost first
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Leave out the heap's own steps (split, coalesce, bin)
    #[arg(long)]
    no_heap_steps: bool,
    /// Keep the call stacks of frees too, by which a fault's report says where a block was freed first
    #[arg(long)]
    free_stacks: bool,
    /// Record only the allocations that one byte in so many falls into (512KiB is usual): far cheaper, and every figure is
    /// an estimate
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = mean,
        conflicts_with_all = ["leak_check_on_signal", "leak_check_on_demand"],
    )]
    sample: Option<u32>,
    /// What follows the report of a pointer that is no block, or of a heap that was overwritten
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Compare every N-th call stack with a plain walk and count the differences
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    verify_stacks: Option<u32>,
    /// Do not look, at the end of each process, which of its blocks nothing points to
    #[arg(long)]
    no_leak_check: bool,
    /// Look for leaks too when SIGTERM or SIGINT ends a program that has no handler for it
    #[arg(long, conflicts_with = "no_leak_check")]
    leak_check_on_signal: bool,
    /// Look at the program's resident memory whenever `xalloc-report` itself is sent this signal
    #[arg(long, value_enum, value_name = "SIGNAL")]
    snapshot_on_signal: Option<AskingSignal>,
    /// Look for leaks in the running processes whenever `xalloc-report` itself is sent this signal
    #[arg(long, value_enum, value_name = "SIGNAL", conflicts_with = "no_leak_check")]
    leak_check_on_demand: Option<AskingSignal>,
    /// Look at the program's resident memory at every mark that it sets, while it waits
    #[arg(long)]
    snapshot_at_markers: bool,
    /// Leave functions unresolved; the trace keeps the build-ids
    #[arg(long)]
    no_symbols: bool,
}

impl RecordingArgs {
    /// The recording of a command.
    pub(super) fn props(&self, command: &[OsString]) -> Result<Props, Failure> {
        if self.snapshot_on_signal.is_some() && self.snapshot_on_signal == self.leak_check_on_demand {
            let error = anyhow::anyhow!("--snapshot-on-signal and --leak-check-on-demand name the same signal");
            return Err(Failure::new(error).hint("give usr1 to one of them and usr2 to the other"));
        }
        Ok(Props {
            allocator: self.allocator.into(),
            overflow: self.overflow.into(),
            clock: self.clock.into(),
            follow: !self.no_follow,
            depth: self.depth,
            verify_every: self.verify_stacks.unwrap_or(0),
            heap_steps: !self.no_heap_steps,
            free_stacks: self.free_stacks,
            sample_mean_bytes: self.sample.unwrap_or(0),
            on_error: self.on_error.into(),
            // What a block that was not recorded points to is not known, nor whether there is one.
            leak_check: !self.no_leak_check && self.sample.is_none(),
            leak_check_on_signal: self.leak_check_on_signal,
            snapshot_on_signal: self.snapshot_on_signal.map(Into::into),
            leak_check_on_demand: self.leak_check_on_demand.map(Into::into),
            snapshot_at_markers: self.snapshot_at_markers,
            symbols: !self.no_symbols,
            ..Props::new(command.to_vec())
        })
    }
}
