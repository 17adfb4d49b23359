//! Records on their way into a journal.

use crate::id::RecordId;
use crate::journal::{JournalRecord, MAX_RECORD_LEN, SCHEMA_VERSION, TOOL_CALL_KEY};
use crate::json;

/// A record that has no place in the journal yet. Only a journal gives it one.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalDraft(JournalRecord);

/// Why a draft cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// More than [`MAX_RECORD_LEN`] bytes: content belongs beside the log, not in it.
    #[error("record {record_id} has {len} bytes, at most {MAX_RECORD_LEN} are allowed")]
    TooLong {
        /// The record.
        record_id: RecordId,
        /// Bytes found, with the longest possible sequence number.
        len: usize,
    },
    /// The record is no JSON.
    #[error("record {record_id} cannot be written as JSON")]
    Json {
        /// The record.
        record_id: RecordId,
        /// Why.
        source: serde_json::Error,
    },
}

const SEQ_PLACE: &str = "{\"journal_schema_version\":1,\"journal_seq\":";
const SEQ_MAX_LEN: usize = 20;

impl JournalDraft {
    /// Takes everything of the record but its sequence number and schema version.
    #[must_use]
    pub fn new(record: JournalRecord) -> Self {
        Self(JournalRecord { journal_schema_version: SCHEMA_VERSION, journal_seq: 0, ..record })
    }

    /// The record, with sequence number 0.
    #[must_use]
    pub fn record(&self) -> &JournalRecord {
        &self.0
    }

    /// Writes the record down, all but its sequence number.
    ///
    /// # Errors
    /// When it is longer than [`MAX_RECORD_LEN`] bytes.
    pub fn encode(&self) -> Result<EncodedDraft, EncodeError> {
        let record_id = &self.0.record_id;
        let mut bytes = Vec::with_capacity(2048);
        json::write(&self.0, &mut bytes)
            .map_err(|source| EncodeError::Json { record_id: record_id.clone(), source })?;
        let tail = bytes.split_off((SEQ_PLACE.len() + 1).min(bytes.len()));
        let len = SEQ_PLACE.len() + SEQ_MAX_LEN + tail.len();
        if len > MAX_RECORD_LEN {
            return Err(EncodeError::TooLong { record_id: record_id.clone(), len });
        }
        Ok(EncodedDraft {
            record_id: record_id.clone(),
            call: self.0.correlation(TOOL_CALL_KEY).map(str::to_owned),
            tail,
        })
    }
}

/// A record's bytes before and after the place of its sequence number.
///
/// Writing a record is most of the work of appending it; this lets every caller do its own
/// and leaves the journal's single writer a copy and a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedDraft {
    record_id: RecordId,
    call: Option<String>,
    tail: Vec<u8>,
}

impl EncodedDraft {
    /// The record's id.
    #[must_use]
    pub fn record_id(&self) -> &RecordId {
        &self.record_id
    }

    /// The call it belongs to, by its [`TOOL_CALL_KEY`] correlation.
    #[must_use]
    pub fn call(&self) -> Option<&str> {
        self.call.as_deref()
    }

    /// The record's stored bytes at this place in the journal.
    #[must_use]
    pub fn stamp(&self, seq: u64) -> Vec<u8> {
        let seq = seq.to_string();
        let mut bytes = Vec::with_capacity(SEQ_PLACE.len() + seq.len() + self.tail.len());
        bytes.extend_from_slice(SEQ_PLACE.as_bytes());
        bytes.extend_from_slice(seq.as_bytes());
        bytes.extend_from_slice(&self.tail);
        bytes
    }

    /// Whether stored bytes are this record, wherever in the journal they stand.
    #[must_use]
    pub fn same_content(&self, stored: &[u8]) -> bool {
        stored
            .strip_prefix(SEQ_PLACE.as_bytes())
            .and_then(|rest| {
                let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                rest.get(digits..)
            })
            .is_some_and(|tail| tail == self.tail)
    }
}
