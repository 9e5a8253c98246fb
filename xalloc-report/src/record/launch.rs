//! Starting the program as if we were not there: its arguments, its terminal, its directory, its environment but for
//! the two variables that bring the preload in.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use xalloc_core::session::SESSION_VARIABLE;

use super::preload::with_ours_first;
use super::target::Target;
use crate::os::inherited;
use crate::trace::End;

/// A variable and its value.
pub type Assignment = (OsString, OsString);

/// Splits `VAR=value … COMMAND ARGUMENT …` as a shell does: the leading words that assign, and the rest.
#[must_use]
pub fn split_assignments(words: &[OsString]) -> (Vec<Assignment>, &[OsString]) {
    let mut assignments = Vec::new();
    for (at, word) in words.iter().enumerate() {
        match assignment(word) {
            Some(assignment) => assignments.push(assignment),
            None => return (assignments, &words[at..]),
        }
    }
    (assignments, &[])
}

fn assignment(word: &OsStr) -> Option<Assignment> {
    let bytes = word.as_bytes();
    let equals = bytes.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&bytes[..equals], &bytes[equals + 1..]);
    let is_name = name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_name.then(|| (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()))
}

/// The value that a variable will have in the program.
#[must_use]
pub(crate) fn value_of(name: &str, assignments: &[Assignment]) -> Option<OsString> {
    let assigned = assignments.iter().rfind(|(assigned, _)| assigned == name).map(|(_, value)| value.clone());
    assigned.or_else(|| std::env::var_os(name))
}

/// Starts the program with `library` preloaded and the session's directory named.
///
/// # Errors
/// What exec reports: a missing interpreter, a format that the kernel does not know, too long a list of arguments.
pub(crate) fn start(
    target: &Target,
    words: &[OsString],
    assignments: &[Assignment],
    library: &Path,
    session: &Path,
) -> io::Result<Child> {
    let preload = with_ours_first(library, value_of("LD_PRELOAD", assignments).as_deref());
    let mut command = Command::new(&target.path);
    if let Some((name, arguments)) = words.split_first() {
        command.arg0(name).args(arguments);
    }
    command.envs(assignments.iter().map(|(name, value)| (name, value)));
    command.env("LD_PRELOAD", preload).env(SESSION_VARIABLE, session);
    inherited::hand_on(&mut command);
    command.spawn()
}

/// How the program ended.
#[must_use]
pub(crate) fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Vanished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn only_leading_words_with_a_name_before_the_equals_sign_assign() {
        let all = words(&["A=1", "_b2=x=y", "C=", "make", "D=4"]);
        let (assignments, rest) = split_assignments(&all);
        assert_eq!(assignments, [("A".into(), "1".into()), ("_b2".into(), "x=y".into()), ("C".into(), "".into())]);
        assert_eq!(rest, words(&["make", "D=4"]));
        for program in ["2x=1", "./a=b", "=x", "a-b=c"] {
            assert_eq!(split_assignments(&words(&[program])).0, []);
        }
        assert_eq!(split_assignments(&words(&["A=1"])).1, words(&[]));
    }

    #[test]
    fn the_program_gets_its_name_its_arguments_and_its_variables_as_they_were_given() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let all = words(&["sh", "-c", "echo \"$0 $A $XALLOC_SESSION\" > \"$1\"", "zero", out.to_str().unwrap()]);
        let target = super::super::target::inspect(Path::new("sh"), Some(OsStr::new("/bin"))).unwrap();
        let assignments = [("A".into(), "1 2".into()), ("LD_PRELOAD".into(), "".into())];
        let status = start(&target, &all, &assignments, Path::new(""), Path::new("/session")).unwrap().wait().unwrap();
        assert_eq!(end_of(status), End::Exited(0));
        assert_eq!(std::fs::read_to_string(out).unwrap(), "zero 1 2 /session\n");
    }
}
