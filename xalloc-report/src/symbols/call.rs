//! Which function a call names: what the caller wrote, whatever the stack shows in its place.
//!
//! A function that ends with a jump to another one leaves no frame: libstdc++'s `operator new[]` is a jump to
//! `operator new`, and a stack cannot tell the two apart. But the instruction before the return address can, if it states
//! its target: directly, or by a slot of the global offset table (code built without stubs). Where the call leads through
//! a register, nothing is said. Calls of other processors than x86-64 stay unread.
//!
//! # Why a wrong name is not to be feared
//! Instructions cannot be read backwards with certainty. Bytes that only look like a call lead somewhere into the file;
//! a name is given out only if a function begins at that very address, or a relocation fills that very slot.

use object::read::elf::ElfFile64;
use object::{Architecture, Object, ObjectSegment};

use super::plt::Slots;
use super::table::{Symbol, Table};

/// `call rel32` (Intel manual, CALL: `E8 cd`).
const CALL: u8 = 0xe8;
/// `call *displacement(%rip)` (Intel manual, CALL r/m64: `FF /2`, mod 00, r/m 101).
const CALL_THROUGH_SLOT: [u8; 2] = [0xff, 0x15];
/// The longer of the two; displacements are 32 bits, and count from the instruction's end.
const LONGEST_BYTES: usize = 6;

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// To the function at this address.
    Function(u64),
    /// To the function whose address is in the slot at this address.
    Slot(u64),
}

/// The calls in the code of one file.
pub(super) struct Calls<'f, 'a> {
    pub(super) elf: &'f ElfFile64<'a>,
    pub(super) slots: &'f Slots<'a>,
    pub(super) table: &'f Table<'a>,
}

impl Calls<'_, '_> {
    /// The linker's name of the function that is called by the instruction whose last byte is at `address`.
    pub(super) fn callee(&self, address: u64) -> Option<String> {
        if self.elf.architecture() != Architecture::X86_64 {
            return None;
        }
        let end = address.checked_add(1)?;
        let start = end.checked_sub(LONGEST_BYTES as u64)?;
        let code = self.elf.segments().find_map(|part| part.data_range(start, LONGEST_BYTES as u64).ok().flatten())?;
        match target(code.try_into().ok()?, end)? {
            Target::Function(start) => {
                let symbol = self.table.find(start).filter(|symbol| symbol.start == start)?;
                Some(Symbol { is_stub: false, ..*symbol }.linker_name())
            }
            Target::Slot(slot) => {
                let name = self.slots.get(&slot)?;
                Some(Symbol { start: slot, end: slot, name, is_stub: false }.linker_name())
            }
        }
    }
}

/// Where the call goes that ends at `end` with these bytes.
fn target(code: [u8; LONGEST_BYTES], end: u64) -> Option<Target> {
    let [first, second, displacement @ ..] = code;
    let there = end.wrapping_add_signed(i64::from(i32::from_le_bytes(displacement)));
    if second == CALL {
        Some(Target::Function(there))
    } else if [first, second] == CALL_THROUGH_SLOT {
        Some(Target::Slot(there))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_states_its_target_or_the_slot_of_its_target_counted_from_its_end() {
        assert_eq!(target([0x90, 0xe8, 0xfb, 0xff, 0xff, 0xff], 0x1005), Some(Target::Function(0x1000)));
        assert_eq!(target([0xff, 0x15, 0xcd, 0x2f, 0, 0], 0x1006), Some(Target::Slot(0x1006 + 0x2fcd)));
        // call *0x28(%rax); call *%rax
        assert_eq!(target([0x90, 0x90, 0x90, 0xff, 0x50, 0x28], 0x1006), None);
        assert_eq!(target([0x90, 0x90, 0x90, 0x90, 0xff, 0xd0], 0x1006), None);
    }
}
