//! The command line: arguments to calls, results to the terminal. The only room that prints.
//!
//! Results go to standard output, everything else to standard error. A reader that closes the pipe early (`| head`) is
//! no error: a report ends there, and a command whose status says something ends with that status. How the command ends
//! is told by [`Exit`] alone.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod args;
mod chart;
mod check;
mod console;
mod doctor;
mod events;
mod exit;
mod failure;
mod flamegraph;
mod fragmentation;
mod generate;
mod import;
mod leaks;
mod moment;
mod opened;
mod progress;
mod ranking;
mod reading;
mod record;
mod recording;
mod report;
#[cfg(test)]
mod tests;
mod unread;
mod values;
mod what_if;

pub use check::Check;
pub use console::{Console, Existing};
pub use doctor::Doctor;
pub use exit::Exit;
pub use failure::Failure;
pub use import::Import;
pub use record::Record;
pub use report::Report;

use unread::Unread;

/// Records a native program's allocations and reports flame graphs, histograms, leaks and fragmentation.
#[derive(Parser, Debug)]
#[command(name = "xalloc-report", version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = exit::HELP)]
pub struct Cli {
    /// When to use colours; `auto` follows the terminal, NO_COLOR and CLICOLOR_FORCE
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = args::colour())]
    color: anstream::ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Record(Record),
    #[command(flatten)]
    Report(Report),
    Check(Check),
    Import(Import),
    Doctor(Doctor),
    Generate(generate::Generate),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let mut command = values::taking_what_begins_with_a_dash(Cli::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and have an exit code of their own. If the terminal is gone there
            // is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    cli.color.write_global();
    let mut out = io::BufWriter::with_capacity(1 << 16, anstream::stdout());
    let mut notes = anstream::stderr();
    let (mut unread_out, mut unread_notes);
    let (out, notes): (&mut dyn Write, &mut dyn Write) = match cli.command {
        Command::Record(_) | Command::Check(_) => {
            (unread_out, unread_notes) = (Unread::new(out), Unread::new(notes));
            (&mut unread_out, &mut unread_notes)
        }
        Command::Report(_) | Command::Import(_) | Command::Doctor(_) | Command::Generate(_) => (&mut out, &mut notes),
    };
    let mut console = Console {
        out: &mut *out,
        notes,
        interactive: io::stdout().is_terminal(),
        columns: terminal_size::terminal_size().map_or(80, |(width, _)| width.0.into()),
    };
    let done = run(&cli.command, &mut console);
    let done = done.and_then(|exit| Ok(out.flush().map(|()| exit)?));
    match done {
        Ok(exit) => exit,
        Err(failure) if failure.is_broken_pipe() => Exit::Success,
        Err(failure) => {
            // As above: without standard error there is nobody to tell.
            let _ = write!(anstream::stderr(), "{failure}");
            failure.exit()
        }
    }
    .into()
}

fn run(command: &Command, console: &mut Console<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Record(record) => record.run(console),
        Command::Check(check) => check.run(console),
        Command::Import(import) => import.run(console),
        Command::Doctor(doctor) => doctor.run(console),
        Command::Report(report) => report.run_on_file(console),
        Command::Generate(generate) => generate.run(&mut Cli::command(), console),
    }
}
