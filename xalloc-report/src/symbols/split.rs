//! Split DWARF: the part of the debug information that the linker never saw.
//!
//! With `-gsplit-dwarf` a unit in the binary is a skeleton that names a `.dwo` file by path and by a 64-bit identity; a
//! `.dwp` package beside the binary may hold all of them. A file is used only if its identity is the skeleton's, because
//! a `.dwo` in a build directory is easily newer than the binary.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::SplitDwarfLoad;
use gimli::{Dwarf, DwarfPackage, DwarfPackageSections, EndianSlice, RunTimeEndian};

use super::Error;
use super::dwarf::{Bytes, SectionSet, Sections, section, sections};
use super::image::Image;
use super::locate::Opened;
use super::nesting;
use super::shelf::Shelf;
use super::trail::Trail;

/// Keeps the maps of split files for as long as a lookup lasts.
pub(super) struct Maps(Shelf<Opened>);

/// Keeps their sections, which may borrow from the maps.
pub(super) struct Decompressed<'m> {
    units: Shelf<Sections<'m>>,
    packages: Shelf<DwarfPackageSections<Cow<'m, [u8]>>>,
}

impl Maps {
    pub(super) fn new() -> Self {
        Maps(Shelf::new())
    }
}

impl Decompressed<'_> {
    pub(super) fn new() -> Self {
        Decompressed { units: Shelf::new(), packages: Shelf::new() }
    }
}

/// Finds and opens the split files of one module.
pub(super) struct SplitFiles<'m, 's> {
    maps: &'m Maps,
    decompressed: &'s Decompressed<'m>,
    endian: RunTimeEndian,
    /// The files whose names a package's name is made from, and beside which moved `.dwo` files are looked for.
    owners: Vec<PathBuf>,
    trail: &'m Trail,
    /// Opened at the first need, because most modules have no split files.
    packages: Option<Vec<DwarfPackage<Bytes<'s>>>>,
    /// The first `.dwo` file that was not found.
    pub(super) missing: Option<PathBuf>,
}

impl<'m, 's> SplitFiles<'m, 's> {
    pub(super) fn new(
        maps: &'m Maps,
        decompressed: &'s Decompressed<'m>,
        endian: RunTimeEndian,
        owners: Vec<PathBuf>,
        trail: &'m Trail,
    ) -> Self {
        SplitFiles { maps, decompressed, endian, owners, trail, packages: None, missing: None }
    }

    /// The split DWARF of one skeleton unit, from a package or from its own file.
    pub(super) fn load(&mut self, wanted: SplitDwarfLoad<Bytes<'s>>) -> Option<Arc<Dwarf<Bytes<'s>>>> {
        let found = self.find_in_packages(&wanted).or_else(|| self.find_as_file(&wanted));
        // A unit that nests without end would overflow the stack of the reader.
        let found = found.filter(|dwarf| nesting::check(dwarf).is_ok());
        if found.is_none() && self.missing.is_none() {
            self.missing = wanted.path.map(|path| path_of(&path));
        }
        found.map(Arc::new)
    }

    fn find_in_packages(&mut self, wanted: &SplitDwarfLoad<Bytes<'s>>) -> Option<Dwarf<Bytes<'s>>> {
        if self.packages.is_none() {
            self.packages =
                Some(self.package_paths().iter().filter_map(|path| self.open_package(path).ok()?).collect());
        }
        self.packages.iter().flatten().find_map(|package| package.find_cu(wanted.dwo_id, &wanted.parent).ok()?)
    }

    /// `app.dwp` for `app`, `app.debug.dwp` and `app.dwp` for `app.debug`.
    fn package_paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for owner in &self.owners {
            let mut appended = owner.clone().into_os_string();
            appended.push(".dwp");
            paths.push(PathBuf::from(appended));
            if owner.extension().is_some_and(|extension| extension == "debug") {
                paths.push(owner.with_extension("dwp"));
            }
        }
        paths.dedup();
        paths
    }

    fn open_package(&self, path: &Path) -> Result<Option<DwarfPackage<Bytes<'s>>>, Error> {
        let Some(opened) = self.maps.0.put(self.trail.open(path)?) else { return Ok(None) };
        let image = Image::parse(&opened.bytes)?;
        let loaded = DwarfPackageSections::load(|id| section(&image, id, SectionSet::Package))?;
        let Some(loaded) = self.decompressed.packages.put(loaded) else { return Ok(None) };
        let endian = self.endian;
        Ok(Some(loaded.borrow(|bytes| EndianSlice::new(bytes, endian), EndianSlice::new(&[], endian))?))
    }

    fn find_as_file(&self, wanted: &SplitDwarfLoad<Bytes<'s>>) -> Option<Dwarf<Bytes<'s>>> {
        let path = path_of(wanted.path.as_ref()?);
        let comp_dir = wanted.comp_dir.as_ref().map(path_of).unwrap_or_default();
        let beside_owners = self.owners.iter().filter_map(|owner| Some(owner.parent()?.join(path.file_name()?)));
        [comp_dir.join(&path)].into_iter().chain(beside_owners).find_map(|path| self.open_unit(&path, wanted).ok()?)
    }

    fn open_unit(&self, path: &Path, wanted: &SplitDwarfLoad<Bytes<'s>>) -> Result<Option<Dwarf<Bytes<'s>>>, Error> {
        let Some(opened) = self.maps.0.put(self.trail.open(path)?) else { return Ok(None) };
        let image = Image::parse(&opened.bytes)?;
        let Some(loaded) = self.decompressed.units.put(sections(&image, SectionSet::Split)?) else { return Ok(None) };
        let mut dwarf = loaded.borrow(|bytes| EndianSlice::new(bytes, self.endian));
        dwarf.make_dwo(&wanted.parent);
        let Some(header) = dwarf.units().next()? else { return Ok(None) };
        let is_wanted = dwarf.unit(header)?.dwo_id == Some(wanted.dwo_id);
        Ok(is_wanted.then_some(dwarf))
    }
}

fn path_of(bytes: &Bytes<'_>) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes.slice()))
}
