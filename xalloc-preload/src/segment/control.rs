//! The recorder's control page: whether it wants events, and how to wake it.
//!
//! # Safety
//! - The control file is made and filled by the recorder before its path is told to anybody, and is one page long; its
//!   plain fields never change. The mapping is never undone.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use xalloc_core::session::{CONTROL_MAGIC, CONTROL_NAME, Control, Options, control_state};
use xalloc_core::sys::futex::{self, Scope};
use xalloc_core::wire;

use crate::config::{Config, Output, PATH};
use crate::host::File;
use crate::text::Text;

/// Where the events of this process go, found out once per program image.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    /// The recorder's page, or `None` for a recording without recorder.
    pub(crate) control: Option<&'static Control>,
    /// Path of the control file.
    pub(crate) control_path: Text<PATH>,
    /// What the user asked for.
    pub(crate) options: Options,
}

impl Session {
    /// Finds the recorder that the environment names. `None`: nothing is to be recorded, or the recorder is gone, or
    /// it speaks another version.
    pub(crate) fn open(config: &Config) -> Option<Session> {
        match config.output {
            Output::Nowhere => None,
            Output::File => Some(Session { control: None, control_path: Text::new(), options: config.options }),
            Output::Session => {
                let mut path = config.place;
                path.push(b"/");
                path.push(CONTROL_NAME.as_bytes());
                let control = map(&path)?;
                Some(Session { control: Some(control), control_path: path, options: control.options })
            }
        }
    }
}

fn map(path: &Text<PATH>) -> Option<&'static Control> {
    let file = File::open(path.as_c(), libc::O_RDWR)?;
    if path.is_cut() || file.size() < size_of::<Control>() as u64 {
        return None;
    }
    // SAFETY: a new mapping, wherever the kernel likes.
    let memory = unsafe { file.map(size_of::<Control>(), true, core::ptr::null_mut()) }?;
    // SAFETY: by the bullet of the module; the file is at least as long.
    let control = unsafe { memory.cast::<Control>().as_ref() };
    let is_wanted = control.magic == CONTROL_MAGIC
        && control.version == u32::from(wire::VERSION)
        // Relaxed: the page was complete before its path was known.
        && control.state.load(Ordering::Relaxed) == control_state::RECORDING;
    is_wanted.then_some(control)
}

/// Wakes the recorder if it sleeps.
pub(super) fn ring_doorbell(control: &Control) {
    // ORDERING: with the load below: the recorder sets `sleeping` and then compares the doorbell. Either this sees that
    // it sleeps, or the recorder sees the new number and does not.
    control.doorbell.fetch_add(1, Ordering::SeqCst);
    // ORDERING: see above.
    if control.sleeping.load(Ordering::SeqCst) != 0 {
        futex::wake(&control.doorbell, 1, Scope::Shared);
    }
}
