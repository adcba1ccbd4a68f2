//! The directories of a simulated disk: which names reads see, which are durable, and what lies between.
//!
//! Each directory has a journal of its own. A sync of the directory makes the journal durable up to where the sync began. A power
//! loss keeps a part of each journal from its front, so a name is never younger than what was done before in its directory. A directory
//! whose own name is lost takes everything below with it.

use super::contents::{Contents, Loss};
use crate::base::prng::Prng;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file, whatever its names. Clones are the same file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode(Arc<Mutex<Contents>>);

impl Inode {
    pub(super) fn lock(&self) -> MutexGuard<'_, Contents> {
        // One thread uses a disk, and a panic ends its world.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn same_as(&self, other: &Inode) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Directory,
    File(Inode),
}

/// Something that changed in one directory, whole or not at all.
#[derive(Debug)]
struct Change {
    number: u64,
    directory: PathBuf,
    /// What each name stands for afterwards.
    entries: Vec<(PathBuf, Option<Node>)>,
}

type Entries = BTreeMap<PathBuf, Node>;

/// The names of a disk.
#[derive(Debug)]
pub(super) struct Names {
    cached: Entries,
    durable: Entries,
    /// What is not durable, oldest first.
    journal: Vec<Change>,
    next_number: u64,
}

/// What a sync of a directory covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamesPoint(u64);

impl Names {
    /// Nothing but the root.
    pub(super) fn new() -> Names {
        let root: Entries = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        Names { cached: root.clone(), durable: root, journal: Vec::new(), next_number: 0 }
    }

    /// The file called `path`.
    pub(super) fn file(&self, path: &Path) -> io::Result<Inode> {
        match self.cached.get(path) {
            Some(Node::File(inode)) => Ok(inode.clone()),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    /// The file that is called `path` after every power loss.
    pub(super) fn durable_file(&self, path: &Path) -> Option<Inode> {
        let reachable = path.ancestors().skip(1).all(|above| matches!(self.durable.get(above), Some(Node::Directory)));
        match self.durable.get(path) {
            Some(Node::File(inode)) if reachable => Some(inode.clone()),
            _ => None,
        }
    }

    /// Whether there is anything called `path`.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.cached.contains_key(path)
    }

    /// Whether there is a directory called `path`.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        matches!(self.cached.get(path), Some(Node::Directory))
    }

    /// All files, in the order of their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &Inode)> {
        self.cached.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.as_path(), inode)),
            Node::Directory => None,
        })
    }

    /// What is in a directory, in the order of the names.
    pub(super) fn entries_of(&self, directory: &Path) -> io::Result<Vec<(&Path, &Node)>> {
        self.check_directory(directory)?;
        let entries = self.cached.iter().filter(|(path, _)| path.parent() == Some(directory));
        Ok(entries.map(|(path, node)| (path.as_path(), node)).collect())
    }

    fn check_directory(&self, directory: &Path) -> io::Result<()> {
        match self.cached.get(directory) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found()),
        }
    }

    /// Gives something new a name.
    pub(super) fn create(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let directory = self.directory_of(path)?;
        if self.cached.contains_key(path) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::EXIST.raw_os_error()));
        }
        self.change(directory, vec![(path.to_owned(), Some(node))]);
        Ok(())
    }

    /// Renames a file, replacing what has the new name. Both names are in one directory: nothing needs more, and each directory
    /// has its own journal.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (inode, directory) = (self.file(from)?, self.directory_of(to)?);
        if from.parent() != Some(directory.as_path()) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if self.is_directory(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if self.file(to).is_ok_and(|present| present.same_as(&inode)) {
            return Ok(());
        }
        self.change(directory, vec![(from.to_owned(), None), (to.to_owned(), Some(Node::File(inode)))]);
        Ok(())
    }

    /// Takes a file's name away.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let directory = self.directory_of(path)?;
        self.change(directory, vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn directory_of(&self, path: &Path) -> io::Result<PathBuf> {
        let directory = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.check_directory(directory)?;
        Ok(directory.to_owned())
    }

    fn change(&mut self, directory: PathBuf, entries: Vec<(PathBuf, Option<Node>)>) {
        let change = Change { number: self.next_number, directory, entries };
        self.next_number += 1;
        change.apply_to(&mut self.cached);
        self.journal.push(change);
    }

    /// What a sync of a directory covers that begins now.
    pub(super) fn sync_point(&self, directory: &Path) -> io::Result<NamesPoint> {
        self.check_directory(directory)?;
        Ok(NamesPoint(self.next_number))
    }

    /// A sync of `directory` has succeeded.
    pub(super) fn synced(&mut self, directory: &Path, NamesPoint(below): NamesPoint) {
        let durable = &mut self.durable;
        self.journal.retain(|change| {
            let covered = change.directory == directory && change.number < below;
            if covered {
                change.apply_to(durable);
            }
            !covered
        });
    }

    /// The power is gone, and with it the page cache of names. What the files hold is not changed here.
    pub(super) fn lose_power(&mut self, loss: Loss, prng: &mut Prng) {
        let mut by_directory: BTreeMap<PathBuf, Vec<Change>> = BTreeMap::new();
        for change in std::mem::take(&mut self.journal) {
            by_directory.entry(change.directory.clone()).or_default().push(change);
        }
        for changes in by_directory.values() {
            let kept = match loss {
                Loss::All => 0,
                Loss::Nothing => changes.len(),
                Loss::Some => prng.below(changes.len() as u64 + 1) as usize,
            };
            changes[..kept].iter().for_each(|change| change.apply_to(&mut self.durable));
        }
        self.cached = reachable(std::mem::take(&mut self.durable));
        self.durable = self.cached.clone();
    }
}

impl Change {
    fn apply_to(&self, entries: &mut Entries) {
        for (path, node) in &self.entries {
            match node {
                Some(node) => entries.insert(path.clone(), node.clone()),
                None => entries.remove(path),
            };
        }
    }
}

/// What the root leads to. A parent comes before its children in the order of paths.
fn reachable(entries: Entries) -> Entries {
    let mut found = Entries::new();
    for (path, node) in entries {
        if path.parent().is_none_or(|above| matches!(found.get(above), Some(Node::Directory))) {
            found.insert(path, node);
        }
    }
    found
}

/// With the number of the system, as the real ones have.
fn not_found() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error())
}
