//! Time stamps that order events across threads.
//!
//! A plain `rdtsc` executes ahead of the load that obtained a pointer, and then two threads that hand a block over
//! appear in the wrong order a few times in a million. `lfence` before it waits for the loads; it costs 6 ns.
//!
//! # Safety
//! - `_rdtsc` and `_mm_lfence` are part of every x86-64 processor and touch no memory;
//! - `clock_gettime` writes only the `timespec` it is given.
#![allow(unsafe_code)]

use crate::units::Stamp;

/// Ticks of the time-stamp counter, read after every earlier load is done.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn ticks() -> Stamp {
    // SAFETY: first bullet of the module.
    unsafe { core::arch::x86_64::_mm_lfence() };
    // SAFETY: first bullet of the module.
    Stamp(unsafe { core::arch::x86_64::_rdtsc() })
}

/// Ticks of the time-stamp counter, read whenever the processor likes: for a process with one thread, whose events need
/// no order but their own. The read then overlaps with the work around it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn ticks_unordered() -> Stamp {
    // SAFETY: first bullet of the module.
    Stamp(unsafe { core::arch::x86_64::_rdtsc() })
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME` in nanoseconds since 1970-01-01 UTC.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanoseconds(libc::CLOCK_REALTIME)
}

/// Whether the time-stamp counter runs at one rate on all cores and in every power state: CPUID 8000_0007h, EDX bit 8
/// ("invariant TSC", AMD64 and Intel SDM volume 3, "Time-Stamp Counter").
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn ticks_are_invariant() -> bool {
    const HIGHEST_LEAF: u32 = 0x8000_0000;
    const POWER_LEAF: u32 = 0x8000_0007;
    core::arch::x86_64::__cpuid(HIGHEST_LEAF).eax >= POWER_LEAF
        && core::arch::x86_64::__cpuid(POWER_LEAF).edx & 1 << 8 != 0
}

/// Processor time that the calling thread has taken so far, in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: second bullet of the module.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_never_run_backwards() {
        let mut last = Stamp(0);
        for _ in 0..1_000 {
            let now = ticks();
            assert!(now >= last);
            last = now;
        }
        assert!(monotonic_ns() > 0);
        assert!(realtime_ns() > 1_600_000_000 * 1_000_000_000);
    }

    #[test]
    fn a_thread_that_sleeps_takes_no_processor_time() {
        let (before, began) = (thread_cpu_ns(), monotonic_ns());
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (taken, passed) = (thread_cpu_ns() - before, monotonic_ns() - began);
        assert!(passed >= 50_000_000 && taken < passed / 2, "{taken} of {passed}");
    }
}
