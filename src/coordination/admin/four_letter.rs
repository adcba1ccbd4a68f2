//! The words that ZooKeeper knows, and which of them may be asked.

/// A four-letter word of ZooKeeper 3.9. Any other four bytes are the length of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are ZooKeeper's and say all there is.
pub enum FourLetterWord {
    Conf,
    Cons,
    Crst,
    Dirs,
    Dump,
    Envi,
    Gtmk,
    Hash,
    Isro,
    Mntr,
    Ruok,
    Srst,
    Srvr,
    Stat,
    Stmk,
    Wchc,
    Wchp,
    Wchs,
}

use FourLetterWord::*;

const WORDS: [(FourLetterWord, &str); 18] = [
    (Conf, "conf"),
    (Cons, "cons"),
    (Crst, "crst"),
    (Dirs, "dirs"),
    (Dump, "dump"),
    (Envi, "envi"),
    (Gtmk, "gtmk"),
    (Hash, "hash"),
    (Isro, "isro"),
    (Mntr, "mntr"),
    (Ruok, "ruok"),
    (Srst, "srst"),
    (Srvr, "srvr"),
    (Stat, "stat"),
    (Stmk, "stmk"),
    (Wchc, "wchc"),
    (Wchp, "wchp"),
    (Wchs, "wchs"),
];

impl FourLetterWord {
    /// What a word takes on the wire.
    pub const BYTES: u64 = 4;

    /// The word that these bytes are; `None` if they are no word of ZooKeeper's.
    pub fn parse(bytes: [u8; 4]) -> Option<FourLetterWord> {
        WORDS.iter().find(|(_, name)| name.as_bytes() == bytes).map(|&(word, _)| word)
    }

    /// The word as it is sent.
    pub fn name(self) -> &'static str {
        // Total: `WORDS` is in the order of the variants, which `word_answers_for_another` checks.
        WORDS[self as usize].1
    }
}

/// The words that a server answers (`4lw.commands.whitelist`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whitelist {
    /// One bit a word, by its place in the enumeration.
    words: u32,
    unknown: Vec<String>,
}

impl Whitelist {
    /// Parses words separated by commas, with blanks allowed; `*` is all words.
    ///
    /// `srvr` is always enabled, as in ZooKeeper, whose own scripts ask it.
    pub fn parse(list: &str) -> Whitelist {
        let mut whitelist = Whitelist { words: bit(Srvr), unknown: Vec::new() };
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                whitelist.words = u32::MAX;
                continue;
            }
            match WORDS.iter().find(|(_, known)| *known == name) {
                Some(&(word, _)) => whitelist.words |= bit(word),
                None => whitelist.unknown.push(name.to_owned()),
            }
        }
        whitelist
    }

    /// Whether `word` may be asked.
    pub fn allows(&self, word: FourLetterWord) -> bool {
        self.words & bit(word) != 0
    }

    /// What the list holds beside known words, to be told at start.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}

impl Default for Whitelist {
    fn default() -> Whitelist {
        Whitelist::parse("")
    }
}

const fn bit(word: FourLetterWord) -> u32 {
    1 << word as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name` finds a word by its place: a word added in one list and not in the other would answer for its neighbour.
    #[test]
    fn word_answers_for_another() {
        for (place, &(word, name)) in WORDS.iter().enumerate() {
            assert_eq!(word as usize, place, "{name}");
            assert_eq!(word.name(), name);
            assert_eq!(FourLetterWord::parse(name.as_bytes().try_into().unwrap()), Some(word));
        }
    }

    /// The four bytes are also the length of a packet: anything but an exact word must go on as a length.
    #[test]
    fn packet_length_taken_for_a_word() {
        for bytes in [*b"RUOK", *b"ruo\n", [0, 0, 0, 44], *b"lead", [0xff, 0xf4, 0xff, 0xfd]] {
            assert_eq!(FourLetterWord::parse(bytes), None, "{bytes:?}");
        }
    }

    /// A whitelist read too strictly blinds monitoring, one read too freely opens all words.
    #[test]
    fn whitelist_opens_or_shuts_too_much() {
        let default = Whitelist::default();
        assert!(default.allows(Srvr) && !default.allows(Ruok) && !default.allows(Mntr));
        let list = Whitelist::parse(" ruok , mntr,,RUOK, stats ");
        assert!(list.allows(Ruok) && list.allows(Mntr) && list.allows(Srvr) && !list.allows(Stat));
        assert_eq!(list.unknown(), ["RUOK", "stats"]);
        let all = Whitelist::parse("ruok, *");
        assert!(WORDS.iter().all(|&(word, _)| all.allows(word)));
        assert!(!Whitelist::parse("**").allows(Ruok));
    }
}
