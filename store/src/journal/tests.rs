//! Proves that what was appended is read back after any end of the process, and nothing else is.

use std::sync::Barrier;

use super::*;
use crate::recorder::tests::{held, settle};

fn keeping(segment_bytes: u64) -> Keeping {
    Keeping {
        sync: Sync::Group,
        interval: Duration::from_millis(10),
        segment_bytes,
    }
}

fn open(dir: &Path, bytes: u64) -> (FileJournal, u64) {
    FileJournal::open(dir, keeping(bytes), Position(0)).expect("opens")
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
        .filter(|path| path.to_string_lossy().contains("journal-0"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_file_that_begins_behind_all_numbers_is_looked_at_like_any() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut frame = Vec::new();
    segment::frame(&mut frame, |to| to.extend_from_slice(b"a record")).expect("short");
    segment::seal(&mut frame, u64::MAX);
    let file = [
        &b"PARJ\x02\0\0\0"[..],
        &u64::MAX.to_le_bytes(),
        &frame,
        &frame,
    ]
    .concat();
    std::fs::write(dir.path().join(format!("journal-{}.log", u64::MAX)), file).expect("written");
    let (end, _) = inspect(dir.path()).expect("it can be read");
    assert_eq!(end, Position(u64::MAX));
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tore() {
    let dir = tempfile::tempdir().expect("a folder");
    let records: Vec<_> = (0..3)
        .map(|n| Record::Hold(Box::new(held(n, 10))))
        .collect();
    let mut ends = vec![0];
    {
        let (journal, _) = open(dir.path(), 1 << 16);
        for record in &records {
            ends.push(journal.append(record).expect("appends").0);
        }
    }
    let file = segments(dir.path()).remove(0);
    let whole = std::fs::read(&file).expect("reads");
    assert_eq!(whole.len(), 1 << 16, "it is allocated ahead");
    let [kept, last] = [ends[2], ends[3]].map(|it| usize::try_from(it).expect("small") + 16);
    for length in kept..last {
        let mut torn = whole.clone();
        torn[length..].fill(0);
        if torn == whole {
            // What was missing were zeros.
            continue;
        }
        std::fs::write(&file, &torn).expect("writes");
        let (journal, cut) = open(dir.path(), 1 << 16);
        assert_eq!(all(&journal), records[..2], "torn at {length}");
        assert_eq!(segments(dir.path()).len(), 1, "no copy, torn at {length}");
        // What begins with an end was not begun; its length may be torn as well.
        let is_begun = torn[kept..kept + 4] != [0; 4];
        assert_eq!(cut > 0, is_begun, "torn at {length}");
        journal.append(&records[2]).expect("goes on");
        assert_eq!(all(&journal), records);
    }
    for at in kept..last {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&file, &flipped).expect("writes");
        assert_eq!(
            all(&open(dir.path(), 1 << 16).0),
            records[..2],
            "a bit flipped at {at}"
        );
    }
}

#[test]
fn what_a_file_held_before_its_new_turn_is_not_found_in_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let record = |n| Record::Hold(Box::new(held(n, 10)));
    let (journal, _) = open(dir.path(), 4_096);
    let mut turned = std::collections::BTreeSet::new();
    for n in 0..200 {
        let end = journal.append(&record(n)).expect("appends");
        journal.forget_before(end).expect("lets go");
        let [only] = &segments(dir.path())[..] else {
            panic!("all but the last are let go")
        };
        turned.insert(only.clone());
    }
    let start = journal.shared.pen.lock().expect("no panic").segment.start;
    assert!(turned.len() > 5, "files had their turn again");
    let before = journal
        .reader(Position(start))
        .read(journal.written(), usize::MAX)
        .expect("reads");
    let end = journal.written();
    drop(journal);
    let (journal, cut) = open(dir.path(), 4_096);
    assert_eq!((journal.written(), cut), (end, 0));
    let after = journal
        .reader(Position(start))
        .read(journal.written(), usize::MAX)
        .expect("reads");
    assert_eq!(after, before);
}

#[test]
fn where_there_is_no_room_a_record_is_refused_and_the_next_may_find_some() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 4_096);
    let record = Record::Hold(Box::new(held(1, 10)));
    // No file can be made where the folder is gone.
    let away = dir.path().with_extension("away");
    std::fs::rename(dir.path(), &away).expect("renames");
    let mut taken = 0;
    while journal.append(&record).is_ok() {
        taken += 1;
        assert!(taken < 1_000, "it was full at last");
    }
    assert!(taken > 3, "what was allocated could be used");
    assert!(journal.refusal().is_some(), "it says so to who asks");
    std::fs::rename(&away, dir.path()).expect("renames");
    assert_eq!(journal.refusal(), None, "and finds out by itself");
    journal.append(&record).expect("there is room again");
    assert_eq!(all(&journal).len(), taken + 1);
}

#[test]
fn records_that_enter_together_are_written_by_one_for_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 1 << 16);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let first = journal
            .enter(&Record::Hold(Box::new(held(1, 10))))
            .expect("enters");
        let last = journal
            .enter(&Record::Hold(Box::new(held(2, 10))))
            .expect("enters");
        assert!(!journal.is_written(first));
        meter::ledger::written(&journal, first)
            .await
            .expect("writes");
        assert!(journal.is_written(last), "the other was written with it");
    });
    assert_eq!(all(&journal).len(), 2);
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
fn what_stands_behind_damage_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let record = |n| Record::Hold(Box::new(held(n, 10)));
    let mut ends = Vec::new();
    {
        let (journal, _) = open(dir.path(), 1 << 16);
        for n in 0..5 {
            ends.push(journal.append(&record(n)).expect("appends").0);
        }
    }
    let file = segments(dir.path()).remove(0);
    let whole = std::fs::read(&file).expect("reads");
    let at = |place: usize| usize::try_from(ends[place]).expect("small") + 16;
    let kept = |offset: u64| {
        let name = format!("damaged-journal-{:020}-{offset}.log", 0);
        std::fs::read(dir.path().join(name)).ok()
    };
    let flipped = |place: usize| {
        let mut bytes = whole.clone();
        bytes[at(1) + place] ^= 2;
        bytes
    };
    let mut zeroed = whole.clone();
    zeroed[at(1)..at(2)].fill(0);
    // The third record's length, checksum, payload or all of it; the ledger may have some of those behind.
    for (name, bytes, floor, left) in [
        ("length", flipped(0), 0, vec![0, 1, 3, 4]),
        ("checksum", flipped(5), 0, vec![0, 1, 3, 4]),
        ("payload", flipped(30), ends[3], vec![4]),
        ("all", zeroed, 0, vec![0, 1, 3, 4]),
        ("applied", flipped(30), ends[4], vec![]),
    ] {
        std::fs::write(&file, &bytes).expect("writes");
        let begin = || {
            FileJournal::open(dir.path(), keeping(1 << 16), Position(floor))
                .expect("opens")
                .0
        };
        let left: Vec<Record> = left.into_iter().map(record).collect();
        let read = |journal: &FileJournal| {
            let mut reader = journal.reader(Position(floor));
            reader.read(journal.written(), usize::MAX).expect("reads")
        };
        let journal = begin();
        assert_eq!(read(&journal), left, "{name}");
        let copy = kept(ends[1] + 16);
        let is_lost = name != "applied";
        assert_eq!(copy, is_lost.then_some(bytes), "{name}");
        // They stand once, and what is written next stands behind them, however often it is begun anew.
        journal.append(&record(9)).expect("appends");
        drop(journal);
        let _gone = std::fs::remove_file(dir.path().join(format!(
            "damaged-journal-{:020}-{}.log",
            0,
            ends[1] + 16
        )));
        let again = read(&begin());
        assert_eq!(
            again.split_last(),
            Some((&record(9), left.as_slice())),
            "{name}"
        );
        assert_eq!(kept(ends[1] + 16), None, "{name}");
        for one in segments(dir.path()) {
            std::fs::remove_file(one).expect("removes");
        }
    }
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
    let second = FileJournal::open(dir.path(), keeping(1 << 20), Position(0));
    assert!(matches!(second, Err(OpenJournalError::InUse(_))));
}

#[test]
fn positions_never_fall_behind_the_ledger() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) =
        FileJournal::open(dir.path(), keeping(1 << 20), Position(77)).expect("opens");
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

#[test]
fn a_journal_whose_file_is_removed_is_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 1 << 20);
    let append = |number| journal.append(&Record::Hold(Box::new(held(number, 10))));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let before = append(1).expect("appends");
    runtime.block_on(journal.synced(before)).expect("synced");
    std::fs::remove_dir_all(dir.path()).expect("somebody removes the folder");
    let behind = append(2).expect("the file is still open");
    let told = runtime.block_on(journal.synced(behind)).expect_err("lost");
    assert!(told.to_string().contains("has been removed"), "{told}");
    assert!(journal.is_over());
    append(3).expect_err("nothing is taken any more");
}

#[test]
fn a_journal_that_is_set_aside_can_be_opened_by_another_and_taken_up_again_only_unchanged() {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(dir.path(), 1 << 16);
    let record = |n| Record::Hold(Box::new(held(n, 10)));
    journal.append(&record(0)).expect("appends");
    journal.set_aside().expect("reaches the disk");
    assert!(
        journal.append(&record(1)).is_err(),
        "another process keeps it"
    );
    let (other, cut) = open(dir.path(), 1 << 16);
    assert_eq!(
        (cut, other.written(), all(&other)),
        (0, journal.written(), vec![record(0)])
    );
    assert!(journal.take_up().is_err(), "the other has it");
    drop(other);
    journal.take_up().expect("nothing has changed");
    journal.append(&record(2)).expect("appends");
    assert_eq!(all(&journal), [record(0), record(2)]);

    journal.set_aside().expect("reaches the disk");
    let (other, _) = open(dir.path(), 1 << 16);
    other.append(&record(3)).expect("appends");
    drop(other);
    assert!(journal.take_up().is_err(), "the other has written to it");
    assert!(journal.append(&record(4)).is_err());
}
