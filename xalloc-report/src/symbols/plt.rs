//! Names for the stubs of the procedure linkage table, which have no symbols of their own: `malloc@plt`.
//!
//! A stub jumps through a slot of the global offset table, and a relocation says whose address the loader writes to that
//! slot. So the stub is decoded and its slot looked up, instead of counting stubs and relocations side by side: with
//! `-z ibtplt`, `.plt.sec` and `.plt.got` there are several layouts, and linkers reorder, but every x86-64 stub has the
//! same jump. Stubs of other processors stay unnamed.

use std::collections::HashMap;

use object::read::elf::ElfFile64;
use object::{Architecture, Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget};

use super::table::Symbol;

/// The sections that hold stubs: lazy, with branch tracking, and for functions whose address is also taken.
const STUB_SECTIONS: [&str; 3] = [".plt", ".plt.sec", ".plt.got"];

/// `jmp *displacement(%rip)` (Intel manual, JMP r/m64: `FF /4`, mod 00, r/m 101).
const JUMP_THROUGH_SLOT: [u8; 2] = [0xff, 0x25];

/// Length of that instruction; its displacement counts from its end.
const JUMP_BYTES: usize = 6;

/// Names of functions by the slot of the global offset table that the loader writes their address to.
pub(super) type Slots<'a> = HashMap<u64, &'a [u8]>;

/// The named stubs of `elf`, whose slots are `slots`.
pub(super) fn stubs<'a>(elf: &ElfFile64<'a>, slots: &Slots<'a>) -> Vec<Symbol<'a>> {
    if elf.architecture() != Architecture::X86_64 {
        return Vec::new();
    }
    let mut stubs = Vec::new();
    for section in STUB_SECTIONS.iter().filter_map(|name| elf.section_by_name(name)) {
        // An unreadable section has no stubs to name.
        let Ok(code) = section.data() else { continue };
        let stride_bytes = if section.name() == Ok(".plt.got") && section.align() <= 8 { 8 } else { 16 };
        for (number, stub) in code.chunks_exact(stride_bytes).enumerate() {
            let start = section.address().wrapping_add((number * stride_bytes) as u64);
            let Some(name) = slot_of(stub, start).and_then(|slot| slots.get(&slot).copied()) else { continue };
            stubs.push(Symbol { start, end: start.saturating_add(stride_bytes as u64), name, is_stub: true });
        }
    }
    stubs
}

/// The address of the slot that the stub at `start` jumps through.
fn slot_of(stub: &[u8], start: u64) -> Option<u64> {
    let jump_at = stub.windows(JUMP_BYTES).position(|code| code.starts_with(&JUMP_THROUGH_SLOT))?;
    let displacement = stub.get(jump_at + JUMP_THROUGH_SLOT.len()..jump_at + JUMP_BYTES)?.try_into().ok()?;
    let next_instruction = start.wrapping_add((jump_at + JUMP_BYTES) as u64);
    Some(next_instruction.wrapping_add_signed(i64::from(i32::from_le_bytes(displacement))))
}

/// The slots of `elf` that relocations name.
pub(super) fn slots<'a>(elf: &ElfFile64<'a>) -> Slots<'a> {
    let mut names = Slots::new();
    let (Some(relocations), Some(symbols)) = (elf.dynamic_relocations(), elf.dynamic_symbol_table()) else {
        return names;
    };
    for (slot, relocation) in relocations {
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let Ok(symbol) = symbols.symbol_by_index(index) else { continue };
        match symbol.name_bytes() {
            Ok(name) if !name.is_empty() => names.insert(slot, name),
            Ok(_) | Err(_) => None,
        };
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_stub_is_found_behind_a_branch_landing_mark() {
        // endbr64; bnd jmp *0x2fcd(%rip)
        let stub = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xcd, 0x2f, 0, 0, 0x0f, 0x1f, 0x44, 0, 0];
        assert_eq!(slot_of(&stub, 0x1000), Some(0x1000 + 11 + 0x2fcd));
        assert_eq!(slot_of(&[0x90; 16], 0x1000), None);
        assert_eq!(slot_of(&[0xff, 0x25], u64::MAX), None);
    }
}
