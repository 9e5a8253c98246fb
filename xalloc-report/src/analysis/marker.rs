//! Where a program set a mark.

use crate::model::Recorded;
use crate::trace::{Block, Entry, Event, ProcessIndex, Replay};

/// The number of the event by which a process first set the mark of that name; `None` if it never did.
///
/// # Errors
/// That of the replay.
pub fn first_mark<R: Recorded>(recorded: &R, process: ProcessIndex, name: &str) -> Result<Option<u64>, R::Error> {
    let mut search = Search { name, found: None };
    recorded.replay(process, &mut search)?;
    Ok(search.found)
}

struct Search<'a> {
    name: &'a str,
    found: Option<u64>,
}

impl Replay for Search<'_> {
    fn inherited(&mut self, _: u32, _: &Block) {}

    fn entry(&mut self, entry: Entry<'_>) {
        if let Event::Marker { text } = entry.event
            && self.found.is_none()
            && text == self.name
        {
            self.found = Some(entry.seq);
        }
    }
}
