//! The recorder's control page: whether it wants events, and how to wake it.
//!
//! # Safety
//! - The control file is made and filled by the recorder before its path is told to anybody, and is one page long; its
//!   plain fields never change. The mapping is never undone.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use xalloc_core::session::{CONTROL_MAGIC, CONTROL_NAME, Control, Options, Refusal, control_state};
use xalloc_core::sys::futex::{self, Scope};
use xalloc_core::wire;

use super::Refused;
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
    /// Finds the recorder that the environment names. `None`: nothing is to be recorded, or the recorder is finished.
    ///
    /// Steps of the heap say nothing where only some of its blocks are known, and are not told then.
    pub(crate) fn open(config: &Config) -> Result<Option<Session>, Refused> {
        let mut found = Session::find(config)?;
        if let Some(Session { options, .. }) = &mut found
            && options.sample_mean_bytes != 0
        {
            options.heap_steps = 0;
        }
        Ok(found)
    }

    fn find(config: &Config) -> Result<Option<Session>, Refused> {
        match config.output {
            Output::Nowhere => Ok(None),
            Output::File => Ok(Some(Session { control: None, control_path: Text::new(), options: config.options })),
            Output::Session => {
                let mut path = config.place;
                path.push(b"/");
                path.push(CONTROL_NAME.as_bytes());
                let control = map(&path)?;
                // Relaxed: the page was complete before its path was known.
                let is_wanted = control.state.load(Ordering::Relaxed) == control_state::RECORDING;
                let session = Session { control: Some(control), control_path: path, options: control.options };
                Ok(is_wanted.then_some(session))
            }
        }
    }
}

fn map(path: &Text<PATH>) -> Result<&'static Control, Refused> {
    let unreadable = || Refused::by_system(Refusal::Control);
    let file = File::open(path.as_c(), libc::O_RDWR).ok_or_else(unreadable)?;
    if path.is_cut() || file.size() < size_of::<Control>() as u64 {
        return Err(Refused::seen(Refusal::Version));
    }
    // SAFETY: a new mapping, wherever the kernel likes.
    let memory = unsafe { file.map(size_of::<Control>(), core::ptr::null_mut()) }.ok_or_else(unreadable)?;
    // SAFETY: by the bullet of the module; the file is at least as long.
    let control = unsafe { memory.cast::<Control>().as_ref() };
    if control.magic != CONTROL_MAGIC || control.version != u32::from(wire::VERSION) {
        return Err(Refused::seen(Refusal::Version));
    }
    Ok(control)
}

/// Wakes the recorder if it sleeps.
pub(super) fn ring_doorbell(control: &Control) {
    // ORDERING: Release publishes what is rung for to the Acquire load in the recorder's `ControlPage::doorbell`. SeqCst
    // sets it before the load below, as the fence in `ControlPage::sleep` sets the recorder's store of `sleeping` before
    // the futex's look at this word: either this sees that it sleeps, or the futex sees the new number.
    control.doorbell.fetch_add(1, Ordering::SeqCst);
    // ORDERING: SeqCst; pairs with the fence in `ControlPage::sleep`, see above.
    if control.sleeping.load(Ordering::SeqCst) != 0 {
        futex::wake(&control.doorbell, 1, Scope::Shared);
    }
}
