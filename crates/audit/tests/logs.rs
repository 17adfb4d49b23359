//! Logs that change keys, begin late, break more than once: which are whole, and what is told of
//! those that are not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::NonZero;

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{Handover, LogKey, PublicKey, Signer};
use countersign_audit::tree::{Frontier, Hash, leaf_hash};
use countersign_audit::verify::{
    BundleError, BundleWriter, KEY_ROTATION, MAX_FINDINGS, Options, Report, Rule, StoredRecord,
    Verifier, verify_bundle,
};

const ORIGIN: &str = "log.example/logs";

fn key(seed: u8) -> LogKey {
    LogKey::from_seed(ORIGIN, &[seed; 32]).unwrap()
}

/// A line of a log: a record, or a checkpoint over those before.
enum Line {
    Record(Vec<u8>),
    Note(String),
}

/// A log as it grows.
#[derive(Default)]
struct Log {
    lines: Vec<Line>,
    tree: Frontier,
}

impl Log {
    fn payload(&mut self, payload: &str) -> &mut Self {
        let seq = self.tree.size() + 1;
        let record = format!(
            "{{\"journal_seq\":{seq},\"record_id\":\"r{seq}\",\"agent_id\":\"a\",\
             \"timestamp_millis\":{seq},\"payload\":{payload}}}"
        );
        self.tree.push(leaf_hash(record.as_bytes()), |_, _| ());
        self.lines.push(Line::Record(record.into_bytes()));
        self
    }

    fn record(&mut self) -> &mut Self {
        self.payload("{\"type\":\"note\"}")
    }

    fn rotate(&mut self, to: &str) -> &mut Self {
        self.payload(&format!("{{\"type\":\"{KEY_ROTATION}\",\"new_key\":\"{to}\"}}"))
    }

    fn sign(&mut self, signer: &dyn Signer) -> &mut Self {
        let note = Checkpoint::sign(self.tree.size(), self.tree.root(), signer).unwrap();
        self.lines.push(Line::Note(note));
        self
    }

    /// What is left behind so many records.
    fn bundle(&self, skip: u64) -> Vec<u8> {
        let (mut before, mut peaks) = (Frontier::default(), Vec::new());
        let mut lines = self.lines.iter();
        while before.size() < skip {
            if let Line::Record(record) = lines.next().unwrap() {
                before.push(leaf_hash(record), |_, _| ());
            }
        }
        peaks.extend(before.peaks().map(|(_, hash)| hash));
        let mut bundle = BundleWriter::new(Vec::new(), &keys(), (skip, &peaks)).unwrap();
        for line in lines {
            match line {
                Line::Record(record) => bundle.record(record).unwrap(),
                Line::Note(note) => bundle.checkpoint(note).unwrap(),
            }
        }
        bundle.finish().unwrap()
    }

    /// What the verifier says of the bundle, and of the same lines from a store: the same.
    fn verify(&self, pinned: &LogKey, meaning: bool) -> Report {
        let options = Options { threads: NonZero::new(2), meaning, ..Options::default() };
        let report = verify_bundle(&*self.bundle(0), pinned.public(), &options, |_| ()).unwrap();
        let mut verifier = Verifier::new(pinned.public());
        if meaning {
            verifier = verifier.with_meaning();
        }
        let mut seq = 0;
        for line in &self.lines {
            match line {
                Line::Record(bytes) => {
                    seq += 1;
                    let record_id = format!("r{seq}");
                    let (record_id, leaf) = (record_id.as_str(), Some(leaf_hash(bytes)));
                    verifier.record(StoredRecord { seq, record_id, bytes, leaf });
                }
                Line::Note(note) => verifier.checkpoint(seq, note),
            }
        }
        assert_eq!(verifier.finish(), report);
        report
    }
}

fn keys() -> [PublicKey; 1] {
    [key(1).public().clone()]
}

fn found(report: &Report) -> Vec<(Rule, u64)> {
    report.findings.iter().map(|finding| (finding.rule, finding.seq)).collect()
}

/// Records under the first key, the change, records under the second.
fn rotated() -> Log {
    let mut log = Log::default();
    let both = Handover { old: key(1), new: key(2) };
    log.record().record().sign(&key(1)).rotate(&key(2).public().to_string()).sign(&both);
    log.record().sign(&key(2));
    log
}

#[test]
fn a_log_that_changed_keys_is_whole_for_whoever_has_either() {
    for meaning in [false, true] {
        let report = rotated().verify(&key(1), meaning);
        assert!(report.ok, "{report:?}");
        assert_eq!((report.records, report.checkpoints, report.covered), (4, 3, 4));
        assert_eq!(report.key, key(1).public().to_string());
        assert_eq!(report.key_now, Some(key(2).public().to_string()));

        let report = rotated().verify(&key(2), meaning);
        assert!(report.ok, "{report:?}");
        assert_eq!((report.covered, report.key_now), (4, None));

        let report = rotated().verify(&key(3), meaning);
        assert!(!report.integrity_ok);
        assert_eq!(found(&report), [(Rule::CheckpointInvalid, 2)]);
        assert_eq!(report.covered, 0);
    }
}

#[test]
fn keys_change_only_by_both() {
    let two = key(2).public().to_string();
    let of_another = LogKey::from_seed("log.example/another", &[2; 32]).unwrap();
    let of_another = of_another.public().to_string();
    type Case<'a> = (&'static str, Box<dyn Fn(&mut Log) + 'a>, Vec<(Rule, u64)>);
    let both = || Handover { old: key(1), new: key(2) };
    let cases: Vec<Case<'_>> = vec![
        (
            "the new key alone signs",
            Box::new(|log| {
                log.record().sign(&key(1)).rotate(&two).sign(&key(2));
            }),
            vec![(Rule::CheckpointInvalid, 2)],
        ),
        (
            "the old key alone signs",
            Box::new(|log| {
                log.record().sign(&key(1)).rotate(&two).sign(&key(1));
            }),
            vec![(Rule::CheckpointInvalid, 2)],
        ),
        (
            "the old key goes on alone when it has handed over",
            Box::new(|log| {
                log.record().rotate(&two).sign(&both()).record().sign(&key(1));
            }),
            vec![(Rule::CheckpointInvalid, 3)],
        ),
        (
            "the new key is of another log",
            Box::new(|log| {
                log.record().rotate(&of_another).sign(&key(1));
            }),
            vec![(Rule::CheckpointInvalid, 2)],
        ),
        (
            "the new key is none",
            Box::new(|log| {
                log.record().rotate("none").sign(&key(1));
            }),
            vec![(Rule::CheckpointInvalid, 2)],
        ),
        (
            "nobody announced the new key",
            Box::new(|log| {
                log.record().sign(&key(1)).record().sign(&key(2));
            }),
            vec![(Rule::CheckpointInvalid, 2)],
        ),
        (
            "the empty log is signed by somebody else",
            Box::new(|log| {
                log.sign(&key(2)).record().sign(&key(1));
            }),
            vec![(Rule::CheckpointInvalid, 0)],
        ),
    ];
    for (case, build, expected) in cases {
        let mut log = Log::default();
        build(&mut log);
        for meaning in [false, true] {
            let report = log.verify(&key(1), meaning);
            assert_eq!(found(&report), expected, "{case}: {report:?}");
            assert!(!report.integrity_ok && !report.ok, "{case}");
        }
    }
    // Over nothing it is one as any other.
    let mut log = Log::default();
    log.sign(&key(1)).record().rotate(&two).sign(&both()).record().sign(&key(2));
    assert!(log.verify(&key(1), false).ok);
    assert!(log.verify(&key(2), false).ok);
    // A checkpoint before the pinned key's first is no finding only where that key was announced.
    let mut log = Log::default();
    log.record().sign(&key(1)).record().sign(&both()).record().sign(&key(2));
    assert_eq!(found(&log.verify(&key(2), false)), [(Rule::CheckpointInvalid, 1)]);
}

#[test]
fn a_bundle_that_begins_late_is_held_against_the_tree_before_it() {
    let mut log = Log::default();
    for _ in 0..5 {
        log.record();
    }
    log.sign(&key(1)).record().record().sign(&key(1));
    for skip in 1..=6 {
        let options = Options { meaning: true, ..Options::default() };
        let bundle = log.bundle(skip);
        let report = verify_bundle(&*bundle, key(1).public(), &options, |_| ()).unwrap();
        assert!(report.ok, "{skip}: {report:?}");
        assert_eq!((report.records, report.covered, report.meaning_ok), (7, 7, None));
        let told = format!("what records 1 to {skip} say");
        assert!(report.not_covered.contains(&told), "{report:?}");
    }
    let whole = verify_bundle(&*log.bundle(0), key(1).public(), &Options::default(), |_| ());
    let whole = whole.unwrap();
    assert!(!whole.not_covered.iter().any(|what| what.starts_with("what records")), "{whole:?}");

    // Another tree before it: the first checkpoint says so.
    let mut bundle = BundleWriter::new(Vec::new(), &keys(), (1, &[Hash::default()])).unwrap();
    for line in &log.lines[1..] {
        match line {
            Line::Record(record) => bundle.record(record).unwrap(),
            Line::Note(note) => bundle.checkpoint(note).unwrap(),
        }
    }
    let bundle = bundle.finish().unwrap();
    let report = verify_bundle(&*bundle, key(1).public(), &Options::default(), |_| ()).unwrap();
    assert_eq!(found(&report), [(Rule::RootMismatch, 5)]);

    // A checkpoint kept elsewhere of records that the bundle leaves out cannot be held against it;
    // that of the last one left out can, and nothing is before the first.
    let note = |size: u64, root: Hash| Checkpoint { size, root, origin: ORIGIN.into() };
    for (size, rules) in
        [(0, Some(vec![])), (1, None), (2, None), (3, Some(vec![(Rule::Forked, 3)]))]
    {
        let checkpoints = vec![note(size, Hash::default())];
        let options = Options { checkpoints, ..Options::default() };
        let report = verify_bundle(&*log.bundle(3), key(1).public(), &options, |_| ());
        let found = report.as_ref().ok().map(found);
        assert_eq!(found, rules, "{size}: {report:?}");
    }
}

#[test]
fn a_change_of_keys_that_cannot_be_read_changes_nothing() {
    let mut log = Log::default();
    let payload = format!("{{\"type\":\"{KEY_ROTATION}\"}}");
    log.record().payload(&payload).sign(&key(1)).record().sign(&key(1));
    assert!(log.verify(&key(1), false).ok);
    assert_eq!(found(&log.verify(&key(1), true)), [(Rule::RecordUnreadable, 2)]);
    assert_eq!(found(&log.verify(&key(2), false)), [(Rule::CheckpointInvalid, 2)]);
}

#[test]
fn a_line_break_is_no_part_of_a_record() {
    let mut bundle = BundleWriter::new(Vec::new(), &keys(), (0, &[])).unwrap();
    bundle.record(b"{}").unwrap();
    assert!(matches!(bundle.record(b"{\n}"), Err(BundleError::LineBreak(2))));
}

#[test]
fn findings_are_counted_beyond_those_kept() {
    let mut log = Log::default();
    for _ in 0..MAX_FINDINGS + 20 {
        log.payload("{\"type\":\"effect_result\",\"effect_id\":\"e\"}");
    }
    let report = log.sign(&key(1)).verify(&key(1), true);
    // The first has no announcement, the others are repeated.
    assert_eq!(report.findings.len(), MAX_FINDINGS);
    assert_eq!(report.finding_count, MAX_FINDINGS as u64 + 20);
    assert_eq!(report.findings[0].rule, Rule::EffectWithoutIntent);
    assert_eq!(report.findings[1].rule, Rule::ResultRepeated);
    assert_eq!((report.ok, report.integrity_ok, report.meaning_ok), (false, true, Some(false)));
    // Without meaning, nothing is wrong with the bytes.
    let report = log.verify(&key(1), false);
    assert_eq!((report.ok, report.integrity_ok, report.meaning_ok), (true, true, None));
    assert!(report.not_covered.iter().any(|what| what.contains("rules were kept")));
}

#[test]
fn rules_have_the_words_of_the_wire() {
    assert_eq!(Rule::RecordChanged.as_str(), "record_changed");
    assert_eq!(Rule::HookNotRegistered.as_str(), "hook_not_registered");
}

#[test]
fn what_stands_behind_the_last_checkpoint_is_said_to_the_record() {
    let mut log = Log::default();
    log.record().sign(&key(1)).record().record();
    let report = log.verify(&key(1), false);
    assert_eq!(found(&report), [(Rule::NotCovered, 2)]);
    assert!(report.findings[0].detail.starts_with("records 2 to 3"), "{report:?}");
    // Of a log that is broken, that is not what matters.
    let mut log = Log::default();
    log.record().sign(&key(1)).record().sign(&key(2)).record();
    assert_eq!(found(&log.verify(&key(1), false)), [(Rule::CheckpointInvalid, 2)]);
}

#[test]
fn a_wrong_root_is_told_once_with_both_roots_and_where_it_began() {
    let mut log = Log::default();
    log.record().sign(&key(1)).record();
    let wrong = Checkpoint::sign(2, [7; 32], &key(1)).unwrap();
    log.lines.push(Line::Note(wrong));
    log.record();
    let wrong = Checkpoint::sign(3, [8; 32], &key(1)).unwrap();
    log.lines.push(Line::Note(wrong));
    let report = log.verify(&key(1), false);
    assert_eq!(found(&report), [(Rule::RootMismatch, 2)]);
    let detail = &report.findings[0].detail;
    assert!(detail.contains("records 2 to 2 give"), "{detail}");
    assert!(detail.contains(&"07".repeat(32)), "{detail}");
    // The report's own root is as a checkpoint writes it.
    let note = Checkpoint::sign(3, log.tree.root(), &key(1)).unwrap();
    assert_eq!(note.lines().nth(2), Some(report.root.as_str()));
}

#[test]
fn a_note_is_read_up_to_its_longest_and_no_further() {
    const LONGEST: usize = 65_536;
    let note = Checkpoint::sign(0, Frontier::default().root(), &key(1)).unwrap();
    let of_others = |length: usize| {
        let rest = length - note.len() - "— x AAAAAAA=\n".len();
        format!("{note}— x{} AAAAAAA=\n", "x".repeat(rest))
    };
    assert_eq!(of_others(LONGEST).len(), LONGEST);
    for length in [1_000, LONGEST - 1, LONGEST] {
        Checkpoint::open(&of_others(length), key(1).public()).unwrap();
    }
    let error = Checkpoint::open(&of_others(LONGEST + 1), key(1).public()).unwrap_err();
    assert!(error.to_string().contains("longer than any"), "{error}");
}
