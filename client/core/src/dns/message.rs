//! Questions and answers as bytes (RFC 1035, EDNS of RFC 6891), as far as one question about one name goes.
//!
//! What comes in is some local program's: every access is checked, and a question that is not understood is answered
//! so, or not at all.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::u16_at;

const HEADER: usize = 12;
/// Longest name, with its lengths (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: u8 = 63;
/// Seconds for which an answer may be kept: about as long as a policy change may take to be noticed by whoever keeps it.
const TTL: u32 = 10;
/// Bytes of an answer that are promised to be understood by whoever asks with EDNS.
const UDP_SIZE: u16 = 1232;
/// Seconds for which may be kept that there is no name: what the policy opens is to be found at once.
const NEGATIVE_TTL: u32 = 1;
/// Two bits that make two bytes the place of a name that was written before.
const POINTER: u16 = 0xc000;

const IS_ANSWER: u16 = 1 << 15;
const OPCODE: u16 = 15 << 11;
const IS_AUTHORITATIVE: u16 = 1 << 10;
const IS_RECURSION_DESIRED: u16 = 1 << 8;

const CLASS_INTERNET: u16 = 1;
const CLASS_ANY: u16 = 255;
const OPT: u16 = 41;

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its IPv4 address.
    A,
    /// Its IPv6 address.
    Aaaa,
    /// Whose address the name stands for.
    Ptr,
    /// Where the zone begins.
    Soa,
    /// Anything; one address is enough (RFC 8482).
    Any,
    /// What no name here has.
    Other,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// The labels of the name, as they were written: `a.b.` has two.
    pub(super) labels: Vec<&'a [u8]>,
    /// What is asked.
    pub(super) kind: Kind,
}

/// How a question is answered. A zone is told by how many labels at the end of the question's name are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name has what was asked for.
    Found(Record),
    /// The name is there, and has none.
    Nothing {
        /// Labels of the zone.
        zone: usize,
    },
    /// There is no such name.
    NoName {
        /// Labels of the zone.
        zone: usize,
    },
    /// It is none of ours to answer.
    Refused,
}

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// A name, by its labels.
    Ptr(Vec<String>),
    /// The zone begins here.
    Soa,
}

/// Response codes (RFC 1035, section 4.1.1; RFC 6891, section 9).
mod code {
    pub(super) const NO_ERROR: u16 = 0;
    pub(super) const FORMAT_ERROR: u16 = 1;
    pub(super) const NO_NAME: u16 = 3;
    pub(super) const NOT_IMPLEMENTED: u16 = 4;
    pub(super) const REFUSED: u16 = 5;
    /// Its upper bits are in the OPT record.
    pub(super) const BAD_VERSION: u16 = 16;
}

/// Answers the message in `query` into `out` by what `look_up` says, and returns the answer's length. `None` for what is
/// no question at all, and for what does not fit.
pub(super) fn respond(
    query: &[u8],
    out: &mut [u8],
    look_up: impl FnOnce(&Question<'_>) -> Answer,
) -> Option<usize> {
    let flags = u16_at(query, 2)?;
    if query.len() < HEADER || flags & IS_ANSWER != 0 {
        return None;
    }
    let mut writer = Writer::begin(out, query)?;
    if flags & OPCODE != 0 {
        return writer.end(flags, code::NOT_IMPLEMENTED);
    }
    let Some((asked, end)) = question(query) else {
        return writer.end(flags, code::FORMAT_ERROR);
    };
    writer.put(query.get(HEADER..end)?)?;
    writer.count(4, 1)?;
    let edns = edns_version(query, end);
    let is_internet = asked.class == CLASS_INTERNET || asked.class == CLASS_ANY;
    let code = if edns.is_some_and(|version| version > 0) {
        code::BAD_VERSION
    } else if !is_internet {
        code::REFUSED
    } else {
        match look_up(&asked.question) {
            Answer::Found(record) => {
                writer.record(&record, HEADER, TTL)?;
                writer.count(6, 1)?;
                code::NO_ERROR
            }
            // Whose the zone is goes with what it has not (RFC 2308, section 3).
            Answer::Nothing { zone } => {
                writer.record(&Record::Soa, asked.question.zone_at(zone)?, NEGATIVE_TTL)?;
                writer.count(8, 1)?;
                code::NO_ERROR
            }
            Answer::NoName { zone } => {
                writer.record(&Record::Soa, asked.question.zone_at(zone)?, NEGATIVE_TTL)?;
                writer.count(8, 1)?;
                code::NO_NAME
            }
            Answer::Refused => code::REFUSED,
        }
    };
    if edns.is_some() {
        writer.opt(code)?;
        writer.count(10, 1)?;
    }
    writer.end(flags, code)
}

impl Question<'_> {
    /// Where the last `labels` of its name begin in the message.
    fn zone_at(&self, labels: usize) -> Option<usize> {
        let before = self.labels.len().checked_sub(labels)?;
        let lens = self.labels.iter().take(before).map(|label| label.len());
        lens.map(|len| len.saturating_add(1))
            .sum::<usize>()
            .checked_add(HEADER)
    }
}

struct Asked<'a> {
    question: Question<'a>,
    class: u16,
}

/// The one question of a message, and where it ends.
fn question(query: &[u8]) -> Option<(Asked<'_>, usize)> {
    if u16_at(query, 4)? != 1 {
        return None;
    }
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let len = *query.get(at)?;
        at = at.checked_add(1)?;
        if len == 0 {
            break;
        }
        // A pointer has nothing to point to, and is refused with all that is longer than a label.
        if len > LONGEST_LABEL {
            return None;
        }
        let end = at.checked_add(usize::from(len))?;
        labels.push(query.get(at..end)?);
        at = end;
        if at.checked_sub(HEADER)? >= LONGEST_NAME {
            return None;
        }
    }
    let kind = match u16_at(query, at)? {
        1 => Kind::A,
        28 => Kind::Aaaa,
        12 => Kind::Ptr,
        6 => Kind::Soa,
        255 => Kind::Any,
        _ => Kind::Other,
    };
    let class = u16_at(query, at.checked_add(2)?)?;
    let question = Question { labels, kind };
    Some((Asked { question, class }, at.checked_add(4)?))
}

/// The version of EDNS that the question was asked with, if with any. Its record comes first where resolvers write it.
fn edns_version(query: &[u8], question_end: usize) -> Option<u8> {
    let nothing_between = u16_at(query, 6)? == 0 && u16_at(query, 8)? == 0;
    let has_more = u16_at(query, 10)? > 0;
    let record = query
        .get(question_end..)
        .filter(|_| nothing_between && has_more)?;
    let is_opt = *record.first()? == 0 && u16_at(record, 1)? == OPT;
    record.get(6).copied().filter(|_| is_opt)
}

/// Writes an answer from its beginning on.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    fn begin(out: &'a mut [u8], query: &[u8]) -> Option<Self> {
        let header = out.get_mut(..HEADER)?;
        header.fill(0);
        header.get_mut(..2)?.copy_from_slice(query.get(..2)?);
        Some(Self { out, at: HEADER })
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    /// Sets one of the header's counts.
    fn count(&mut self, at: usize, count: u16) -> Option<()> {
        let field = self.out.get_mut(at..at.checked_add(2)?)?;
        field.copy_from_slice(&count.to_be_bytes());
        Some(())
    }

    /// Writes a record of the name that begins at `name`.
    fn record(&mut self, record: &Record, name: usize, ttl: u32) -> Option<()> {
        let name = (POINTER | u16::try_from(name).ok()?).to_be_bytes();
        self.put(&name)?;
        match record {
            Record::A(address) => {
                self.head(1, ttl, 4)?;
                self.put(&address.octets())
            }
            Record::Aaaa(address) => {
                self.head(28, ttl, 16)?;
                self.put(&address.octets())
            }
            Record::Ptr(labels) => {
                let lens = labels.iter().map(|label| label.len().saturating_add(1));
                self.head(12, ttl, lens.sum::<usize>().checked_add(1)?)?;
                for label in labels {
                    self.put(&[u8::try_from(label.len()).ok()?])?;
                    self.put(label.as_bytes())?;
                }
                self.put(&[0])
            }
            Record::Soa => {
                // The zone itself as its server, nobody's mailbox, five numbers of which the last counts.
                self.head(6, ttl, 2 + 1 + 5 * 4)?;
                self.put(&name)?;
                self.put(&[0])?;
                for number in [1, 3600, 600, 86_400, NEGATIVE_TTL] {
                    self.put(&number.to_be_bytes())?;
                }
                Some(())
            }
        }
    }

    fn head(&mut self, kind: u16, ttl: u32, len: usize) -> Option<()> {
        self.put(&kind.to_be_bytes())?;
        self.put(&CLASS_INTERNET.to_be_bytes())?;
        self.put(&ttl.to_be_bytes())?;
        self.put(&u16::try_from(len).ok()?.to_be_bytes())
    }

    /// The OPT record: of version 0, with the upper bits of the code, without options.
    fn opt(&mut self, code: u16) -> Option<()> {
        self.put(&[0])?;
        self.put(&OPT.to_be_bytes())?;
        self.put(&UDP_SIZE.to_be_bytes())?;
        let [_, upper] = (code >> 4).to_be_bytes();
        self.put(&[upper, 0, 0, 0, 0, 0])
    }

    /// Writes the flags, and returns the length of all. What is answered is answered with authority.
    fn end(self, asked: u16, code: u16) -> Option<usize> {
        let authority = match code {
            code::NO_ERROR | code::NO_NAME => IS_AUTHORITATIVE,
            _ => 0,
        };
        let kept = asked & (OPCODE | IS_RECURSION_DESIRED);
        let flags = IS_ANSWER | authority | kept | (code & 15);
        let field = self.out.get_mut(2..4)?;
        field.copy_from_slice(&flags.to_be_bytes());
        Some(self.at)
    }
}
