//! Which module a code address belongs to, and the news that a module is in use.
//!
//! A recording names code by address, so it must say which file lay where. A module is announced when a captured stack
//! first touches it: a program maps a hundred libraries and allocates from ten, and modules that the loader maps
//! without any call that could be interposed (iconv's, name services') are found the same way.
//!
//! # No lock
//! `dl_iterate_phdr` takes the loader's lock, which `dlopen` holds while it calls `malloc`; with another lock of the
//! program's in between that is a deadlock, the classic one of this field. glibc 2.35 brought `_dl_find_object`, which
//! waits for nobody. Before that, the kernel's list of mappings serves: slow, but a module is looked up there once.
//!
//! # Safety
//! - `_dl_find_object` may be called anywhere, signal handlers included, and fills in the structure that
//!   `<dlfcn.h>` of glibc 2.35 declares.
//! - What it returns stays mapped while code of the module is on the stack of a running thread, and that is the only
//!   time that its result is used: closing a library that is being executed breaks the program without our help.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ops::{ControlFlow, Range};

use xalloc_core::fnv::Fnv1a;
use xalloc_core::primitive::{AtomicU64, Ordering};
use xalloc_core::units::PAGE_BYTES;

use crate::host;

mod elf;
pub(crate) mod maps;
mod symbols;

pub(crate) use elf::Image;
pub(crate) use maps::range_at;
pub(crate) use symbols::Symbols;

/// A module that captured stacks refer to.
#[derive(Clone, Copy, Debug)]
pub struct ModuleSeen<'a> {
    /// Path of the file as the kernel names it, or empty.
    pub path: &'a [u8],
    /// What is added to the file's virtual addresses.
    pub bias: u64,
    /// The first executable address.
    pub code_start: u64,
    /// Behind the last executable address.
    pub code_end: u64,
    /// The linker's hash of the file; empty if it has none.
    pub build_id: &'a [u8],
}

/// Who is told of modules.
pub trait Announce {
    /// Stacks may refer to this module from now on. Said at least once for each module and generation; threads that
    /// meet a module at the same time may each say it.
    fn module(&mut self, module: &ModuleSeen<'_>);
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut DlFindObject) -> c_int;

/// `struct dl_find_object` of `<dlfcn.h>`, with the space that glibc reserves for members to come.
#[repr(C)]
struct DlFindObject {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// The way to find a module, chosen once a process.
#[derive(Clone, Copy)]
pub(crate) struct Finder(Option<FindObject>);

impl Finder {
    /// Looks for the loader's own way. This may allocate (`dlsym` words its error messages): not for a hook's path.
    pub(crate) fn new() -> Finder {
        // SAFETY: looks a name up in the global scope; the name ends with a NUL.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        // SAFETY: by the first bullet of the module a function of this type, if there is one of this name; a null
        // pointer is `None`.
        Finder(unsafe { core::mem::transmute::<*mut c_void, Option<FindObject>>(found) })
    }

    /// The module that holds `pc`. `announced` are the modules already known, for where the loader cannot be asked.
    ///
    /// # Safety
    /// - The module of `pc` stays loaded for `'a` (second bullet of the module).
    pub(crate) unsafe fn image_at<'a>(self, pc: u64, announced: &Announced, generation: u32) -> Option<Image<'a>> {
        let loaders = match self.0 {
            // Found nowhere by the loader: no module.
            Some(find) => Some(start_by_loader(find, pc)?),
            None => None,
        };
        // SAFETY: a range that the loader knows starts at a mapped page, and stays by the contract.
        let whole = loaders.and_then(|start| unsafe { Image::at(start) });
        if let Some(image) = whole {
            return image.extent().contains(&pc).then_some(image);
        }
        // Of a module whose segments have holes between them the loader names the segment, not the start.
        let start = announced.start_of(pc, generation).or_else(|| start_by_kernel(pc))?;
        // SAFETY: `start` is where a mapped file starts, and it stays by the contract.
        let image = unsafe { Image::at(start) }?;
        image.extent().contains(&pc).then_some(image)
    }
}

fn start_by_loader(find: FindObject, pc: u64) -> Option<u64> {
    let mut found = MaybeUninit::<DlFindObject>::uninit();
    // SAFETY: first bullet of the module.
    let answer = unsafe { find(core::ptr::with_exposed_provenance_mut(pc as usize), found.as_mut_ptr()) };
    if answer != 0 {
        return None;
    }
    // SAFETY: the structure was filled in, as the answer says; only the member that is read need be.
    let start = unsafe { (*found.as_ptr()).map_start };
    Some(start as u64)
}

/// The first mapping of the file whose mapping holds `pc`, if the file's mappings lie one behind another.
fn start_by_kernel(pc: u64) -> Option<u64> {
    let (mut start, mut name) = (0, 0);
    maps::search(|mapping| {
        let same = !mapping.path.is_empty() && Fnv1a::of(mapping.path) == name;
        if !same && !mapping.path.is_empty() {
            (start, name) = (mapping.range.start, Fnv1a::of(mapping.path));
        }
        if !mapping.range.contains(&pc) {
            return ControlFlow::Continue(());
        }
        let is_image = mapping.path.first() == Some(&b'/') || mapping.path == b"[vdso]";
        ControlFlow::Break(is_image.then_some(start))
    })
    .flatten()
}

unsafe extern "C" {
    /// The linker's name for where a module's ELF header lies in memory.
    #[link_name = "__ehdr_start"]
    static OWN_HEADER: u8;
}

/// This library itself.
pub(crate) fn own_image() -> Option<Image<'static>> {
    // SAFETY: this library's own header, which stays as long as this code does.
    unsafe { Image::at((&raw const OWN_HEADER) as u64) }
}

/// All addresses of this library itself.
pub(crate) fn own_extent() -> Range<u64> {
    own_image().map_or(0..0, |image| image.extent().start..image.extent().end.next_multiple_of(PAGE_BYTES))
}

const KNOWN: usize = 1024;

/// Which modules were announced. Zeroed memory is an empty list.
///
/// An entry is a module's start, in whose low bits, which a page-aligned address leaves free, stands the generation: an
/// entry of a generation that is over counts as free. When the list is full, modules are announced again and again.
///
/// Beside it stands the module's end, with the generation too: an end without its start's generation is none. So a pc is
/// told from the list alone, and only the module that holds it is touched: another may have been unloaded by libc itself,
/// which no hook sees and which ends no generation.
#[repr(C)]
pub(crate) struct Announced {
    starts: [AtomicU64; KNOWN],
    ends: [AtomicU64; KNOWN],
}

impl Announced {
    /// Tells `announce` of the module, unless that was done before.
    pub(crate) fn once(&self, image: &Image<'_>, generation: u32, announce: &mut impl Announce) {
        let entry = entry(image.start(), generation);
        if self.entries().any(|(known, _)| known == entry) {
            return;
        }
        tell(image, announce);
        // Afterwards: whoever finds the entry may rely on the announcement.
        for (known, end) in self.starts.iter().zip(&self.ends) {
            let before = known.load(Ordering::Relaxed);
            // Relaxed: the entry says nothing about other memory.
            let free = before == 0 || before % PAGE_BYTES != entry % PAGE_BYTES;
            if before == entry {
                return;
            }
            if free && known.compare_exchange(before, entry, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                // Relaxed: who sees the entry without it asks the kernel.
                end.store(self::entry(image.extent().end.next_multiple_of(PAGE_BYTES), generation), Ordering::Relaxed);
                return;
            }
        }
    }

    /// Forgets all. What other threads enter meanwhile belongs to a generation that is over.
    pub(crate) fn empty(&self) {
        self.starts.iter().chain(&self.ends).for_each(|known| known.store(0, Ordering::Relaxed));
    }

    fn start_of(&self, pc: u64, generation: u32) -> Option<u64> {
        let mine = |known: u64| {
            (known % PAGE_BYTES == u64::from(generation) % PAGE_BYTES).then_some(known & !(PAGE_BYTES - 1))
        };
        let ranges = self.entries().filter_map(|(start, end)| Some(mine(start)?..mine(end)?));
        ranges.filter(|range| range.contains(&pc)).map(|range| range.start).find(|&start| {
            // SAFETY: a module that holds the pc was announced here, and a page is mapped.
            host::is_mapped(start) && unsafe { Image::at(start) }.is_some_and(|image| image.extent().contains(&pc))
        })
    }

    /// The starts and ends of all generations, each with its generation.
    fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        let pairs = self.starts.iter().zip(&self.ends);
        let loaded = pairs.map(|(start, end)| (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed)));
        loaded.take_while(|&(start, _)| start != 0)
    }
}

fn entry(start: u64, generation: u32) -> u64 {
    start | (u64::from(generation) % PAGE_BYTES)
}

#[cold]
#[inline(never)]
fn tell(image: &Image<'_>, announce: &mut impl Announce) {
    let Range { start: code_start, end: code_end } = image.code();
    let (bias, build_id) = (image.bias(), image.build_id());
    let named = maps::at(image.start(), |mapping| {
        announce.module(&ModuleSeen { path: mapping.path, bias, code_start, code_end, build_id });
    });
    if named.is_none() {
        announce.module(&ModuleSeen { path: &[], bias, code_start, code_end, build_id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Heard(Vec<(String, u64, Range<u64>, usize)>);

    impl Announce for Heard {
        fn module(&mut self, module: &ModuleSeen<'_>) {
            let path = String::from_utf8_lossy(module.path).into_owned();
            self.0.push((path, module.bias, module.code_start..module.code_end, module.build_id.len()));
        }
    }

    fn none_announced() -> Announced {
        let zeroes = || std::array::from_fn(|_| AtomicU64::new(0));
        Announced { starts: zeroes(), ends: zeroes() }
    }

    #[test]
    fn loader_and_kernel_name_the_same_module_for_code_of_the_program_and_of_libc() {
        let finder = Finder::new();
        assert!(finder.0.is_some(), "this test wants glibc 2.35 or newer");
        let announced = none_announced();
        let here = none_announced as fn() -> Announced as usize as u64;
        for pc in [here, libc::getpid as *const () as u64, libc::qsort as *const () as u64] {
            // SAFETY: neither the test nor libc is ever unloaded.
            let by_loader = unsafe { finder.image_at(pc, &announced, 0) }.expect("a module");
            // SAFETY: as above.
            let by_kernel = unsafe { Finder(None).image_at(pc, &announced, 0) }.expect("a module");
            assert_eq!(by_loader.extent(), by_kernel.extent());
            assert!(by_loader.code().contains(&pc));
        }
        let on_stack = &raw const announced as u64;
        // SAFETY: there is no module.
        assert!(unsafe { finder.image_at(on_stack, &announced, 0) }.is_none());
        // SAFETY: as above.
        assert!(unsafe { Finder(None).image_at(on_stack, &announced, 0) }.is_none());
    }

    #[test]
    fn a_module_that_is_gone_without_a_word_is_not_touched_for_a_pc_elsewhere() {
        const BYTES: u64 = 2 * PAGE_BYTES;
        let (announced, mut heard) = (none_announced(), Heard(Vec::new()));
        // SAFETY: no place is asked for.
        let memory = unsafe { host::map_anonymous(BYTES as usize, core::ptr::null_mut()) }.expect("two pages");
        // SAFETY: zeroes are a valid header, and the mapping is the test's own.
        let header = unsafe { memory.cast::<libc::Elf64_Ehdr>().as_mut() };
        header.e_ident[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header.e_phoff = 64;
        header.e_phentsize = size_of::<libc::Elf64_Phdr>() as u16;
        header.e_phnum = 1;
        // SAFETY: 64 bytes into the two pages.
        let behind_header = unsafe { memory.add(64) };
        // SAFETY: zeroes are a valid program header, and nothing else refers to it.
        let load = unsafe { behind_header.cast::<libc::Elf64_Phdr>().as_mut() };
        (load.p_type, load.p_memsz) = (libc::PT_LOAD, BYTES);
        let start = memory.as_ptr() as u64;
        // SAFETY: the mapping stays until the image was announced.
        let image = unsafe { Image::at(start) }.expect("an image");
        announced.once(&image, 0, &mut heard);
        assert_eq!(announced.start_of(start + PAGE_BYTES, 0), Some(start));
        assert_eq!(announced.start_of(start + PAGE_BYTES, 1), None, "another generation");
        assert_eq!(announced.start_of(start + BYTES, 0), None);
        // SAFETY: the image is not used any more. The pages stay taken, so that nobody else's come in their place.
        assert_eq!(unsafe { libc::mprotect(memory.as_ptr().cast(), BYTES as usize, libc::PROT_NONE) }, 0);
        assert_eq!(announced.start_of(start + BYTES, 0), None);
        assert_eq!(announced.start_of(start - 1, 0), None);
    }

    #[test]
    fn a_module_is_announced_once_a_generation_with_its_path_and_build_id() {
        let (announced, mut heard) = (none_announced(), Heard(Vec::new()));
        let pc = libc::getpid as *const () as u64;
        // SAFETY: libc is never unloaded.
        let image = unsafe { Finder::new().image_at(pc, &announced, 0) }.expect("libc");
        announced.once(&image, 0, &mut heard);
        announced.once(&image, 0, &mut heard);
        assert_eq!(heard.0.len(), 1);
        let (path, bias, code, build_id_len) = heard.0.first().expect("one");
        assert!(path.starts_with('/') && path.contains("libc"), "{path}");
        assert!(code.contains(&pc) && *bias < code.start);
        assert_eq!(*build_id_len, 20);
        announced.once(&image, 1, &mut heard);
        announced.once(&image, 1, &mut heard);
        assert_eq!(heard.0.len(), 2);
    }
}
