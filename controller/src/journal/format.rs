//! The bytes of a segment file. All numbers are big-endian.
//!
//! ```text
//! segment = header batch*
//! header  = "GRVJNL01" salt[32] incarnation u32, n u64, hash[32] (of the head before) check[16]
//! batch   = "GRVB" count u32, length u32, first u64, digest[32] (of the body) check[16] body
//! body    = (incarnation u32, n u64, hash[32], length u32, bytes)*
//! ```
//!
//! `check` and `digest` are keyed with the segment's random salt, so that no content of a record can
//! pass for a batch.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use gatereeve_controller_core::audit::chain::{EncodedRecord, chain};
use gatereeve_shared::generation::Generation;

use super::Head;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 100;
/// Bytes of a batch's header.
pub const BATCH_HEADER: usize = 68;
/// Bytes that a record takes besides its own.
const RECORD_HEADER: usize = 48;
/// Largest record, in bytes; what the core encodes stays below.
pub const MAX_RECORD: usize = 16 * 1024 * 1024;
/// Largest body of a batch, in bytes.
pub const MAX_BODY: usize = 32 * 1024 * 1024;

const SEGMENT_MAGIC: &[u8; 8] = b"GRVJNL01";
/// What the segments of every version begin with; two digits follow.
const SEGMENT_FAMILY: &[u8; 6] = b"GRVJNL";
/// The version of the segments that are written and read here.
pub const SEGMENT_VERSION: u8 = 1;
/// What every batch begins with.
pub const BATCH_MAGIC: &[u8; 4] = b"GRVB";

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Keys the checks of its batches.
    pub salt: [u8; 32],
    /// The head that its first record follows.
    pub before: Head,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = SEGMENT_MAGIC.to_vec();
        bytes.extend(self.salt);
        bytes.extend(self.before.generation.incarnation.to_be_bytes());
        bytes.extend(self.before.generation.n.to_be_bytes());
        bytes.extend(self.before.hash);
        bytes.extend(check(&self.salt, &bytes));
        bytes
    }

    /// The header at the start of a segment; `None` where it is short or damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let magic: [u8; 8] = cursor.array()?;
        let salt = cursor.array()?;
        let incarnation = u32::from_be_bytes(cursor.array()?);
        let n = u64::from_be_bytes(cursor.array()?);
        let hash = cursor.array()?;
        let found: [u8; 16] = cursor.array()?;
        let checked = bytes.get(..SEGMENT_HEADER.checked_sub(16)?)?;
        (&magic == SEGMENT_MAGIC && found == check(&salt, checked)).then_some(Self {
            salt,
            before: Head {
                generation: Generation { incarnation, n },
                hash,
            },
        })
    }
}

/// The version that a segment says it is of, damaged or not.
#[must_use]
pub fn segment_version(bytes: &[u8]) -> Option<u8> {
    let digits = bytes.strip_prefix(SEGMENT_FAMILY)?.get(..2)?;
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}

/// Whether the header would hold if it said that it is of our version.
#[must_use]
pub fn is_ours_but_for_version(bytes: &[u8]) -> bool {
    let rest = bytes.get(SEGMENT_MAGIC.len()..SEGMENT_HEADER);
    rest.is_some_and(|rest| {
        SegmentHeader::decode(&[SEGMENT_MAGIC.as_slice(), rest].concat()).is_some()
    })
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// How many records.
    pub count: u32,
    /// Bytes of the body.
    pub length: u32,
    /// Number of the first record.
    pub first: u64,
    digest: [u8; 32],
}

impl BatchHeader {
    /// The batch header at the start of `bytes`; `None` where there is none that holds.
    #[must_use]
    pub fn decode(salt: &[u8; 32], bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let magic: [u8; 4] = cursor.array()?;
        let count = u32::from_be_bytes(cursor.array()?);
        let length = u32::from_be_bytes(cursor.array()?);
        let first = u64::from_be_bytes(cursor.array()?);
        let digest = cursor.array()?;
        let found: [u8; 16] = cursor.array()?;
        let checked = bytes.get(..BATCH_HEADER.checked_sub(16)?)?;
        (&magic == BATCH_MAGIC && found == check(salt, checked)).then_some(Self {
            count,
            length,
            first,
            digest,
        })
    }
}

/// A batch of records, ready to be written.
///
/// # Errors
/// A text that says which limit the records exceed.
pub fn encode_batch(salt: &[u8; 32], records: &[EncodedRecord]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    for record in records {
        if record.bytes.len() > MAX_RECORD {
            return Err(format!(
                "the record takes {} bytes, at most {MAX_RECORD} are possible",
                record.bytes.len()
            ));
        }
        body.extend(record.generation.incarnation.to_be_bytes());
        body.extend(record.generation.n.to_be_bytes());
        body.extend(record.hash);
        body.extend(to_u32(record.bytes.len())?.to_be_bytes());
        body.extend(&record.bytes);
    }
    if body.len() > MAX_BODY {
        return Err(format!(
            "the records take {} bytes, at most {MAX_BODY} are possible",
            body.len()
        ));
    }
    let first = records.first().map_or(0, |record| record.generation.n);
    let mut bytes = BATCH_MAGIC.to_vec();
    bytes.extend(to_u32(records.len())?.to_be_bytes());
    bytes.extend(to_u32(body.len())?.to_be_bytes());
    bytes.extend(first.to_be_bytes());
    bytes.extend(chain(salt, &body));
    bytes.extend(check(salt, &bytes));
    bytes.extend(body);
    Ok(bytes)
}

fn to_u32(length: usize) -> Result<u32, String> {
    u32::try_from(length).map_err(|_| format!("{length} does not fit the journal's format"))
}

/// What `bytes` begin with.
#[derive(Debug)]
pub enum Parsed {
    /// Nothing.
    End,
    /// A whole batch, and the bytes it takes.
    Batch(Vec<EncodedRecord>, usize),
    /// Bytes that are no whole batch, as an unfinished write leaves them.
    Torn(&'static str),
    /// A batch that was written whole and is not what we write.
    Wrong(&'static str),
}

/// Reads the batch at the start of `bytes`.
#[must_use]
pub fn parse_batch(salt: &[u8; 32], bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::End;
    }
    let Some(header) = BatchHeader::decode(salt, bytes) else {
        return Parsed::Torn("no batch begins here");
    };
    let body = usize::try_from(header.length)
        .ok()
        .and_then(|length| BATCH_HEADER.checked_add(length))
        .and_then(|end| bytes.get(BATCH_HEADER..end));
    let Some(body) = body else {
        return Parsed::Torn("the batch is cut short");
    };
    if chain(salt, body) != header.digest {
        return Parsed::Torn("the batch does not match its checksum");
    }
    match parse_body(body, header.count) {
        Some(records) if records.first().map(|r| r.generation.n) == Some(header.first) => {
            Parsed::Batch(records, BATCH_HEADER.saturating_add(body.len()))
        }
        Some(_) | None => Parsed::Wrong("the batch's records are not what its header says"),
    }
}

fn parse_body(body: &[u8], count: u32) -> Option<Vec<EncodedRecord>> {
    let mut cursor = Cursor(body);
    let mut records = Vec::new();
    for _ in 0..count {
        if cursor.0.len() < RECORD_HEADER {
            return None;
        }
        let incarnation = u32::from_be_bytes(cursor.array()?);
        let n = u64::from_be_bytes(cursor.array()?);
        let hash = cursor.array()?;
        let length = u32::from_be_bytes(cursor.array()?);
        records.push(EncodedRecord {
            generation: Generation { incarnation, n },
            hash,
            bytes: cursor.take(usize::try_from(length).ok()?)?.to_vec(),
        });
    }
    cursor.0.is_empty().then_some(records)
}

/// Where a batch header that holds is found in `bytes`, which begin behind damage.
#[must_use]
pub fn find_batch(salt: &[u8; 32], bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(BATCH_MAGIC.len())
        .enumerate()
        .filter(|(_, window)| window == BATCH_MAGIC)
        .find(|(at, _)| {
            bytes
                .get(*at..)
                .is_some_and(|rest| BatchHeader::decode(salt, rest).is_some())
        })
        .map(|(at, _)| at)
}

fn check(salt: &[u8; 32], bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short
        .iter_mut()
        .zip(chain(salt, bytes))
        .for_each(|(to, from)| *to = from);
    short
}

/// Takes bytes off the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}
