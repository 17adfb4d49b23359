//! The journal in memory keeps the journal's contract.

countersign_testkit::journal_contract!((countersign_ports::memory::MemoryJournal::default(), ()));
