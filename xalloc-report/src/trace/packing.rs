//! Packing full blocks of events in a thread beside the one that fills them.
//!
//! A program that allocates faster than it is recorded waits for the recorder: while it does, a core is idle, and
//! compressing, a tenth to a quarter of the recorder's work (47 to 145 instructions an event), is what can be done there
//! without a lock. Of a loop of nothing but `malloc` and `free`, the recorder's own thread had four fifths of the work left
//! (samples of the processor's clock). Where the program uses all cores itself, the work is the same as without a thread,
//! but for two wake-ups every 64 Ki events and a block's columns, which change cores.
//!
//! # Invariant
//! At most one block is away. Whoever has more to write asks for it back first ([`Packing::back`]), so what lies in the
//! file lies there in the order in which it was closed, and all of it is written by the thread that owns the file.
//!
//! # Only full blocks
//! A block that is cut short is wanted in the file at once, and a program that never fills one needs no thread.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::columns::Packer;
use super::container::BlockHeader;
use super::rows::Fields;

/// A closed block of events whose columns are not packed.
pub(super) struct Unpacked {
    pub(super) header: BlockHeader,
    pub(super) fields: Fields,
}

impl Unpacked {
    /// The block as it lies in the file; its columns are empty then.
    pub(super) fn pack(&mut self, packer: &mut Packer) -> io::Result<Vec<u8>> {
        let mut payload = Vec::with_capacity(self.header.items as usize);
        for field in self.fields.iter_mut() {
            packer.pack(field, &mut payload)?;
            field.clear();
        }
        Ok(self.header.frame(&payload))
    }
}

/// What comes back: the columns for their memory, and the packed block.
type Packed = (Unpacked, io::Result<Vec<u8>>);

/// The thread that packs, and the block that it has.
pub(super) struct Packing {
    to: SyncSender<Unpacked>,
    from: Receiver<Packed>,
    is_away: bool,
}

impl Packing {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start() -> io::Result<Packing> {
        let mut packer = Packer::of_full_blocks()?;
        let (to, blocks) = sync_channel::<Unpacked>(1);
        let (packed, from) = sync_channel::<Packed>(1);
        thread::Builder::new().name("packer".into()).spawn(move || {
            for mut block in blocks {
                let framed = block.pack(&mut packer);
                if packed.send((block, framed)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Packing { to, from, is_away: false })
    }

    /// Gives a block away. The one before has to be back.
    pub(super) fn give(&mut self, block: Unpacked) -> io::Result<()> {
        debug_assert!(!self.is_away);
        self.to.send(block).map_err(|_| gone())?;
        self.is_away = true;
        Ok(())
    }

    /// Waits for the block that is away, if one is.
    pub(super) fn back(&mut self) -> io::Result<Option<(Unpacked, Vec<u8>)>> {
        if !std::mem::take(&mut self.is_away) {
            return Ok(None);
        }
        let (block, framed) = self.from.recv().map_err(|_| gone())?;
        Ok(Some((block, framed?)))
    }
}

/// The thread has ended before its owner: it panicked.
fn gone() -> io::Error {
    io::Error::other("the thread that compresses has ended")
}
