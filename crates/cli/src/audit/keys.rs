//! `countersign audit key`: the log's key, and its change.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{Handover, LogKey, Signer as _};
use countersign_audit::verify::KEY_ROTATION;
use countersign_core::id::{AgentId, RecordId, RefId, RunId, RuntimePackageFingerprint};
use countersign_core::journal::{JournalDraft, JournalPayload, RecordBase};
use countersign_core::refs::{SourceKind, SourceRef};
use countersign_ports::clock::Clock as _;
use countersign_ports::entropy::Entropy as _;
use countersign_ports::journal::{Batch, Journal as _};
use countersign_store_sqlite::{LogReader, SqliteJournal};
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::{AuditKey, Global};
use crate::config::{self, Loaded};
use crate::output::{Failure, say, say_json};
use crate::state;
use crate::system::{OsEntropy, SystemClock};

pub(super) fn run(global: &Global, command: &AuditKey) -> Result<ExitCode, Failure> {
    let loaded = config::load(global)?;
    match command {
        AuditKey::Show => {
            let key = state::read_key(&loaded.state.join(state::KEY))?;
            say_key(global, &key);
        }
        AuditKey::Rotate => {
            let key = rotate(&loaded)?;
            say_key(global, &key);
        }
        AuditKey::Retire => {
            let old = loaded.state.join(state::OLD_KEY);
            if !old.exists() {
                return Err(Failure::new("only one key signs: there is nothing to retire"));
            }
            std::fs::remove_file(&old).map_err(|error| io(&old, &error))?;
            sync(&loaded.state)?;
            let key = state::read_key(&loaded.state.join(state::KEY))?;
            say_key(global, &key);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say_key(global: &Global, key: &LogKey) {
    if global.json {
        say_json(&json!({ "key": key.public().to_string() }));
    } else {
        say(&key.public().to_string());
    }
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

fn sync(dir: &Path) -> Result<(), Failure> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io(dir, &error))
}

/// Has the log say that another key follows, under a checkpoint by both, and puts that key in the
/// place of the old one. Whoever is interrupted goes on where it was when it is called again.
fn rotate(loaded: &Loaded) -> Result<LogKey, Failure> {
    let at = |name: &str| loaded.state.join(name);
    let (key, next, before) = (at(state::KEY), at(state::NEXT_KEY), at(state::OLD_KEY));
    if before.exists() {
        return Err(Failure::new("two keys sign already")
            .hint("`countersign audit key retire` ends that; then another can follow"));
    }
    let old = state::read_key(&key)?;
    if !next.exists() {
        let mut seed = Zeroizing::new([0u8; 32]);
        OsEntropy.fill(seed.as_mut()).map_err(|error| Failure::of(&error))?;
        let new =
            LogKey::from_seed(old.public().name(), &seed).map_err(|error| Failure::of(&error))?;
        state::write_secret(&next, new.to_text().as_bytes())?;
    }
    let new = state::read_key(&next)?;
    let database = loaded.database();
    let signed = LogReader::open(&database)
        .and_then(|reader| reader.checkpoint())
        .map_err(|error| Failure::of(&error))?
        .is_some_and(|note| Checkpoint::open(&note, new.public()).is_ok());
    if !signed {
        announce(loaded, old, &next)?;
    }
    // The log has said it. The old key is kept, so that both sign until it is retired.
    let old = state::read_key(&key)?;
    if old.public() != new.public() {
        state::write_secret(&before, old.to_text().as_bytes())?;
    }
    std::fs::rename(&next, &key).map_err(|error| io(&key, &error))?;
    sync(&loaded.state)?;
    state::write_public(loaded, &new)?;
    Ok(new)
}

fn announce(loaded: &Loaded, old: LogKey, next: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(error);
    let new = state::read_key(next)?;
    let payload = json!({
        "type": KEY_ROTATION,
        "old_key": old.public().to_string(),
        "new_key": new.public().to_string(),
    });
    let payload: JournalPayload =
        serde_json::from_str(&payload.to_string()).map_err(|error| failed(&error))?;
    let source = SourceRef::new(
        SourceKind::Host,
        RefId::new("countersign").map_err(|error| failed(&error))?,
    );
    let base = RecordBase {
        timestamp_millis: SystemClock.now_millis(),
        tags: vec!["log_key".to_owned()],
        ..RecordBase::new(
            RunId::new("run.log_key").map_err(|error| failed(&error))?,
            AgentId::new("countersign").map_err(|error| failed(&error))?,
            source,
            RuntimePackageFingerprint::new("none"),
        )
    };
    let id = format!("journal.record.log_key.{}", hex::encode(new.public().id()));
    let id = RecordId::new(id).map_err(|error| failed(&error))?;
    let record = base.about_run(id, ("log_key", KEY_ROTATION), payload);
    let draft = JournalDraft::new(record).encode().map_err(|error| failed(&error))?;
    let journal = SqliteJournal::open(&loaded.database(), Arc::new(Handover { old, new }), None)
        .map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Failure::new(error.to_string()))?;
    let batch = Batch { drafts: vec![draft], contents: Vec::new() };
    runtime.block_on(journal.append(batch)).map_err(|error| failed(&error))?;
    Ok(())
}
