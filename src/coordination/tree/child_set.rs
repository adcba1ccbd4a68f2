//! The names of a node's children, sorted and packed.
//!
//! Siblings mostly differ in their last characters only (`lock-0000000041`, `lock-0000000042`). So names stand in order in pages
//! of a few hundred bytes, and of each name only what differs from the one before it is stored. A million names then cost a few
//! bytes each, and adding one never moves more than a page and its place in the tree of pages.

use ecow::EcoString;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// A set of names.
#[derive(Debug, Default)]
pub struct ChildSet {
    /// The least names. Most nodes have so few children that there is nothing else.
    first: Page,
    /// The others. A page holds names from its key on and below the next key. Short keys stand in the nodes of this tree, so that
    /// the search touches no other memory.
    rest: BTreeMap<EcoString, Page>,
    len: usize,
}

impl ChildSet {
    /// Number of names.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when `name` is in the set.
    pub fn contains(&self, name: &str) -> bool {
        let page = self.rest.range::<str, _>(up_to(name)).next_back().map_or(&self.first, |(_, page)| page);
        page.find(name.as_bytes()).is_ok()
    }

    fn page_mut(&mut self, name: &str) -> &mut Page {
        self.rest.range_mut::<str, _>(up_to(name)).next_back().map_or(&mut self.first, |(_, page)| page)
    }

    /// Adds `name`; false when it was there already.
    pub fn insert(&mut self, name: &str) -> bool {
        let page = self.page_mut(name);
        let Err(place) = page.find(name.as_bytes()) else { return false };
        page.insert(name.as_bytes(), &place);
        if page.bytes.len() > Page::BYTES_MAX {
            self.split(name, &place);
        }
        self.len += 1;
        true
    }

    /// Splits the page that `name` was added to at `place`.
    fn split(&mut self, name: &str, place: &Place) {
        let last_page = self.rest.last_key_value().is_none_or(|(key, _)| &**key <= name);
        let page = self.page_mut(name);
        let greatest = last_page && place.offset + place.entry_len(name.as_bytes()) == page.bytes.len();
        // Where names only ever grow, as sequence numbers do, pages stay full.
        let from = if greatest { place.offset } else { page.bytes.len() / 2 };
        if let Some((key, page)) = page.split_off(from) {
            self.rest.insert(key, page);
        }
    }

    /// Removes `name`; false when it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let page = self.page_mut(name);
        let Ok(place) = page.find(name.as_bytes()) else { return false };
        page.remove(&place);
        if page.bytes.is_empty() {
            // Pages are not joined: a page with one name is no larger than a name of its own would be.
            let key = self.rest.range::<str, _>(up_to(name)).next_back().map(|(key, _)| key.clone());
            key.map(|key| self.rest.remove(&key));
        }
        self.len -= 1;
        true
    }

    /// Adds `name`, which need not be new, to a set to which names were only pushed so far. That is far cheaper than to look for its
    /// place, but nothing else may be asked until [`ChildSet::sort`].
    pub fn push(&mut self, name: &str) {
        append_entry(&mut self.first.bytes, 0, &[name.as_bytes()]);
        self.len += 1;
    }

    /// Puts what was pushed in its place.
    pub fn sort(&mut self) {
        let pushed = std::mem::take(&mut self.first);
        debug_assert!(self.rest.is_empty() && pushed.entries().all(|entry| entry.shared == 0), "sorted already");
        let mut names: Vec<&[u8]> = Vec::with_capacity(self.len);
        names.extend(pushed.entries().map(|entry| entry.rest));
        names.sort_unstable();
        names.dedup();
        self.len = names.len();
        let mut pages = packed(names.into_iter());
        self.first = pages.next().map_or(Page::default(), |(_, page)| page);
        self.rest = pages.collect();
    }

    /// The names, in order of their bytes.
    pub fn to_vec(&self) -> Vec<String> {
        let mut names = Vec::with_capacity(self.len);
        self.for_each(|name| names.push(name.to_owned()));
        names
    }

    /// Calls `visit` with every name, in order of their bytes.
    pub fn for_each(&self, mut visit: impl FnMut(&str)) {
        let _ = self.try_for_each(None, |name| {
            visit(name);
            ControlFlow::Continue(())
        });
    }

    /// Calls `visit` with every name that comes behind `after`, in order of their bytes, until it breaks.
    pub fn try_for_each(&self, after: Option<&str>, mut visit: impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        let from = after.and_then(|after| self.rest.range::<str, _>(up_to(after)).next_back()).map(|(key, _)| &**key);
        let first = if from.is_none() { Some(&self.first) } else { None };
        let rest = (from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded);
        let pages = first.into_iter().chain(self.rest.range::<str, _>(rest).map(|(_, page)| page));
        let mut name = Vec::new();
        for entry in pages.flat_map(Page::entries) {
            entry.spell(&mut name);
            if after.is_none_or(|after| name.as_slice() > after.as_bytes()) {
                visit(as_str(&name))?;
            }
        }
        ControlFlow::Continue(())
    }
}

fn up_to(name: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(name))
}

fn as_str(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("the name was a str when it was stored")
}

/// Names in order, each once:
///
/// ```text
/// entry  shared: varint   bytes that it has in common with the name before it; 0 for the first
///        length: varint   of the rest
///        rest
/// ```
#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
}

/// One name of a page.
#[derive(Debug)]
struct Entry<'a> {
    offset: usize,
    /// Where the next one begins.
    end: usize,
    shared: usize,
    rest: &'a [u8],
}

impl Entry<'_> {
    /// Makes `name`, the one before it, this one.
    fn spell(&self, name: &mut Vec<u8>) {
        name.truncate(self.shared);
        name.extend_from_slice(self.rest);
    }
}

/// Where a name is or would be.
#[derive(Debug)]
struct Place {
    offset: usize,
    /// Bytes in common with the name before it.
    shared: usize,
    /// Bytes in common with the name after it, if it would be between two.
    shared_next: usize,
}

impl Place {
    fn entry_len(&self, name: &[u8]) -> usize {
        entry_len(self.shared, name.len() - self.shared)
    }
}

impl Page {
    /// A longer page is split, unless it holds a single name. To find a name, half of a page is read on average.
    const BYTES_MAX: usize = 256;

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let entry = self.entry_at(offset)?;
            offset = entry.end;
            Some(entry)
        })
    }

    #[inline]
    fn entry_at(&self, offset: usize) -> Option<Entry<'_>> {
        let mut bytes = self.bytes.get(offset..).filter(|bytes| !bytes.is_empty())?;
        let (shared, length) = (take_varint(&mut bytes), take_varint(&mut bytes));
        Some(Entry { offset, end: self.bytes.len() - bytes.len() + length, shared, rest: &bytes[..length] })
    }

    /// Where `name` is, or else where it belongs.
    fn find(&self, name: &[u8]) -> Result<Place, Place> {
        // How many bytes `name` shares with the entry in front of `entry`. That entry is less than `name`.
        let mut shared = 0;
        for entry in self.entries() {
            if entry.shared > shared {
                // `entry` shares more with the entry in front of it than `name` does. So `entry` differs from `name` at the
                // same byte, and is less as well.
                continue;
            }
            if entry.shared < shared {
                // `entry` differs from the entry in front of it at a byte where that entry and `name` still agree. So
                // `entry` is greater than `name`.
                return Err(Place { offset: entry.offset, shared, shared_next: entry.shared });
            }
            let wanted = &name[shared..];
            let common = wanted.iter().zip(entry.rest).take_while(|(one, other)| one == other).count();
            match wanted[common..].cmp(&entry.rest[common..]) {
                std::cmp::Ordering::Equal => {
                    return Ok(Place { offset: entry.offset, shared, shared_next: name.len() });
                }
                std::cmp::Ordering::Less => {
                    return Err(Place { offset: entry.offset, shared, shared_next: shared + common });
                }
                std::cmp::Ordering::Greater => shared += common,
            }
        }
        Err(Place { offset: self.bytes.len(), shared, shared_next: 0 })
    }

    fn insert(&mut self, name: &[u8], place: &Place) {
        let mut entries = Entries::new();
        append_entry(&mut entries, place.shared, &[&name[place.shared..]]);
        let end = self.entry_at(place.offset).map_or(place.offset, |next| {
            // Behind `name`, the next entry shares more bytes with what stands in front of it, so less of it is stored.
            append_entry(&mut entries, place.shared_next, &[&next.rest[place.shared_next - next.shared..]]);
            next.end
        });
        self.replace(place.offset..end, &entries);
    }

    fn remove(&mut self, place: &Place) {
        let Some(entry) = self.entry_at(place.offset) else { return };
        let mut end = entry.end;
        let mut entries = Entries::new();
        if let Some(next) = self.entry_at(end).filter(|next| next.shared > entry.shared) {
            // It has less in common with the one before `entry`.
            let lost = &entry.rest[..next.shared - entry.shared];
            append_entry(&mut entries, entry.shared, &[lost, next.rest]);
            end = next.end;
        }
        self.replace(place.offset..end, &entries);
    }

    fn replace(&mut self, range: std::ops::Range<usize>, entries: &[u8]) {
        // Not twice as much as is needed: pages are many.
        self.bytes.reserve_exact(entries.len().saturating_sub(range.len()));
        self.bytes.splice(range, entries.iter().copied());
    }

    /// Cuts the page in two at the first entry that begins at or beyond `from`, or at the last entry if there is none. Gives
    /// the part that was cut off, with its first name. A page of one entry is not cut.
    fn split_off(&mut self, from: usize) -> Option<(EcoString, Page)> {
        let mut name = Vec::new();
        let is_cut = |entry: &Entry| entry.offset >= from.max(1) || entry.end == self.bytes.len();
        let cut = self.entries().inspect(|entry| entry.spell(&mut name)).find(is_cut)?;
        let (offset, end) = (cut.offset, cut.end);
        if offset == 0 {
            return None;
        }
        let mut bytes = Vec::with_capacity(entry_len(0, name.len()) + self.bytes.len() - end);
        append_entry(&mut bytes, 0, &[&name]);
        bytes.extend_from_slice(&self.bytes[end..]);
        self.bytes.truncate(offset);
        self.bytes.shrink_to_fit();
        Some((as_str(&name).into(), Page { bytes }))
    }
}

/// Pages full of `names`, which come in order, each once; each with its first name.
fn packed<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = (EcoString, Page)> {
    let (mut names, mut bytes) = (names.peekable(), Vec::new());
    std::iter::from_fn(move || {
        let first = names.next()?;
        bytes.clear();
        append_entry(&mut bytes, 0, &[first]);
        let mut last = first;
        while let Some(name) = names.peek() {
            let shared = last.iter().zip(*name).take_while(|(one, other)| one == other).count();
            let rest = &name[shared..];
            if bytes.len() + entry_len(shared, rest.len()) > Page::BYTES_MAX {
                break;
            }
            append_entry(&mut bytes, shared, &[rest]);
            last = names.next()?;
        }
        // Exactly as long as needed: pages are many.
        Some((as_str(first).into(), Page { bytes: bytes.as_slice().to_vec() }))
    })
}

/// Entries on their way into the middle of a page; seldom longer.
type Entries = SmallVec<[u8; 64]>;

/// Where entries are written.
trait Sink {
    fn append(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for Entries {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Writes an entry right where it stays. When entries were returned and copied, a start with a million children took a tenth
/// longer: a copy reads in words what was just written byte by byte, and for that the CPU waits until its stores are done.
fn append_entry(out: &mut impl Sink, shared: usize, rest: &[&[u8]]) {
    append_varint(out, shared);
    append_varint(out, rest.iter().map(|part| part.len()).sum());
    rest.iter().for_each(|part| out.append(part));
}

/// Length of an entry whose rest is of `rest` bytes.
fn entry_len(shared: usize, rest: usize) -> usize {
    varint_len(shared) + varint_len(rest) + rest
}

fn append_varint(out: &mut impl Sink, mut value: usize) {
    while value >= 0x80 {
        out.append(&[value as u8 | 0x80]);
        value >>= 7;
    }
    out.append(&[value as u8]);
}

fn varint_len(value: usize) -> usize {
    (value.max(1).ilog2() / 7 + 1) as usize
}

#[inline]
fn take_varint(bytes: &mut &[u8]) -> usize {
    let first = take_byte(bytes);
    // Nearly all are this short.
    if first < 0x80 { first } else { take_long_varint(first & 0x7f, bytes) }
}

#[cold]
fn take_long_varint(mut value: usize, bytes: &mut &[u8]) -> usize {
    let mut shift = 7;
    loop {
        let byte = take_byte(bytes);
        value |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

#[inline]
fn take_byte(bytes: &mut &[u8]) -> usize {
    let byte = bytes[0];
    *bytes = &bytes[1..];
    byte as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Names that have much in common, of every length, cut anywhere, also within a character.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..3000u32).prop_map(|number| format!("lock-{number:010}")),
            (0..3u32, 0..300usize).prop_map(|(number, length)| format!("{number}").repeat(length + 1)),
            "[aé€]{1,6}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What is packed against its neighbours must survive whatever happens to them: a name that is lost can never be
        /// deleted, and its parent neither.
        #[test]
        fn set_is_the_set_of_what_was_added_and_not_removed(
            changes in proptest::collection::vec((prop::bool::weighted(0.6), name()), 1..600)
        ) {
            let (mut set, mut model) = (ChildSet::default(), BTreeSet::new());
            for (added, name) in &changes {
                if *added {
                    prop_assert_eq!(set.insert(name), model.insert(name.clone()));
                } else {
                    prop_assert_eq!(set.remove(name), model.remove(name));
                }
                prop_assert_eq!(set.contains(name), *added);
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert_eq!(set.to_vec(), model.iter().cloned().collect::<Vec<_>>());
            // A long list is read in pieces, each from the last name of the one before, which may be gone by then.
            for (_, after) in changes.iter().step_by(7) {
                let mut found = Vec::new();
                let _ = set.try_for_each(Some(after), |name| {
                    found.push(name.to_owned());
                    if found.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                let behind = model.range::<String, _>((Bound::Excluded(after), Bound::Unbounded));
                prop_assert_eq!(found, behind.take(5).cloned().collect::<Vec<_>>());
            }
        }

        /// A snapshot names children in any order, and some twice: what is loaded must be the set that was saved, and must go on as any
        /// other.
        #[test]
        fn set_that_was_loaded_is_the_set_of_what_was_pushed(
            names in proptest::collection::vec(name(), 0..600), later in proptest::collection::vec(name(), 0..60)
        ) {
            let (mut set, mut model) = (ChildSet::default(), BTreeSet::new());
            for name in &names {
                set.push(name);
                model.insert(name.clone());
            }
            set.sort();
            prop_assert_eq!((set.len(), set.to_vec()), (model.len(), model.iter().cloned().collect::<Vec<_>>()));
            for name in &later {
                prop_assert_eq!(set.contains(name), model.contains(name));
                prop_assert_eq!(set.insert(name), model.insert(name.clone()));
            }
            for name in model.iter().step_by(2) {
                prop_assert!(set.remove(name) && !set.contains(name));
            }
            prop_assert_eq!(set.to_vec(), model.into_iter().skip(1).step_by(2).collect::<Vec<_>>());
        }
    }

    /// A name may be as long as a packet. A page that holds one must still be split, or each of its siblings is looked for among all
    /// the others.
    #[test]
    fn long_name_does_not_keep_its_page_whole() {
        let long = "m".repeat(100_000);
        let mut set = ChildSet::default();
        assert!(set.insert(&long));
        for i in 0..1000 {
            assert!(set.insert(&format!("a{}", i * 7919 % 1000)) && set.insert(&format!("z{}", i * 7919 % 1000)));
        }
        let other_bytes = |page: &Page| {
            let longest = page.entries().map(|entry| entry.end - entry.offset).max().unwrap_or(0);
            page.bytes.len() - longest
        };
        for page in std::iter::once(&set.first).chain(set.rest.values()) {
            assert!(other_bytes(page) <= Page::BYTES_MAX, "{} bytes beside the longest name", other_bytes(page));
        }
        assert!(set.contains(&long) && set.remove(&long) && !set.contains(&long));
        assert_eq!(set.to_vec().len(), 2000);
    }

    /// The set grows to many pages and shrinks to nothing, in every order; no name may get lost or doubled on the way, and pages
    /// must not stay nearly empty.
    #[test]
    fn names_survive_growing_and_shrinking() {
        let name = |i: u64| format!("n{i:010}");
        let ascending: Vec<u64> = (0..10_000).collect();
        let descending = ascending.iter().rev().copied().collect();
        let scattered = ascending.iter().map(|i| i * 7919 % 10_000).collect();
        let descending_after_half = (0..5_000).chain((5_000..10_000).rev()).collect();
        for order in [&ascending, &descending, &scattered, &descending_after_half] {
            let mut set = ChildSet::default();
            for name in order.iter().copied().map(name) {
                assert!(set.insert(&name) && !set.insert(&name));
            }
            assert_eq!(set.to_vec(), ascending.iter().copied().map(name).collect::<Vec<_>>());
            let bytes: usize = set.rest.values().map(|page| page.bytes.capacity()).sum();
            assert!(bytes < 8 * order.len(), "{bytes} bytes for {} names, the first {:?}", order.len(), &order[..3]);
            for (removed, name) in order.iter().copied().map(name).enumerate() {
                assert!(set.contains(&name) && set.remove(&name) && !set.remove(&name));
                assert_eq!(set.len(), order.len() - removed - 1);
            }
            assert!(set.rest.is_empty() && set.first.bytes.is_empty());
            assert!(set.insert("again") && set.contains("again"));
        }
    }
}
