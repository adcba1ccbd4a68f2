//! The commands.

use super::format::{self, Doing};
use super::interrupt::Interrupts;
use super::{ZkCommand, ZkError};
use crate::client::{Client, ClientError, Watch, WatchEvent};
use crate::protocol::zookeeper::{Acl, AddWatchMode, CreateFlags, ErrorCode, Stat};
use std::io::{self, IsTerminal, Write};

/// Runs `command` from the command line: a watch that it set is waited for.
pub(super) async fn run_and_wait(client: &Client, command: ZkCommand, interrupts: &Interrupts) -> Result<(), ZkError> {
    match interrupts.or_stop(run(client, command, interrupts)).await? {
        Some(mut watch) => {
            interrupts
                .or_stop(async {
                    match watch.next().await {
                        Some(event) => line(&format::event(&event)),
                        None => Ok(()),
                    }
                })
                .await
        }
        None => Ok(()),
    }
}

/// Runs `command` and prints its output. Returns the watch that it set, if any.
pub(super) async fn run(
    client: &Client,
    command: ZkCommand,
    interrupts: &Interrupts,
) -> Result<Option<Watch>, ZkError> {
    let doing = if matches!(command, ZkCommand::Create { .. }) { Doing::Create } else { Doing::Other };
    let result = match command {
        ZkCommand::Ls { path, recursive: true, .. } => list_all(client, path).await.map(|()| None),
        ZkCommand::Ls { path, stat, watch, .. } => list(client, &path, stat, watch).await,
        ZkCommand::Get { path, stat, watch } => get(client, &path, stat, watch).await,
        ZkCommand::Set { path, data, version, stat } => set(client, &path, &data, version, stat).await.map(|()| None),
        ZkCommand::Create { path, data, ephemeral, sequential } => {
            create(client, &path, data.as_deref(), ephemeral, sequential).await.map(|()| None)
        }
        ZkCommand::Delete { path, version } => {
            client.delete(&path, version).await.map(|()| None).map_err(ZkError::from)
        }
        ZkCommand::Stat { path, watch } => print_stat(client, &path, watch).await,
        ZkCommand::Watch { path, recursive } => {
            return print_events(client, &path, recursive, interrupts).await.map(|()| None);
        }
    };
    result.map_err(|error| match error {
        ZkError::Client(error) => ZkError::Refused(format::error(&error, doing)),
        other => other,
    })
}

/// Writes a line to standard output.
pub(super) fn line(text: &str) -> Result<(), ZkError> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}

async fn list(client: &Client, path: &str, with_stat: bool, with_watch: bool) -> Result<Option<Watch>, ZkError> {
    let (mut children, stat, watch) = match with_watch {
        true => client.get_children_watch(path).await.map(|(children, stat, watch)| (children, stat, Some(watch))),
        false => client.get_children(path).await.map(|(children, stat)| (children, stat, None)),
    }?;
    children.sort_unstable();
    children.iter().try_for_each(|child| line(&format::printable(child)))?;
    stat_line(&stat, with_stat)?;
    Ok(watch)
}

/// All paths from `root` down, each parent before its children. The children of all siblings are asked for at once.
async fn list_all(client: &Client, root: String) -> Result<(), ZkError> {
    let ask = |path: String| {
        let children = client.get_children_names(&path);
        (path, children)
    };
    let mut open = vec![ask(root.clone())];
    while let Some((path, children)) = open.pop() {
        let mut children = match children.await {
            Ok(children) => children,
            // Deleted since its parent was listed.
            Err(ClientError::Refused { code: ErrorCode::NoNode, .. }) if path != root => continue,
            Err(error) => return Err(error.into()),
        };
        line(&format::printable(&path))?;
        children.sort_unstable();
        let prefix = if path == "/" { "" } else { &path };
        open.extend(children.iter().rev().map(|child| ask(format!("{prefix}/{child}"))));
    }
    Ok(())
}

async fn get(client: &Client, path: &str, with_stat: bool, with_watch: bool) -> Result<Option<Watch>, ZkError> {
    let (data, stat, watch) = match with_watch {
        true => client.get_data_watch(path).await.map(|(data, stat, watch)| (data, stat, Some(watch))),
        false => client.get_data(path).await.map(|(data, stat)| (data, stat, None)),
    }?;
    match data {
        None => line("null")?,
        Some(data) if io::stdout().is_terminal() => line(&format::printable(&String::from_utf8_lossy(&data)))?,
        // Into a file or a program the bytes go as they are.
        Some(data) => {
            let mut output = io::stdout().lock();
            output.write_all(&data)?;
            output.write_all(b"\n")?;
            output.flush()?;
        }
    }
    stat_line(&stat, with_stat)?;
    Ok(watch)
}

async fn set(client: &Client, path: &str, data: &str, version: i32, with_stat: bool) -> Result<(), ZkError> {
    let stat = client.set_data(path, Some(data.as_bytes()), version).await?;
    stat_line(&stat, with_stat)
}

async fn create(
    client: &Client,
    path: &str,
    data: Option<&str>,
    ephemeral: bool,
    sequential: bool,
) -> Result<(), ZkError> {
    let flags = match (ephemeral, sequential) {
        (false, false) => CreateFlags::PERSISTENT,
        (true, false) => CreateFlags::EPHEMERAL,
        (false, true) => CreateFlags::PERSISTENT_SEQUENTIAL,
        (true, true) => CreateFlags::EPHEMERAL_SEQUENTIAL,
    };
    let path = client.create(path, data.map(str::as_bytes), &[Acl::open()], flags).await?;
    line(&format!("Created {}", format::printable(&path)))
}

async fn print_stat(client: &Client, path: &str, with_watch: bool) -> Result<Option<Watch>, ZkError> {
    let (stat, watch) = match with_watch {
        true => client.exists_watch(path).await.map(|(stat, watch)| (stat, Some(watch))),
        false => client.exists(path).await.map(|stat| (stat, None)),
    }?;
    match (stat, with_watch) {
        (Some(stat), _) => line(&format::stat(&stat))?,
        (None, true) => line(&format!("node {path} does not exist"))?,
        (None, false) => return Err(ZkError::Refused(format!("node {path} does not exist"))),
    }
    Ok(watch)
}

fn stat_line(stat: &Stat, wanted: bool) -> Result<(), ZkError> {
    if wanted { line(&format::stat(stat)) } else { Ok(()) }
}

/// Prints events until ctrl-c, which is the way to end it, or until the session ends, which is a failure.
async fn print_events(client: &Client, path: &str, recursive: bool, interrupts: &Interrupts) -> Result<(), ZkError> {
    let mode = if recursive { AddWatchMode::PersistentRecursive } else { AddWatchMode::Persistent };
    let mut watch = client.add_watch(path, mode).await?;
    let events = interrupts.or_stop(async {
        while let Some(event) = watch.next().await {
            line(&format::event(&event))?;
            if event == WatchEvent::SessionEnded {
                break;
            }
        }
        Err(ZkError::Refused("the watch has ended".to_owned()))
    });
    match events.await {
        Err(ZkError::Interrupted) => Ok(()),
        result => result,
    }
}
