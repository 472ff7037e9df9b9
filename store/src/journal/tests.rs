//! Proves that what was appended is read back after any end of the process, and nothing else is.

use std::sync::Barrier;

use super::*;
use crate::recorder::tests::{held, settle};

fn open(dir: &Path, bytes: u64) -> (FileJournal, u64) {
    FileJournal::open(dir, Sync::Group, bytes, Position(0)).expect("opens")
}

fn all(journal: &FileJournal) -> Vec<Record> {
    journal
        .reader(Position(0))
        .read(journal.written(), usize::MAX)
        .expect("reads")
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tore() {
    let dir = tempfile::tempdir().expect("a folder");
    let records: Vec<_> = (0..3)
        .map(|n| Record::Hold(Box::new(held(n, 10))))
        .collect();
    let mut ends = vec![0];
    {
        let (journal, _) = open(dir.path(), 1 << 20);
        for record in &records {
            ends.push(journal.append(record).expect("appends").0);
        }
    }
    let file = segments(dir.path()).remove(0);
    let whole = std::fs::read(&file).expect("reads");
    let (kept, last) = (usize::try_from(ends[2]).expect("small") + 16, whole.len());
    for length in kept..last {
        std::fs::write(&file, &whole[..length]).expect("writes");
        let (journal, cut) = open(dir.path(), 1 << 20);
        assert_eq!(all(&journal), records[..2], "torn at {length}");
        assert_eq!(cut, u64::try_from(length - kept).expect("small"));
        journal.append(&records[2]).expect("goes on");
        assert_eq!(all(&journal), records);
    }
    for at in kept..last {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&file, &flipped).expect("writes");
        assert_eq!(
            all(&open(dir.path(), 1 << 20).0),
            records[..2],
            "a bit flipped at {at}"
        );
    }
}

#[test]
fn a_damaged_record_with_sound_ones_behind_it_is_an_error_not_a_gap() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 1 << 20);
    for n in 0..3 {
        journal
            .append(&Record::Hold(Box::new(held(n, 10))))
            .expect("appends");
    }
    let file = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).expect("reads");
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).expect("writes");
    let error = journal
        .reader(Position(0))
        .read(journal.written(), 9)
        .expect_err("damaged");
    assert!(
        error
            .to_string()
            .contains("journal-00000000000000000000.log"),
        "{error}"
    );
}

#[test]
fn many_threads_append_and_each_record_stands_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 4_096);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (journal, start) = (&journal, &start);
            scope.spawn(move || {
                start.wait();
                let mut last = Position(0);
                for n in 0..20 {
                    let record = Record::Hold(Box::new(held(thread * 20 + n, 10)));
                    let position = journal.append(&record).expect("appends");
                    assert!(position > last);
                    last = position;
                }
            });
        }
    });
    assert!(segments(dir.path()).len() > 3, "it was rotated");
    let mut ids: Vec<_> = all(&journal)
        .iter()
        .map(|record| match record {
            Record::Hold(held) => held.request,
            Record::Settle(entry) => entry.held.request,
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 160);
    let before = segments(dir.path());
    journal.forget_before(journal.written()).expect("removes");
    assert_eq!(
        segments(dir.path()),
        before[before.len() - 1..],
        "only the last one stays"
    );
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_journal, _) = open(dir.path(), 1 << 20);
    let second = FileJournal::open(dir.path(), Sync::Group, 1 << 20, Position(0));
    assert!(matches!(second, Err(OpenJournalError::InUse(_))));
}

#[test]
fn positions_never_fall_behind_the_ledger() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) =
        FileJournal::open(dir.path(), Sync::Group, 1 << 20, Position(77)).expect("opens");
    assert_eq!(
        journal.written(),
        Position(77),
        "the files were lost, the ledger was not"
    );
    let record = settle(held(1, 10), 5);
    journal.append(&record).expect("appends");
    let read = journal
        .reader(Position(77))
        .read(journal.written(), 9)
        .expect("reads");
    assert_eq!(read, [record]);
}

#[test]
fn synced_waits_for_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 1 << 20);
    let end = journal
        .append(&Record::Hold(Box::new(held(1, 10))))
        .expect("appends");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(journal.synced(end)).expect("synced");
    assert!(journal.synced_to() >= end);
}
