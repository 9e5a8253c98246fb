//! The live process: `sbrk`, system calls, and memory itself.
//!
//! The break moves through libc's `__sbrk` and never by a raw system call, because libc caches the break; and by that
//! name rather than `sbrk`, because a preloaded library may itself define `sbrk` in order to see the program's calls.
//!
//! errno is saved here, around the calls that can change it: the operations of the heap that need no system call then need
//! not think of it.
//!
//! # Safety
//! - [`Memory`]: accesses are made at addresses that the caller vouches for; provenance is exposed once, when a range is
//!   obtained from the system, which is where the kernel's pointers come from, or by the arena whose lists' ends they are.
//! - [`Os`]: ranges come from the kernel, which hands none out twice.
//! - Every system call here names only ranges that the heap owns, or asks the kernel to choose.
#![allow(unsafe_code)]

mod huge;

use core::ffi::CStr;
use core::ptr::{NonNull, with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::{HugePages, Memory, Os};
use crate::sys::errno;

unsafe extern "C" {
    /// glibc's `sbrk` by the name that a program does not define.
    fn __sbrk(increment: libc::intptr_t) -> *mut libc::c_void;
    /// Where glibc takes the break to be; null before the first call of the one above.
    static __curbrk: AtomicU64;
}

/// The system and the memory of the running process.
#[derive(Debug)]
pub struct Live {
    page_bytes: AtomicU64,
    /// -1: not asked yet; else whether sub-heaps shrink by decommitting.
    decommits: AtomicI32,
}

impl Live {
    /// The live system; asks it nothing yet.
    #[must_use]
    pub const fn new() -> Live {
        Live { page_bytes: AtomicU64::new(0), decommits: AtomicI32::new(-1) }
    }
}

impl Default for Live {
    fn default() -> Live {
        Live::new()
    }
}

/// What a call that returns an address or -1 says.
fn address(result: libc::c_long) -> Option<u64> {
    (result != -1).then_some(result as u64)
}

/// Maps `len` bytes with `prot` and, beyond private and anonymous, `flags`.
fn mmap(addr: u64, len: u64, prot: libc::c_int, flags: libc::c_int) -> Option<u64> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: by the third bullet of the module: without MAP_FIXED the kernel chooses, with it the heap owns the range.
    let mapped = errno::preserving(|| unsafe {
        libc::syscall(libc::SYS_mmap, addr, len, word(prot), word(flags), -1_i64, 0_usize)
    });
    address(mapped)
}

/// An argument that the kernel takes as a whole word: of a narrower one the upper half is undefined.
fn word(argument: libc::c_int) -> libc::c_long {
    libc::c_long::from(argument)
}

// SAFETY: by the bullets of the module.
unsafe impl Os for Live {
    unsafe fn break_by(&self, delta: i64) -> Option<u64> {
        // SAFETY: the heap shrinks the break only to give back what it owns.
        let old = errno::preserving(|| unsafe { __sbrk(delta as libc::intptr_t) });
        let old = old.expose_provenance();
        (old != usize::MAX).then_some(old as u64)
    }

    fn map(&self, len: u64) -> Option<u64> {
        mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, 0)
    }

    fn map_huge(&self, len: u64, page_bytes: u64) -> Option<u64> {
        mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, huge_flags(page_bytes))
    }

    fn reserve_huge(&self, hint: u64, len: u64, page_bytes: u64) -> Option<u64> {
        mmap(hint, len, libc::PROT_NONE, huge_flags(page_bytes))
    }

    fn reserve(&self, hint: u64, len: u64) -> Option<u64> {
        mmap(hint, len, libc::PROT_NONE, libc::MAP_NORESERVE)
    }

    unsafe fn unmap(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the third bullet of the module.
        errno::preserving(|| unsafe { libc::syscall(libc::SYS_munmap, addr, len) == 0 })
    }

    unsafe fn remap(&self, addr: u64, old_len: u64, new_len: u64) -> Option<u64> {
        // The new address is looked at even where nothing asks to use it: of huge pages it has to be a multiple.
        // SAFETY: by the third bullet of the module.
        address(errno::preserving(|| unsafe {
            libc::syscall(libc::SYS_mremap, addr, old_len, new_len, word(libc::MREMAP_MAYMOVE), 0_usize)
        }))
    }

    unsafe fn commit(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the third bullet of the module.
        errno::preserving(|| unsafe {
            libc::syscall(libc::SYS_mprotect, addr, len, word(libc::PROT_READ | libc::PROT_WRITE)) == 0
        })
    }

    unsafe fn discard(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the third bullet of the module.
        errno::preserving(|| unsafe { libc::syscall(libc::SYS_madvise, addr, len, libc::MADV_DONTNEED) == 0 })
    }

    unsafe fn decommit(&self, addr: u64, len: u64) -> bool {
        mmap(addr, len, libc::PROT_NONE, libc::MAP_FIXED | libc::MAP_NORESERVE).is_some()
    }

    unsafe fn advise_huge(&self, addr: u64, len: u64) {
        // SAFETY: by the third bullet of the module. Without such pages the range stays as it is.
        errno::preserving(|| unsafe { libc::syscall(libc::SYS_madvise, addr, len, libc::MADV_HUGEPAGE) });
    }

    fn transparent_pages(&self) -> HugePages {
        huge::transparent()
    }

    fn huge_page_bytes(&self, asked: Option<u64>) -> Option<u64> {
        match asked {
            None => huge::default_bytes(),
            Some(bytes) => huge::is_size(bytes).then_some(bytes),
        }
    }

    fn remembered_break(&self) -> Option<u64> {
        // SAFETY: glibc defines it, an aligned word that is there as long as the process.
        let remembered = unsafe { &__curbrk }.load(Ordering::Relaxed);
        (remembered != 0).then_some(remembered)
    }

    fn shrinks_by_decommit(&self) -> bool {
        let known = self.decommits.load(Ordering::Relaxed);
        if known >= 0 {
            return known != 0;
        }
        let decommits = is_privileged() || errno::preserving(overcommit_is_strict);
        self.decommits.store(i32::from(decommits), Ordering::Relaxed);
        decommits
    }

    fn page_bytes(&self) -> u64 {
        let known = self.page_bytes.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        // SAFETY: reads the auxiliary vector, which is there before any code of the process.
        let bytes = unsafe { libc::getauxval(libc::AT_PAGESZ) };
        self.page_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    fn cores(&self) -> u64 {
        // SAFETY: sysconf reads files of the kernel and does not allocate for this name.
        let online = errno::preserving(|| unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) });
        u64::try_from(online).unwrap_or(0).max(1)
    }

    fn thread_id(&self) -> u32 {
        // SAFETY: gettid has no arguments and cannot fail.
        unsafe { libc::syscall(libc::SYS_gettid) as u32 }
    }

    fn is_main_thread(&self) -> bool {
        // SAFETY: getpid has no arguments and cannot fail.
        let pid = unsafe { libc::syscall(libc::SYS_getpid) };
        pid as u32 == self.thread_id()
    }

    unsafe fn arena_home(&self, addr: u64) -> NonNull<u8> {
        let home = with_exposed_provenance_mut(addr as usize);
        // SAFETY: by the contract `addr` is inside a mapped sub-heap, so it is not null.
        unsafe { NonNull::new_unchecked(home) }
    }

    #[inline(always)]
    fn ends_home(&self, _: u16, addr: u64) -> u64 {
        addr
    }

    fn side_table(&self, len: u64) -> Option<NonNull<u8>> {
        let table = mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_NORESERVE)?;
        NonNull::new(with_exposed_provenance_mut(table as usize))
    }
}

/// What makes a mapping one of huge pages of `page_bytes`, a power of two.
fn huge_flags(page_bytes: u64) -> libc::c_int {
    libc::MAP_HUGETLB | (page_bytes.trailing_zeros() as libc::c_int) << libc::MAP_HUGE_SHIFT
}

/// Whether the process runs with rights that its starter does not have (`AT_SECURE`).
fn is_privileged() -> bool {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the kernel accounts strictly for committed memory.
fn overcommit_is_strict() -> bool {
    let mut digit = [0_u8; 1];
    read_start(c"/proc/sys/vm/overcommit_memory", &mut digit) == 1 && digit[0] == b'2'
}

/// Reads the beginning of a file into `text`. Returns how many bytes it has there, 0 if it cannot be read.
fn read_start(path: &CStr, text: &mut [u8]) -> usize {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path is a C string that lives for the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return 0;
    }
    // SAFETY: `text` is writable for its length.
    let got = unsafe { libc::syscall(libc::SYS_read, fd, text.as_mut_ptr(), text.len()) };
    // SAFETY: `fd` was opened above and is closed once.
    unsafe { libc::syscall(libc::SYS_close, fd) };
    usize::try_from(got).unwrap_or(0)
}

// SAFETY: a load is a read of memory that the caller vouches for, a store a write of it.
unsafe impl Memory for Live {
    #[inline(always)]
    unsafe fn load(&self, addr: u64) -> u64 {
        // SAFETY: by the caller's contract the word belongs to the heap and is only accessed as here.
        let word = unsafe { AtomicU64::from_ptr(with_exposed_provenance_mut(addr as usize)) };
        // Relaxed: what is decided by the word is decided under a lock; the others only ask whether it is plausible.
        word.load(Ordering::Relaxed)
    }

    #[inline(always)]
    unsafe fn store(&self, addr: u64, value: u64) {
        // SAFETY: by the caller's contract the word belongs to the heap and is only accessed as here.
        let word = unsafe { AtomicU64::from_ptr(with_exposed_provenance_mut(addr as usize)) };
        // Relaxed: as above.
        word.store(value, Ordering::Relaxed);
    }

    unsafe fn copy(&self, from: u64, to: u64, len: u64) {
        let (from, to) = (with_exposed_provenance::<u8>(from as usize), with_exposed_provenance_mut(to as usize));
        // SAFETY: by the caller's contract both ranges are the caller's and do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(from, to, len as usize) };
    }

    unsafe fn fill(&self, addr: u64, len: u64, byte: u8) {
        let block = with_exposed_provenance_mut::<u8>(addr as usize);
        // SAFETY: by the caller's contract the range is the caller's.
        unsafe { block.write_bytes(byte, len as usize) };
    }
}
