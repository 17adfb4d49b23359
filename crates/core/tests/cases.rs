//! Every case below `fixtures/`: what the contract accepts comes back as it must, what it
//! forbids is refused for the right reason.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Again, DOCUMENTS, Expect, cases, with_type};

#[test]
fn every_case_has_its_verdict() {
    let mut wrong = Vec::new();
    for (at, case) in cases() {
        let input = case.input();
        let found = with_type(&case.document, Again(input.as_bytes()));
        let good = match (&case.expect, &found) {
            (Expect::Same, Ok(written)) => *written == input,
            (Expect::Bytes(bytes), Ok(written)) => written == bytes,
            (Expect::Error(part), Err(error)) => error.contains(part),
            (Expect::Same | Expect::Bytes(_), Err(_)) | (Expect::Error(_), Ok(_)) => false,
        };
        if !good {
            wrong.push(format!(
                "{at}: {}\n  {}\n  in  {input}\n  out {found:?}",
                case.case, case.why
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_case_says_what_and_why_once() {
    let mut names = BTreeSet::new();
    let mut verdicts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (at, case) in cases() {
        assert!(names.insert(case.case.clone()), "{at}: `{}` is taken", case.case);
        assert!(case.why.ends_with('.') && case.why.len() > 10, "{at}: why: {}", case.why);
        let (accepted, refused) = verdicts.entry(case.document).or_default();
        match case.expect {
            Expect::Error(_) => *refused += 1,
            Expect::Same | Expect::Bytes(_) => *accepted += 1,
        }
    }
    let named: Vec<_> = verdicts.keys().map(String::as_str).collect();
    let known: Vec<_> = DOCUMENTS.iter().map(|(document, _)| *document).collect();
    assert_eq!(named, known);
    let (accepted, refused) =
        verdicts.values().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    assert!(refused > accepted, "{accepted} are accepted, only {refused} refused: {verdicts:?}");
}
