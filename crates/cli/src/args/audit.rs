//! `countersign audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Hold a log against its public key, and what it says against the rules
    ///
    /// Reads a live database, a bundle or a single receipt. The report has two parts: integrity,
    /// that nothing was changed since it was signed, and meaning, that every effect was announced
    /// and, where it needed that, approved in time by somebody else, for this very call, once.
    #[command(after_help = VERIFY_EXIT_CODES)]
    Verify(AuditVerify),
    /// Prove that a record is in the log, or that the log only grew
    Prove(AuditProve),
    /// The receipt for a record or a call: record, proof and checkpoint in one JSON document
    Receipt {
        /// A sequence number, or a call's id
        what: String,
        /// Where to write it [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        log: Log,
    },
    /// The newest checkpoint, or one from a file, with who vouches for it
    Checkpoint {
        /// A checkpoint to check instead; `-` is standard input
        file: Option<PathBuf>,
        /// The public key, or a file with it [default: log.pub in the state folder]
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// A witness whose cosignature must be there; can be given again
        #[arg(long, value_name = "KEY")]
        witness: Vec<String>,
        #[command(flatten)]
        log: Log,
    },
    /// Write the log for others: as a bundle, as tiles, or as security events
    Export(AuditExport),
    /// The log's key
    #[command(subcommand)]
    Key(AuditKey),
    /// Chains of signed critics' verdicts
    #[command(subcommand)]
    Critic(Critic),
}

const VERIFY_EXIT_CODES: &str = "\
Exit codes:
  0  the log is whole, and the rules were kept
  1  there are findings: the rule, the record and what was found are told
  2  it cannot be used: unreadable, of another log, or the key is none";

#[derive(Args)]
pub(crate) struct Log {
    /// The database [default: journal.db in the state folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) db: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct AuditVerify {
    /// A bundle, a receipt or a database [default: journal.db in the state folder]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: Log,
    /// The public key, or a file with it [default: log.pub in the state folder]
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// A checkpoint kept elsewhere, which the log must contain; can be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Vec<PathBuf>,
    /// Judge only the bytes, not what they say
    #[arg(long)]
    pub(crate) integrity_only: bool,
    /// How many threads read a bundle [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<std::num::NonZero<usize>>,
}

#[derive(Args)]
pub(crate) struct AuditProve {
    /// That this record, by number or by its call's id, is in the log
    #[arg(long, value_name = "WHAT", required_unless_present = "from", conflicts_with = "from")]
    pub(crate) record: Option<String>,
    /// That the log of so many records is the beginning of a later one
    #[arg(long, value_name = "SIZE")]
    pub(crate) from: Option<u64>,
    /// The later one [default: all records]
    #[arg(long, value_name = "SIZE", requires = "from")]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Args)]
pub(crate) struct AuditExport {
    /// One file with records, checkpoints and keys; docs/bundle-format.md
    #[arg(long, value_name = "FILE", group = "what")]
    pub(crate) bundle: Option<PathBuf>,
    /// A folder that any web server can serve to any tile client; C2SP tlog-tiles
    #[arg(long, value_name = "DIR", group = "what")]
    pub(crate) tiles: Option<PathBuf>,
    /// OCSF API Activity events, one on each line; `-` is standard output
    #[arg(long, value_name = "FILE", group = "what")]
    pub(crate) ocsf: Option<PathBuf>,
    /// Put each OCSF event into a CloudEvents envelope
    #[arg(long, requires = "ocsf")]
    pub(crate) cloudevents: bool,
    /// The first record
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) from: u64,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Subcommand)]
pub(crate) enum AuditKey {
    /// The public key
    Show,
    /// Make a new key and have the old one hand over to it; the gateway must be stopped
    ///
    /// The log gets a record that names the new key, under a checkpoint that both have signed.
    /// From then on checkpoints carry both signatures, until `retire`.
    Rotate,
    /// End the time in which both keys sign
    Retire,
}

const CRITIC_EXIT_CODES: &str = "\
Exit codes:
  0  the chain is whole
  1  it is broken: the index, the rule, what was expected and what was found are told
  2  it cannot be used: no JSON, of another shape, or the key is none";

#[derive(Subcommand)]
pub(crate) enum Critic {
    /// Hold a chain of verdicts against the critic's public key
    #[command(after_help = CRITIC_EXIT_CODES)]
    Verify(CriticVerify),
    /// Show that texts are those an entry speaks of
    ///
    /// An entry holds the SHA-256 of the director's output and of the critic's assessment. Files
    /// are hashed byte for byte, a newline at the end included.
    Match(CriticMatch),
    /// Take the verdicts that a gateway recorded out of its log, as one chain
    ///
    /// Reads a live database or a bundle, and judges neither: `audit verify` does. The chain is for
    /// `audit critic verify`, which takes a database or a bundle as well.
    Export(CriticExport),
    /// Make a new key for the chain of verdicts; the gateway hands over to it at its next start
    Rotate,
}

#[derive(Args)]
pub(crate) struct CriticExport {
    /// A bundle or a database [default: journal.db in the state folder]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: Log,
    /// Where to write the chain [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Where to write a signed anchor, which says where the chain ends; needs the state folder
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct CriticVerify {
    /// A JSON array of entries, an object with `entries`, or a bundle or database with verdicts in
    /// it; `-` is standard input
    pub(crate) file: PathBuf,
    /// The critic's public key: 64 hexadecimal digits, or @FILE with them
    #[arg(long, value_name = "HEX")]
    pub(crate) key: String,
    /// The format of the chain [default: told by its entries]
    #[arg(long, value_enum)]
    pub(crate) format: Option<CriticFormat>,
    /// Where a `countersign-1` chain ends, kept elsewhere than the chain
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// The id that a `countersign-1` chain must have
    #[arg(long, value_name = "ID")]
    pub(crate) chain_id: Option<String>,
}

#[derive(Args)]
pub(crate) struct CriticMatch {
    /// A JSON array of entries, an object with `entries`, or a bundle or database with verdicts in
    /// it; `-` is standard input
    pub(crate) file: PathBuf,
    /// Which entry, from 0
    #[arg(long, value_name = "N")]
    pub(crate) index: usize,
    /// The director's output
    #[arg(long, value_name = "FILE", required_unless_present = "critic")]
    pub(crate) director: Option<PathBuf>,
    /// The critic's assessment
    #[arg(long, value_name = "FILE")]
    pub(crate) critic: Option<PathBuf>,
    /// Hold the chain against this key first: 64 hexadecimal digits, or @FILE with them
    #[arg(long, value_name = "HEX")]
    pub(crate) key: Option<String>,
    /// The format of the chain [default: told by its entries]
    #[arg(long, value_enum)]
    pub(crate) format: Option<CriticFormat>,
}

/// The formats of critic chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CriticFormat {
    /// That of symbi-runtime
    #[value(name = "symbi-1")]
    Symbi1,
    /// Countersign's own
    #[value(name = "countersign-1")]
    Countersign1,
}
