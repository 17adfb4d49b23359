//! The command line.

mod audit;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use audit::*;

const EXIT_CODES: &str = "\
Exit codes:
  0  it went well
  1  the answer is no: a call denied or failed, a finding, a plan rejected
  2  it could not be done: wrong usage, unreadable input, no gateway";

/// Stands between an AI agent and its tools: a call happens only after it is declared,
/// checked, countersigned and recorded.
#[derive(Parser)]
#[command(name = "countersign", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct Global {
    /// The configuration file [default: countersign.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The folder of keys, credentials and the database [default: .countersign]
    #[arg(long, global = true, value_name = "DIR", env = "COUNTERSIGN_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Write JSON, for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start the gateway: MCP for agents, a console and an interface for approvers
    Serve(Serve),
    /// Make one governed call through the running gateway
    Call(Call),
    /// See and decide what waits for a person
    #[command(subcommand)]
    Approvals(Approvals),
    /// See and take back approvals that cover later calls
    #[command(subcommand)]
    Grants(Grants),
    /// Read the journal, offline
    #[command(subcommand)]
    Journal(Journal),
    /// Prove that nothing was changed, offline
    #[command(subcommand)]
    Audit(Audit),
    /// Check and try out tool manifests
    #[command(subcommand)]
    Manifest(Manifest),
    /// Try documents against the wire contract
    #[command(subcommand)]
    Contract(Contract),
    /// Check that everything the gateway needs is in place
    Doctor,
    /// Check the configuration file
    CheckConfig,
    /// Write a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Speak MCP on standard input and output too, for clients that start their servers
    #[arg(long)]
    pub(crate) stdio: bool,
    /// The address to listen on; port 0 takes a free one [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<std::net::SocketAddr>,
    /// The folder of manifests [default: examples/tools]
    #[arg(long, value_name = "DIR")]
    pub(crate) tools: Option<PathBuf>,
    /// The folder tools work in and cannot name a path out of [default: workspace]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Remote {
    /// Where the gateway is [default: where the one of this state folder listens]
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_URL")]
    pub(crate) url: Option<String>,
    /// The token to use [default: the one in the state folder]
    #[arg(long, value_name = "TOKEN", env = "COUNTERSIGN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Args)]
pub(crate) struct Call {
    /// The tool
    pub(crate) tool: String,
    /// Its arguments, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) args: String,
    /// Your name for the session; an approval for the session covers further calls in it
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Subcommand)]
pub(crate) enum Approvals {
    /// What waits for a decision, oldest first
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// One held call, with every argument
    Show {
        /// Its id, or the beginning of it
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Let a held call run, and with --session later ones like it
    Approve(Approve),
    /// Show a held call with other arguments, and let it run so
    #[command(after_help = EDIT)]
    Edit(Edit),
    /// Refuse a held call
    Deny(Decide),
    /// Tell others that you are looking at a held call; it keeps nobody from deciding
    Claim {
        /// Its id, or the beginning of it
        id: String,
        /// For how long at most
        #[arg(long, value_name = "N", default_value_t = 10)]
        minutes: u64,
        #[command(flatten)]
        remote: Remote,
    },
    /// Take your claim back
    Release {
        /// Its id, or the beginning of it
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say what a call would take: which rule holds it and why, who may decide, for how long
    #[command(after_help = EXPLAIN)]
    Explain(Explain),
}

const EDIT: &str = "\
Shows the call as it is and as it would be, and asks. Nothing has changed before that. Where there
is no terminal to ask at, look first, then confirm what was shown:
  countersign approvals edit ID --args '{\"file\": \"b\"}'
  countersign approvals edit ID --args '{\"file\": \"b\"}' --yes --fingerprint 1f2e3d4c

Exit codes:
  0  approved as edited, or counted where more approvals are needed
  1  not confirmed, or somebody was first
  2  it could not be done: bad arguments, a fingerprint that is another, a gateway that is not there";

#[derive(Args)]
pub(crate) struct Edit {
    #[command(flatten)]
    pub(crate) decide: Decide,
    /// All arguments of the call, a JSON object in the place of the one that was given
    #[arg(long, value_name = "JSON")]
    pub(crate) args: String,
    /// Do not ask; --fingerprint says what is approved
    #[arg(long, requires = "fingerprint")]
    pub(crate) yes: bool,
    /// The fingerprint of the changed call as it was shown, or at least 8 digits of it
    #[arg(long, value_name = "HEX", requires = "yes")]
    pub(crate) fingerprint: Option<String>,
}

const EXPLAIN: &str = "\
Reads the configuration and the manifests it names, and asks no gateway. Hooks are not asked
either: one may still refuse the call, change it, or have a person asked.

Exit codes:
  0  the call would run, or wait for a person
  1  it would be refused before anybody is asked: bad arguments
  2  it could not be said: no such tool or agent, a configuration that is not good";

#[derive(Args)]
pub(crate) struct Explain {
    /// The tool
    pub(crate) tool: String,
    /// Its arguments, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) args: String,
    /// Who calls [default: the agent, if there is one]
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
}

#[derive(Args)]
pub(crate) struct Decide {
    /// The hold's id, or the beginning of it
    pub(crate) id: String,
    /// Why; the agent and the record get it
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Answer for somebody else, by a delegation of theirs; the record says so
    #[arg(long, value_name = "NAME")]
    pub(crate) on_behalf_of: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    pub(crate) decide: Decide,
    /// Let later calls run too: the same tool with the same arguments, by this agent in this
    /// session
    #[arg(long)]
    pub(crate) session: bool,
    /// How many later calls
    #[arg(long, value_name = "N", default_value_t = 10, requires = "session")]
    pub(crate) uses: u64,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 30, requires = "session")]
    pub(crate) minutes: u64,
    /// An argument that may have any value the manifest accepts; can be given again
    #[arg(long, value_name = "ARGUMENT", requires = "session")]
    pub(crate) any: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum Grants {
    /// Approvals for a session that cover further calls
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Take one back: from then on it covers nothing
    Revoke {
        /// Its id, or the beginning of it
        id: String,
        /// Why; the record gets it
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Subcommand)]
pub(crate) enum Journal {
    /// The newest records, as a story
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Wait for more
        #[arg(short, long)]
        follow: bool,
        /// Only this call
        #[arg(long, value_name = "ID")]
        call: Option<String>,
    },
    /// One record by its number, or one call by its id, with everything in it
    Show {
        /// A sequence number, or a call's id
        what: String,
    },
}

/// What stands beside the manifests.
#[derive(Args, Default)]
pub(crate) struct Beside {
    /// Custom types [default: toolclad.toml in the manifest's folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) types: Option<PathBuf>,
    /// The scope [default: scope.toml or scope/scope.toml in the manifest's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) scope: Option<PathBuf>,
    /// A program that `parser` may name; can be given again
    #[arg(long, value_name = "PARSER")]
    pub(crate) allow_parser: Vec<String>,
}

const MANIFEST: &str = "\
Examples:
  countersign manifest check tools/
  countersign manifest plan tools/read_file.clad.toml --args '{\"path\": \"notes.txt\"}'
  countersign manifest explain tools/read_file.clad.toml path ../notes.txt
  countersign manifest import help df < help.txt > tools/df.clad.toml

Nothing is run, sent or resolved: the programs and hosts need not exist.";

#[derive(Subcommand)]
#[command(after_help = MANIFEST)]
pub(crate) enum Manifest {
    /// Report every problem of manifest files and folders
    Check {
        /// Files, or folders of `*.clad.toml`
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        beside: Beside,
        /// Write SARIF 2.1.0, for code scanners
        #[arg(long, conflicts_with = "json")]
        sarif: bool,
    },
    /// Say what a call would run, without running anything
    Plan {
        /// The manifest
        file: PathBuf,
        /// The arguments, a JSON object
        #[arg(long, value_name = "JSON", default_value = "{}")]
        args: String,
        #[command(flatten)]
        beside: Beside,
    },
    /// Write the JSON Schema of the format, for editors
    Schema,
    /// Show the tool as MCP lists it
    Mcp {
        /// The manifest
        file: PathBuf,
        #[command(flatten)]
        beside: Beside,
    },
    /// Say what an argument asks of a value, and why one is taken or refused
    Explain {
        /// The manifest
        file: PathBuf,
        /// The argument
        arg: String,
        /// The value, as text
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        beside: Beside,
    },
    /// Write manifests to edit from what a tool says about itself
    #[command(subcommand, disable_help_subcommand = true)]
    Import(Import),
    /// Lay out manifests alike; comments, order and values stay
    Fmt {
        /// Files, or folders of `*.clad.toml`
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Write nothing; exit with 1 if a file would change
        #[arg(long)]
        check: bool,
    },
}

#[derive(Args)]
pub(crate) struct ImportFrom {
    /// The file to read; `-` is standard input
    #[arg(default_value = "-")]
    pub(crate) input: PathBuf,
    /// The folder to write into; files that are there stay [default: standard output]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Import {
    /// From the answer to `tools/list` of an MCP server
    Mcp {
        /// What the upstream is called in countersign.toml
        #[arg(long, value_name = "NAME")]
        server: String,
        #[command(flatten)]
        from: ImportFrom,
    },
    /// From an OpenAPI 3 document in JSON
    Openapi {
        #[command(flatten)]
        from: ImportFrom,
    },
    /// From what a program prints for --help
    Help {
        /// The program
        binary: String,
        #[command(flatten)]
        from: ImportFrom,
    },
}

const ROUNDTRIP: &str = "\
Examples:
  countersign contract roundtrip record.json
  countersign journal tail --json | countersign contract roundtrip -
  countersign contract roundtrip --type hook-response --json responses.ndjson

With --json every document is a line with its file, line, column, types, the paths left out, and
the document; one that cannot be read is a line with an error instead.";

#[derive(Subcommand)]
pub(crate) enum Contract {
    /// Read documents and print them back, compact, one on each line
    ///
    /// A file holds one JSON document, or several one after the other. What the contract writes
    /// comes back byte for byte but for the white space between its tokens. What cannot be read
    /// is reported as file:line:column, and the next file is next. Fields that the contract does
    /// not know are left out, and that is said.
    #[command(after_help = ROUNDTRIP)]
    Roundtrip {
        /// Files; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// What the documents are [default: told by the keys of each]
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        document_type: Option<DocumentType>,
    },
}

/// The types of the contract that stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DocumentType {
    JournalRecord,
    /// Also with its hash beside it: {"spec": …, "spec_hash": …}
    HookSpec,
    HookRecord,
    HookResponse,
    HookInput,
    ApprovalRecord,
    ApprovalRequest,
    ApprovalDecision,
    ApprovalOutcome,
    AgentError,
    EffectIntent,
    EffectResult,
    HeldAction,
    /// An answer to a held action
    Decision,
    Approver,
    Plan,
    SourceRef,
    DestinationRef,
    EntityRef,
    PolicyRef,
}

impl std::fmt::Display for DocumentType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
