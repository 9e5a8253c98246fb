//! What programs want suppressed of their own leaks: `__lsan_default_suppressions`, as the trace has it.
//!
//! LeakSanitizer ends a program whose text is no list of suppressions. Here the text then counts for nothing and a note
//! says so: what it was to hide is shown.

use super::{SuppressionError, Suppressions, lsan};
use crate::analysis::{LeakSum, Leaks};
use crate::check::Date;
use crate::check::evidence::program_of;
use crate::trace::{Contents, ProcessIndex, ScanOutcome};

/// What a program said.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ProgramsOwn {
    program: String,
    text: String,
}

impl ProgramsOwn {
    /// What the program of a process said, at each check of it.
    pub(in crate::check) fn of(contents: &Contents, process: ProcessIndex) -> Vec<ProgramsOwn> {
        let Some(program) = contents.processes.get(process.0 as usize).map(program_of) else { return Vec::new() };
        let scans = contents.scans.iter().filter(|scan| scan.process == process);
        let mut own: Vec<_> = scans
            .filter_map(|scan| match &scan.outcome {
                ScanOutcome::Checked(checked) => Some(&checked.suppressions),
                ScanOutcome::NotChecked { .. } => None,
            })
            .filter(|text| !text.trim().is_empty())
            .map(|text| ProgramsOwn { program: program.clone(), text: text.clone() })
            .collect();
        own.dedup();
        own
    }
}

impl Suppressions {
    /// Adds what programs said, each text of a program once.
    ///
    /// # Errors
    /// Of each text that is no list of suppressions.
    pub(in crate::check) fn add_programs(&mut self, mut own: Vec<ProgramsOwn>) -> Vec<SuppressionError> {
        own.sort();
        own.dedup();
        let mut errors = Vec::new();
        for ProgramsOwn { program, text } in own {
            match lsan::read(&format!("__lsan_default_suppressions of {program}"), &text) {
                Ok(entries) => self.entries.extend(entries.into_iter().map(|mut entry| {
                    entry.program = Some(program.clone());
                    entry
                })),
                Err(error) => errors.push(error),
            }
        }
        errors
    }
}

/// Says of the leaked blocks of a report which of them their programs want suppressed. Returns what is wrong with what
/// the programs said.
pub fn suppress(leaks: &mut Leaks, contents: &Contents) -> Vec<SuppressionError> {
    let mut all = Suppressions::default();
    let processes = (0..contents.processes.len() as u32).map(ProcessIndex);
    let errors = all.add_programs(processes.flat_map(|process| ProgramsOwn::of(contents, process)).collect());
    if all.entries.is_empty() {
        return errors;
    }
    let today = Date::today();
    let mut suppressed = LeakSum::default();
    for site in leaks.sites.iter_mut().filter(|site| site.class.is_some_and(|class| class.is_leaked())) {
        let entry_for = |process: &ProcessIndex| {
            let process = contents.processes.get(process.0 as usize)?;
            all.matching(site.class, &site.at, &program_of(process), today)
        };
        let entries: Option<Vec<_>> = site.processes.iter().map(entry_for).collect();
        if let Some(first) = entries.as_deref().and_then(<[usize]>::first) {
            site.suppressed_by = all.entries.get(*first).map(|entry| entry.name.clone());
            suppressed.add(site.bytes, site.blocks);
        }
    }
    leaks.suppressed = suppressed;
    errors
}
