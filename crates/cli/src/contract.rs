//! `countersign contract`: documents of the wire contract, read through the types that every
//! other part reads them through.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use countersign_core::approval::{
    ApprovalDecision, ApprovalOutcome, ApprovalRecord, ApprovalRequest,
};
use countersign_core::digest::Digest;
use countersign_core::effect::{EffectIntent, EffectResult};
use countersign_core::error::AgentError;
use countersign_core::hold::{Approver, Decision, HeldAction};
use countersign_core::hook::{HookInput, HookRecord, HookResponse, HookSpec};
use countersign_core::journal::JournalRecord;
use countersign_core::plan::Plan;
use countersign_core::refs::{DestinationRef, EntityRef, PolicyRef, SourceRef};
use countersign_core::text::{reveal, visible};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::{Contract, DocumentType, Global};
use crate::output::Failure;

/// Most dropped fields that one warning names.
const NAMED: usize = 10;

/// Most fields of a document that are looked into for having been dropped. Each costs a reading
/// of the whole document.
const EXAMINED: usize = 100;

/// Bytes of a document. Whoever sends more without an end is not waited for.
const DOCUMENT_MAX: usize = 256 << 20;

pub(crate) fn run(global: &Global, command: &Contract) -> Result<ExitCode, Failure> {
    let Contract::Roundtrip { files, document_type } = command;
    let mut tell =
        Teller { out: io::BufWriter::new(io::stdout().lock()), as_json: global.json, worst: 0 };
    for file in files {
        let name = if file.as_os_str() == "-" {
            "<stdin>".to_owned()
        } else {
            visible(&file.to_string_lossy()).into_owned()
        };
        if let Err(error) =
            open(file).and_then(|input| one(&name, input, *document_type, &mut tell))
        {
            tell.unreadable(&name, &error);
        }
    }
    tell.flush();
    Ok(ExitCode::from(tell.worst))
}

fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, File::open(file)?)))
}

/// Every document of one file, up to the first that cannot be read.
fn one(
    name: &str,
    input: impl BufRead,
    wanted: Option<DocumentType>,
    tell: &mut Teller<impl Write>,
) -> io::Result<()> {
    let mut documents = Documents { input, at: Place::START };
    let (mut bytes, mut any) = (Vec::new(), false);
    while let Some(start) = documents.next(&mut bytes)? {
        any = true;
        match again(&bytes, wanted) {
            Ok(read) => tell.read(name, start, &bytes, &read),
            Err(problem) => {
                tell.refused(name, start.after(problem.at), &problem.reason);
                return Ok(());
            }
        }
    }
    if !any {
        tell.refused(name, Place::START, "there is no document");
    }
    Ok(())
}

/// A line and a column, both from 1; a column is a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    const START: Self = Self { line: 1, column: 1 };

    fn pass(&mut self, bytes: &[u8]) {
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                self.line += bytes.iter().filter(|byte| **byte == b'\n').count();
                self.column = bytes.len() - last;
            }
            None => self.column += bytes.len(),
        }
    }

    /// A place inside something that begins here.
    fn after(self, inside: Self) -> Self {
        match inside.line {
            1 => Self { line: self.line, column: self.column + inside.column.max(1) - 1 },
            line => Self { line: self.line + line - 1, column: inside.column },
        }
    }
}

/// Cuts a stream into JSON documents without holding more than one of them.
struct Documents<R> {
    input: R,
    at: Place,
}

impl<R: BufRead> Documents<R> {
    /// Puts the next document into `bytes` and gives the place of its first byte. Where a
    /// document ends is told by its brackets and quotes alone: whether it is JSON is found out
    /// by reading it.
    fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Place>> {
        bytes.clear();
        let mut end = End::default();
        let mut start = None;
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Ok(start);
            }
            let mut used = 0;
            if start.is_none() {
                used = chunk.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let (space, rest) = chunk.split_at(used);
                self.at.pass(space);
                if !rest.is_empty() {
                    start = Some(self.at);
                }
            }
            let (_, rest) = chunk.split_at(used);
            let found = rest.iter().position(|byte| end.passes(*byte));
            let (document, _) = rest.split_at(found.unwrap_or(rest.len()));
            if bytes.len() + document.len() > DOCUMENT_MAX {
                let error = format!("a document has more than {} MiB", DOCUMENT_MAX >> 20);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
            }
            bytes.extend_from_slice(document);
            self.at.pass(document);
            used += document.len();
            self.input.consume(used);
            if found.is_some() {
                return Ok(start);
            }
        }
    }
}

/// Where in a document's brackets and quotes a reader stands.
#[derive(Default)]
struct End {
    depth: usize,
    quoted: bool,
    escaped: bool,
    over: bool,
    begun: bool,
}

impl End {
    /// Whether the document ended before this byte.
    fn passes(&mut self, byte: u8) -> bool {
        if self.over || (self.begun && self.depth == 0 && byte.is_ascii_whitespace()) {
            return true;
        }
        self.begun = true;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            _ if self.quoted => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.over = self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// What a document is written as.
struct Read {
    text: String,
    types: Vec<DocumentType>,
}

/// Why a document cannot be read, and where in it.
struct Problem {
    at: Place,
    reason: String,
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        let at = Place { line: error.line().max(1), column: error.column() };
        let text = error.to_string();
        let tail = format!(" at line {} column {}", error.line(), error.column());
        let reason = text.strip_suffix(&tail).unwrap_or(&text);
        Self { at, reason: reveal(reason).into_owned() }
    }
}

impl Problem {
    fn inside(self, bytes: &[u8]) -> Self {
        let mut start = Place::START;
        start.pass(bytes);
        Self { at: start.after(self.at), ..self }
    }
}

fn again(bytes: &[u8], wanted: Option<DocumentType>) -> Result<Read, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (before, _) = bytes.split_at(error.valid_up_to());
        Problem { at: Place::START, reason: "this is not UTF-8".to_owned() }.inside(before)
    })?;
    if !text.starts_with('[') {
        let (text, document_type) = object(text, wanted)?;
        return Ok(Read { text, types: vec![document_type] });
    }
    let elements: Vec<&RawValue> = serde_json::from_str(text)?;
    let mut read = Read { text: "[".to_owned(), types: Vec::new() };
    for element in elements {
        let (element, before) = (element.get(), element.get().as_ptr().addr());
        let before = before.saturating_sub(bytes.as_ptr().addr()).min(bytes.len());
        let (written, document_type) =
            object(element, wanted).map_err(|problem| problem.inside(bytes.split_at(before).0))?;
        if read.text.len() > 1 {
            read.text.push(',');
        }
        read.text.push_str(&written);
        read.types.push(document_type);
    }
    read.text.push(']');
    Ok(read)
}

fn object(text: &str, wanted: Option<DocumentType>) -> Result<(String, DocumentType), Problem> {
    let document_type = match wanted {
        Some(wanted) if wanted != DocumentType::HookSpec => wanted,
        wanted => {
            let keys: Keys = serde_json::from_str(text)?;
            if keys.has("spec") && keys.has("spec_hash") {
                return Ok((hashed(text)?, DocumentType::HookSpec));
            }
            wanted.or_else(|| keys.guess()).ok_or_else(|| Problem {
                at: Place::START,
                reason: "its keys do not tell what it is; name that with --type".to_owned(),
            })?
        }
    };
    fn through<T: Serialize + DeserializeOwned>(text: &str) -> serde_json::Result<String> {
        serde_json::to_string(&serde_json::from_str::<T>(text)?)
    }
    let written = match document_type {
        DocumentType::JournalRecord => through::<JournalRecord>(text),
        DocumentType::HookSpec => through::<HookSpec>(text),
        DocumentType::HookRecord => through::<HookRecord>(text),
        DocumentType::HookResponse => through::<HookResponse>(text),
        DocumentType::HookInput => through::<HookInput>(text),
        DocumentType::ApprovalRecord => through::<ApprovalRecord>(text),
        DocumentType::ApprovalRequest => through::<ApprovalRequest>(text),
        DocumentType::ApprovalDecision => through::<ApprovalDecision>(text),
        DocumentType::ApprovalOutcome => through::<ApprovalOutcome>(text),
        DocumentType::AgentError => through::<AgentError>(text),
        DocumentType::EffectIntent => through::<EffectIntent>(text),
        DocumentType::EffectResult => through::<EffectResult>(text),
        DocumentType::HeldAction => through::<HeldAction>(text),
        DocumentType::Decision => through::<Decision>(text),
        DocumentType::Approver => through::<Approver>(text),
        DocumentType::Plan => through::<Plan>(text),
        DocumentType::SourceRef => through::<SourceRef>(text),
        DocumentType::DestinationRef => through::<DestinationRef>(text),
        DocumentType::EntityRef => through::<EntityRef>(text),
        DocumentType::PolicyRef => through::<PolicyRef>(text),
    };
    Ok((written?, document_type))
}

/// A specification beside the hash that records name it by.
fn hashed(text: &str) -> Result<String, Problem> {
    #[derive(Serialize, Deserialize)]
    struct Hashed {
        spec: HookSpec,
        spec_hash: Digest,
    }
    let hashed: Hashed = serde_json::from_str(text)?;
    let at = Place::START;
    let hash = hashed.spec.spec_hash().map_err(|e| Problem { at, reason: e.to_string() })?;
    if hash != hashed.spec_hash {
        let reason = format!("spec_hash is {}, but the spec has {hash}", hashed.spec_hash);
        return Err(Problem { at, reason });
    }
    Ok(serde_json::to_string(&hashed)?)
}

/// A document's own keys, and its `decision` if that is a text.
struct Keys {
    names: Vec<String>,
    decision: Option<String>,
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Keys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of the contract")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Keys { names: Vec::new(), decision: None };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "decision" {
                        keys.decision = map.next_value::<Value>()?.as_str().map(str::to_owned);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                    keys.names.push(name);
                }
                Ok(keys)
            }
        }
        from.deserialize_map(Names)
    }
}

impl Keys {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }

    /// The first type that alone has a key of the document's, the largest types first.
    fn guess(&self) -> Option<DocumentType> {
        use DocumentType as Type;
        const TELLING: &[(Type, &[&str])] = &[
            (Type::JournalRecord, &["journal_schema_version", "journal_seq", "event_index"]),
            (Type::ApprovalRecord, &["record_type"]),
            (Type::ApprovalRequest, &["approval_dispatch_effect_id", "allowed_decisions"]),
            (Type::ApprovalOutcome, &["approval_request_id"]),
            (Type::HookSpec, &["mutation_rights", "ordering", "execution"]),
            (Type::HookInput, &["view", "cancellation", "package_fingerprint"]),
            (Type::HookRecord, &["schema_version", "hook_id"]),
            (Type::HookResponse, &["type"]),
            (
                Type::AgentError,
                &[
                    "Classified",
                    "MissingRequiredField",
                    "ContractViolation",
                    "HostConfigurationNeeded",
                ],
            ),
            (Type::EffectResult, &["terminal_status"]),
            (Type::EffectIntent, &["effect_id"]),
            (Type::HeldAction, &["context_snapshot", "expires_at"]),
            (Type::Approver, &["surface"]),
            (Type::Plan, &["argv", "executor", "url", "arguments"]),
        ];
        if self.has("decision") && !self.has("approval_request_id") {
            let held = matches!(self.decision.as_deref(), Some("approve" | "deny"));
            return Some(if held { Type::Decision } else { Type::ApprovalDecision });
        }
        let mut telling = TELLING.iter();
        telling.find(|(_, names)| names.iter().any(|name| self.has(name))).map(|(found, _)| *found)
    }
}

/// The fields of a document that were read and are not written, by their JSON paths; the first
/// [`EXAMINED`] of them.
///
/// A field that is known and left out because it is empty does not count: it is found out by
/// giving it a value it cannot have.
fn dropped(document: &[u8], read: &Read) -> Vec<String> {
    let (Ok(before), Ok(after)) =
        (serde_json::from_slice::<Value>(document), serde_json::from_str::<Value>(&read.text))
    else {
        return Vec::new();
    };
    if before == after {
        return Vec::new();
    }
    let mut found = Vec::new();
    missing(&before, &after, &mut Vec::new(), &mut found);
    found.truncate(EXAMINED);
    found.retain(|path| {
        let mut changed = before.clone();
        let Some(place) = path.iter().try_fold(&mut changed, Step::of) else { return true };
        let empty = place.is_null() || place.as_array().is_some_and(Vec::is_empty);
        if !empty {
            return true;
        }
        *place = Value::String(String::new());
        let only = match read.types.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        again(changed.to_string().as_bytes(), only).is_ok_and(|read| {
            let written: Value = serde_json::from_str(&read.text).unwrap_or_default();
            let mut written = written;
            path.iter().try_fold(&mut written, Step::of).is_none()
        })
    });
    found
        .iter()
        .map(|path| path.iter().fold("$".to_owned(), |text, step| text + &step.show()))
        .collect()
}

#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn of<'a>(value: &'a mut Value, step: &Self) -> Option<&'a mut Value> {
        match step {
            Self::Key(key) => value.get_mut(key),
            Self::Index(index) => value.get_mut(index),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Index(index) => format!("[{index}]"),
            Self::Key(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                format!(".{key}")
            }
            Self::Key(key) => format!("[{}]", reveal(&Value::from(key.as_str()).to_string())),
        }
    }
}

fn missing(before: &Value, after: &Value, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                path.push(Step::Key(key.clone()));
                match after.get(key) {
                    Some(other) => missing(value, other, path, found),
                    None => found.push(path.clone()),
                }
                path.pop();
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (value, other)) in before.iter().zip(after).enumerate() {
                path.push(Step::Index(index));
                missing(value, other, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Writes documents to one place and what is wrong with them to another, in order.
struct Teller<W: Write> {
    out: W,
    as_json: bool,
    worst: u8,
}

impl<W: Write> Teller<W> {
    fn read(&mut self, file: &str, at: Place, document: &[u8], read: &Read) {
        let dropped =
            if read.text.as_bytes() == document { Vec::new() } else { dropped(document, read) };
        if self.as_json {
            #[derive(Serialize)]
            struct Line<'a> {
                file: &'a str,
                line: usize,
                column: usize,
                types: Vec<String>,
                dropped: &'a [String],
                document: &'a RawValue,
            }
            let types = read.types.iter().map(ToString::to_string).collect();
            if let Ok(document) = serde_json::from_str(&read.text) {
                let (line, column) = (at.line, at.column);
                self.json(&Line { file, line, column, types, dropped: &dropped, document });
            }
            return;
        }
        self.line(&read.text);
        if !dropped.is_empty() {
            let more = match dropped.len().saturating_sub(NAMED) {
                0 => String::new(),
                _ if dropped.len() == EXAMINED => " and others".to_owned(),
                more => format!(" and {more} more"),
            };
            let named: Vec<_> = dropped.into_iter().take(NAMED).collect();
            let named = named.join(", ");
            self.aside(file, at, &format!("warning: not of the contract, left out: {named}{more}"));
        }
    }

    fn refused(&mut self, file: &str, at: Place, reason: &str) {
        self.worst = self.worst.max(1);
        if self.as_json {
            let (line, column) = (at.line, at.column);
            self.json(&serde_json::json!({
                "file": file, "line": line, "column": column, "error": reason,
            }));
        } else {
            self.aside(file, at, reason);
        }
    }

    fn unreadable(&mut self, file: &str, error: &io::Error) {
        self.worst = 2;
        self.flush();
        complain(&format!("error: {file}: {error}"));
    }

    fn aside(&mut self, file: &str, at: Place, text: &str) {
        self.flush();
        complain(&format!("{file}:{}:{}: {text}", at.line, at.column));
    }

    fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(error) => complain(&format!("error: {error}")),
        }
    }

    /// A reader that has gone away, as `head` does, ends the program quietly, with what is
    /// known so far.
    fn line(&mut self, text: &str) {
        if self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n")).is_err() {
            std::process::exit(self.worst.into());
        }
    }

    fn flush(&mut self) {
        if self.out.flush().is_err() {
            std::process::exit(self.worst.into());
        }
    }
}

/// Says what is wrong, or nothing when nobody can hear it: the exit code says it too.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
