//! The interactive shell: the same commands, a line at a time, with history and events as they come.

use super::commands;
use super::format;
use super::interrupt::Interrupts;
use super::{ZkCommand, ZkError};
use crate::client::{Client, SessionState, Watch, run_blocking};
use crate::runtime::{Queue, spawn};
use clap::{Parser, Subcommand};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

#[derive(Parser)]
#[command(name = "zk", no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
struct Line {
    #[command(subcommand)]
    command: ShellCommand,
}

#[derive(Subcommand)]
enum ShellCommand {
    #[command(flatten)]
    Zk(ZkCommand),
    /// Leave the shell
    #[command(visible_alias = "exit")]
    Quit,
}

/// Prints while a line is being edited, without disturbing it.
type Printer = Rc<RefCell<Option<Box<dyn ExternalPrinter>>>>;

/// Reads and runs commands until the end of the input, `quit`, or the end of the session.
pub(super) async fn run(client: &Client, server: &str, interrupts: &Interrupts) -> Result<(), ZkError> {
    let mut editor = DefaultEditor::new().map_err(io_error)?;
    // Without a terminal there is no line to disturb.
    let printer = editor.create_external_printer().ok().map(|printer| Box::new(printer) as Box<dyn ExternalPrinter>);
    let printer: Printer = Rc::new(RefCell::new(printer));
    for number in 0u64.. {
        let prompt = format!("[zk: {server}({:?}) {number}] ", client.state());
        let (back, input) = read_line(editor, prompt).await?;
        editor = back;
        let input = match input {
            Ok(input) => input,
            Err(ReadlineError::Interrupted) => {
                commands::line("(quit or ctrl-d leaves the shell)")?;
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(io_error(error)),
        };
        let words = match split_words(&input) {
            Ok(words) if words.is_empty() => continue,
            Ok(words) => words,
            Err(reason) => {
                commands::line(reason)?;
                continue;
            }
        };
        editor.add_history_entry(input.as_str()).map_err(io_error)?;
        match Line::try_parse_from(words) {
            Ok(Line { command: ShellCommand::Quit }) => return Ok(()),
            Ok(Line { command: ShellCommand::Zk(command) }) => {
                run_command(client, command, interrupts, &printer).await?;
            }
            Err(error) => commands::line(error.to_string().trim_end())?,
        }
        if client.state().is_final() && client.state() != SessionState::Closed {
            return Err(ZkError::Refused(format!("the session has ended: {:?}", client.state())));
        }
    }
    Ok(())
}

/// The editor waits for keys: on a thread of its own, so that the session is kept alive meanwhile.
async fn read_line(
    mut editor: DefaultEditor,
    prompt: String,
) -> Result<(DefaultEditor, rustyline::Result<String>), ZkError> {
    let read = move || {
        let input = editor.readline(&prompt);
        (editor, input)
    };
    Ok(run_blocking("terminal", read).await?)
}

/// Runs one command. That it was refused is no reason to leave the shell; that nothing can be printed is.
async fn run_command(
    client: &Client,
    command: ZkCommand,
    interrupts: &Interrupts,
    printer: &Printer,
) -> Result<(), ZkError> {
    match interrupts.or_stop(commands::run(client, command, interrupts)).await {
        Ok(Some(watch)) => {
            spawn(Queue::Background, print_event(watch, printer.clone()));
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(ZkError::Io(error)) => Err(error.into()),
        Err(error) => commands::line(&error.to_string()),
    }
}

/// Prints the event of a one-shot watch when it comes.
async fn print_event(mut watch: Watch, printer: Printer) {
    let Some(event) = watch.next().await else { return };
    let text = format!("WATCHER: {}", format::event(&event));
    let printed = match printer.borrow_mut().as_mut() {
        Some(printer) => printer.print(text + "\n").map_err(|error| error.to_string()),
        None => commands::line(&text).map_err(|error| error.to_string()),
    };
    if let Err(error) = printed {
        tracing::warn!("an event could not be printed: {error}");
    }
}

fn io_error(error: ReadlineError) -> ZkError {
    match error {
        ReadlineError::Io(error) => error.into(),
        other => io::Error::other(other).into(),
    }
}

/// Splits at blanks. Quotes, single or double, keep what they enclose together; a backslash takes the next character as it
/// is, except within single quotes.
fn split_words(input: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = input.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("a backslash has nothing behind it")?;
                word.get_or_insert_default().push(next);
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, None) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data with blanks, and empty data, must be possible to type.
    #[test]
    fn words_are_split_as_a_shell_does() {
        let split = |input| split_words(input).unwrap();
        assert_eq!(split("  set /a  'two words' "), ["set", "/a", "two words"]);
        assert_eq!(split(r#"set /a "" "#), ["set", "/a", ""]);
        assert_eq!(split(r#"set /a "say \"x\"" 'c:\d' a\ b"#), ["set", "/a", "say \"x\"", "c:\\d", "a b"]);
        assert!(split_words("set /a 'x").is_err());
        assert!(split_words("set /a \\").is_err());
        assert!(split("   ").is_empty());
    }

    /// The shell's commands are those of the command line.
    #[test]
    fn shell_lines_parse() {
        let parse = |input: &str| Line::try_parse_from(split_words(input).unwrap());
        assert!(matches!(parse("quit"), Ok(Line { command: ShellCommand::Quit })));
        assert!(matches!(
            parse("create -e -s /a x"),
            Ok(Line { command: ShellCommand::Zk(ZkCommand::Create { ephemeral: true, sequential: true, .. }) })
        ));
        assert!(matches!(
            parse("delete -v -1 /a"),
            Ok(Line { command: ShellCommand::Zk(ZkCommand::Delete { version: -1, .. }) })
        ));
        assert!(parse("ls -R -w /").is_err());
        assert!(parse("nonsense").is_err());
    }
}
