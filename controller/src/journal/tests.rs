//! The journal against crashes, damage and failing disks.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use gatereeve_controller_core::audit::chain::{EncodedRecord, chain};
use gatereeve_shared::generation::Generation;

use super::Head;
use super::disk::{Disk, Medium, RealDisk};
use super::file::{AppendError, FileJournal};
use super::open::{Floor, open};
use super::read::Follower;
use super::scan::{JournalError, segments};
use super::writer::JournalWriter;

fn next(head: Head, bytes: &[u8]) -> EncodedRecord {
    EncodedRecord {
        generation: Generation {
            incarnation: head.generation.incarnation,
            n: head.generation.n + 1,
        },
        hash: chain(&head.hash, bytes),
        bytes: bytes.to_vec(),
    }
}

fn floor(checkpoint: u64) -> Floor {
    Floor {
        checkpoint,
        tables: 0,
    }
}

/// Appends batches of these sizes; the records' bytes are their numbers.
fn fill(journal: &mut FileJournal, batches: &[usize]) {
    for count in batches {
        let mut head = journal.head();
        let mut records = Vec::new();
        for _ in 0..*count {
            let n = head.generation.n + 1;
            records.push(next(head, format!("record {n}").as_bytes()));
            head = Head::of(&records[records.len() - 1]);
        }
        journal.append(&records).unwrap();
    }
}

fn read_all(dir: &Path, floor: Floor) -> Result<(Vec<u64>, u64), JournalError> {
    let mut seen = Vec::new();
    let opened = open(dir, floor, &mut |record| {
        assert_eq!(
            record.bytes,
            format!("record {}", record.generation.n).into_bytes()
        );
        seen.push(record.generation.n);
    })?;
    Ok((seen, opened.cut))
}

/// A journal of these batches in one segment, and the segment's bytes.
fn sample(batches: &[usize]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), floor(0), &mut |_| {}).unwrap().journal;
    fill(&mut journal, batches);
    let files = segments(dir.path()).unwrap();
    assert_eq!(files.len(), 1);
    std::fs::read(&files[0].path).unwrap()
}

fn with_bytes(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("00000000000000000001.log"), bytes).unwrap();
    dir
}

#[test]
fn what_was_appended_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), floor(0), &mut |_| {}).unwrap().journal;
    fill(&mut journal, &[1, 3, 2]);
    drop(journal);
    assert_eq!(
        read_all(dir.path(), floor(6)).unwrap(),
        (vec![1, 2, 3, 4, 5, 6], 0)
    );
    let mut journal = open(dir.path(), floor(0), &mut |_| {}).unwrap().journal;
    fill(&mut journal, &[1]);
    assert_eq!(read_all(dir.path(), floor(7)).unwrap().0.len(), 7);
}

#[test]
fn a_file_cut_at_any_byte_keeps_every_batch_that_was_whole() {
    let bytes = sample(&[2, 1, 3]);
    let boundaries: Vec<usize> = batch_ends(&bytes);
    for length in 0..=bytes.len() {
        let dir = with_bytes(&bytes[..length]);
        let whole = boundaries.iter().filter(|end| **end <= length).count();
        let records = [0, 2, 3, 6][whole];
        let (seen, _) = read_all(dir.path(), floor(0)).unwrap();
        assert_eq!(seen.len(), records, "cut at {length}");
        // And the journal goes on from there.
        let mut journal = open(dir.path(), floor(0), &mut |_| {}).unwrap().journal;
        fill(&mut journal, &[1]);
        assert_eq!(
            read_all(dir.path(), floor(0)).unwrap().0.len(),
            records + 1,
            "cut at {length}"
        );
    }
}

fn batch_ends(bytes: &[u8]) -> Vec<usize> {
    let header = super::format::SegmentHeader::decode(bytes).unwrap();
    let mut ends = Vec::new();
    let mut at = super::format::SEGMENT_HEADER;
    while at < bytes.len() {
        let batch = super::format::BatchHeader::decode(&header.salt, &bytes[at..]).unwrap();
        at += super::format::BATCH_HEADER + batch.length as usize;
        ends.push(at);
    }
    ends
}

#[test]
fn a_file_cut_below_what_was_acknowledged_refuses() {
    let bytes = sample(&[2, 1, 3]);
    let ends = batch_ends(&bytes);
    for length in 0..=bytes.len() {
        let dir = with_bytes(&bytes[..length]);
        let opened = read_all(dir.path(), floor(3));
        // The control: from the end of the second batch on, nothing acknowledged is missing.
        assert_eq!(opened.is_ok(), length >= ends[1], "cut at {length}");
        let left = std::fs::read(dir.path().join("00000000000000000001.log")).unwrap();
        if opened.is_err() {
            assert_eq!(left, &bytes[..length], "a refusal changes nothing");
        }
    }
}

#[test]
fn a_flipped_byte_in_front_of_a_valid_batch_refuses_and_one_in_the_last_batch_is_a_torn_tail() {
    let bytes = sample(&[1, 2, 1]);
    let ends = batch_ends(&bytes);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let dir = with_bytes(&damaged);
        match read_all(dir.path(), floor(0)) {
            // Never acknowledged as far as anyone knows: indistinguishable from a torn write.
            Ok((seen, cut)) => {
                assert!(at >= ends[1], "damage at {at} went through");
                assert_eq!(seen, vec![1, 2, 3]);
                assert_eq!(cut, (bytes.len() - ends[1]) as u64);
            }
            Err(JournalError::Damaged { .. }) => {
                assert!(at < ends[1], "damage at {at} in the tail");
                assert_eq!(
                    std::fs::read(segments(dir.path()).unwrap()[0].path.clone()).unwrap(),
                    damaged
                );
            }
            Err(other) => panic!("{other}"),
        }
        // With a witness of the last record no damage passes.
        let dir = with_bytes(&damaged);
        assert!(read_all(dir.path(), floor(4)).is_err(), "damage at {at}");
    }
    assert!(read_all(with_bytes(&bytes).path(), floor(4)).is_ok());
}

#[test]
fn a_tail_of_zeros_or_noise_is_cut() {
    for tail in [vec![0; 4096], vec![0xa5; 777], b"GRVB".to_vec()] {
        let mut bytes = sample(&[2, 2]);
        bytes.extend(&tail);
        let dir = with_bytes(&bytes);
        assert_eq!(
            read_all(dir.path(), floor(4)).unwrap(),
            (vec![1, 2, 3, 4], tail.len() as u64)
        );
    }
}

#[test]
fn a_batch_inside_a_record_is_not_taken_for_one() {
    // A record whose content is a segment with valid batches of its own, then a torn batch.
    let inner = sample(&[1, 1]);
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), floor(0), &mut |_| {}).unwrap().journal;
    fill(&mut journal, &[1]);
    let path = segments(dir.path()).unwrap()[0].path.clone();
    let before = std::fs::metadata(&path).unwrap().len();
    journal.append(&[next(journal.head(), &inner)]).unwrap();
    drop(journal);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (seen, cut) = read_all(dir.path(), floor(1)).unwrap();
    assert_eq!(seen, vec![1]);
    assert_eq!(cut, bytes.len() as u64 - 1 - before);
}

#[test]
fn a_missing_segment_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let mut heads = vec![Head::default()];
    // Segments of their own, as a failed sync starts them.
    let faults = Faults::default();
    let mut journal =
        FileJournal::new(dir.path(), Box::new(faults.clone()), Head::default(), None).unwrap();
    for _ in 0..3 {
        fill(&mut journal, &[2]);
        heads.push(journal.head());
        faults.arm(Fault::Sync);
        assert!(journal.append(&[next(journal.head(), b"lost")]).is_err());
    }
    drop(journal);
    let files = segments(dir.path()).unwrap();
    assert_eq!(files.len(), 3);
    assert_eq!(read_all(dir.path(), floor(6)).unwrap().0.len(), 6);
    let kept = std::fs::read(&files[1].path).unwrap();
    std::fs::remove_file(&files[1].path).unwrap();
    assert!(matches!(
        read_all(dir.path(), floor(0)),
        Err(JournalError::Damaged { .. })
    ));
    std::fs::write(&files[1].path, kept).unwrap();
    std::fs::remove_file(&files[2].path).unwrap();
    // Without a witness a lost last segment cannot be noticed; with one it is.
    assert!(read_all(dir.path(), floor(4)).is_ok());
    assert!(matches!(
        read_all(dir.path(), floor(5)),
        Err(JournalError::Short {
            known: 5,
            head: 4,
            ..
        })
    ));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Write,
    WriteAndTruncate,
    Truncate,
    Sync,
    Create,
}

/// A real disk that fails once when armed; a failing write leaves half of its bytes.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    fn arm(&self, fault: Fault) {
        *self.0.lock().unwrap() = Some(fault);
    }

    fn strikes(&self, fault: Fault) -> bool {
        let mut armed = self.0.lock().unwrap();
        let hit = *armed == Some(fault);
        if hit {
            *armed = None;
        }
        hit
    }
}

impl Disk for Faults {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        if self.strikes(Fault::Create) {
            std::fs::write(path, b"GRV")?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inner = RealDisk.create(path)?;
        Ok(Box::new(FaultyMedium(inner, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        let inner = RealDisk.open(path)?;
        Ok(Box::new(FaultyMedium(inner, self.clone())))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct FaultyMedium(Box<dyn Medium>, Faults);

impl Medium for FaultyMedium {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fails = self.1.strikes(Fault::Write);
        let fails_twice = self.1.strikes(Fault::WriteAndTruncate);
        if fails || fails_twice {
            self.0.append(&bytes[..bytes.len() / 2])?;
            if fails_twice {
                self.1.arm(Fault::Truncate);
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.1.strikes(Fault::Sync) {
            return Err(io::Error::other("input/output error"));
        }
        self.0.sync()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        if self.1.strikes(Fault::Truncate) {
            return Err(io::Error::other("input/output error"));
        }
        self.0.truncate(length)
    }
}

#[test]
fn a_failed_append_leaves_nothing_behind() {
    for fault in [
        Fault::Write,
        Fault::WriteAndTruncate,
        Fault::Sync,
        Fault::Create,
    ] {
        for batches_before in [0, 2] {
            let dir = tempfile::tempdir().unwrap();
            let faults = Faults::default();
            let mut journal =
                FileJournal::new(dir.path(), Box::new(faults.clone()), Head::default(), None)
                    .unwrap();
            fill(&mut journal, &vec![2; batches_before]);
            let head = journal.head();
            faults.arm(fault);
            if fault == Fault::Create && batches_before > 0 {
                // A creation is due only after a sync failed.
                faults.arm(Fault::Sync);
                assert!(journal.append(&[next(head, b"lost")]).is_err());
                faults.arm(Fault::Create);
            }
            let lost = [next(head, b"a record that the disk refuses")];
            assert!(
                matches!(journal.append(&lost), Err(AppendError::Io { .. })),
                "{fault:?}"
            );
            assert_eq!(journal.head(), head);
            // The refused record is gone, and the journal goes on without a restart.
            assert_eq!(read_while_open(dir.path()), head.generation.n);
            fill(&mut journal, &[1, 1]);
            drop(journal);
            let (seen, cut) = read_all(dir.path(), floor(0)).unwrap();
            assert_eq!(seen.len() as u64, head.generation.n + 2, "{fault:?}");
            assert_eq!(cut, 0, "{fault:?}");
        }
    }
}

fn read_while_open(dir: &Path) -> u64 {
    let mut follower = Follower::new(dir);
    drop(follower.read(&mut |_| {}));
    follower.head().generation.n
}

#[test]
fn records_that_do_not_follow_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), floor(0), &mut |_| {}).unwrap().journal;
    fill(&mut journal, &[1]);
    let good = next(journal.head(), b"record 2");
    let mut skipped = good.clone();
    skipped.generation.n += 1;
    let mut unchained = good.clone();
    unchained.bytes = b"record 3".to_vec();
    for bad in [skipped, unchained] {
        assert!(matches!(journal.append(&[bad]), Err(AppendError::NotNext)));
    }
    journal.append(&[good]).unwrap();
    assert_eq!(read_all(dir.path(), floor(2)).unwrap().0, vec![1, 2]);
}

#[test]
fn a_follower_sees_every_record_once_and_waits_at_an_unfinished_one() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut journal =
        FileJournal::new(dir.path(), Box::new(faults.clone()), Head::default(), None).unwrap();
    let mut follower = Follower::new(dir.path());
    let mut seen = Vec::new();
    let mut visit = |record: EncodedRecord| seen.push(record.generation.n);
    follower.read(&mut visit).unwrap();
    fill(&mut journal, &[1, 2]);
    follower.read(&mut visit).unwrap();
    faults.arm(Fault::Sync);
    journal
        .append(&[next(journal.head(), b"lost")])
        .unwrap_err();
    fill(&mut journal, &[1]);
    assert_eq!(segments(dir.path()).unwrap().len(), 2);
    follower.read(&mut visit).unwrap();
    let path = segments(dir.path()).unwrap()[1].path.clone();
    let whole = std::fs::read(&path).unwrap();
    fill(&mut journal, &[1]);
    let grown = std::fs::read(&path).unwrap();
    std::fs::write(&path, &grown[..whole.len() + 20]).unwrap();
    assert_eq!(follower.read(&mut visit).unwrap().unfinished, 20);
    std::fs::write(&path, &grown).unwrap();
    assert_eq!(follower.read(&mut visit).unwrap().unfinished, 0);
    assert_eq!(seen, vec![1, 2, 3, 4, 5]);
}

#[test]
fn the_writer_answers_in_order_and_fails_what_was_staged_behind_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let journal =
        FileJournal::new(dir.path(), Box::new(faults.clone()), Head::default(), None).unwrap();
    let (writer, mut appended) = JournalWriter::start(journal).unwrap();
    let first = next(Head::default(), b"record 1");
    let second = next(Head::of(&first), b"record 2");
    let third = next(Head::of(&second), b"record 3");
    let outcome = |appended: &mut tokio::sync::mpsc::Receiver<_>| {
        let answer: super::writer::Appended = appended.blocking_recv().unwrap();
        (answer.ticket, answer.result.is_ok())
    };
    writer.submit(1, vec![first]).unwrap();
    assert_eq!(outcome(&mut appended), (1, true));
    faults.arm(Fault::Write);
    writer.submit(2, vec![second.clone()]).unwrap();
    assert_eq!(outcome(&mut appended), (2, false));
    writer.submit(3, vec![third.clone()]).unwrap();
    writer.submit(4, vec![second]).unwrap();
    writer.submit(5, vec![third]).unwrap();
    assert_eq!(outcome(&mut appended), (3, false));
    assert_eq!(outcome(&mut appended), (4, true));
    assert_eq!(outcome(&mut appended), (5, true));
    writer.stop();
    assert_eq!(read_all(dir.path(), floor(3)).unwrap().0, vec![1, 2, 3]);
}
