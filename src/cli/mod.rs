//! The command line.

mod bench;
mod inspect;
mod one_shard;
mod serve;
mod simulate;
mod zk;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

/// A coordination ensemble that speaks ZooKeeper's protocol.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server with a zoo.cfg
    Server(serve::ServerArgs),
    /// Run a server on this machine for trying things out, without configuration
    Dev(serve::DevArgs),
    /// Look at and change znodes, as a client
    Zk(zk::ZkArgs),
    /// Show what is in a data directory, a log segment or a snapshot file, and whether it is whole
    Inspect(inspect::InspectArgs),
    /// Prove order and durability in a simulation: one seed is one run
    Simulate(simulate::SimulateArgs),
    /// Measure a server
    Bench(bench::BenchArgs),
    /// Print a script with which a shell completes this program's arguments
    Completions {
        /// The shell that is to read it
        shell: Shell,
    },
}

/// Why a command failed: one text for the operator.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Server(args) => serve::server(args),
        Command::Dev(args) => serve::dev(args),
        Command::Zk(args) => zk::run(args).map_err(Into::into),
        Command::Inspect(args) => inspect::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Bench(args) => bench::run(args).map_err(Into::into),
        Command::Completions { shell } => completions(shell, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringkeeper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn completions(shell: Shell, out: &mut dyn Write) -> Result<(), CliError> {
    // The generator panics when its output cannot be written, as into a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "ringkeeper", &mut script);
    Ok(out.write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator was a dependency that nothing used. Each command must be there for each shell, except those that are hidden.
    #[test]
    fn command_that_no_shell_completes() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let mut script = Vec::new();
            completions(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for command in CommandLine::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    /// A reader that has seen enough closes the pipe, which is no panic.
    #[test]
    fn closed_pipe_ends_in_a_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(completions(Shell::Bash, &mut Closed).is_err());
    }
}
