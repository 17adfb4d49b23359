//! What a call will do, decided before anything happens.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The effect of one call, with every argument resolved and every secret still a name.
///
/// The JSON of a plan is what the call's fingerprint covers, so two calls with equal plans
/// are the same effect: `{"argv":["git","log"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plan {
    /// Start one process, without a shell.
    Command(CommandPlan),
}

/// One process to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandPlan {
    /// The program and its arguments, one element each; never empty.
    pub argv: Vec<String>,
    /// Values of `path` arguments. Each stands inside an element of `argv` and must resolve
    /// beneath the tool root when the process starts. Left out of the JSON: `argv` holds them.
    #[serde(skip)]
    pub paths: Vec<String>,
}

/// What an executor enforces while a plan runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Wall time from start until everything the call started is killed.
    pub timeout: Duration,
    /// Bytes of standard output kept; the rest is hashed and dropped.
    pub output_max_bytes: u64,
    /// `RLIMIT_NPROC`: processes of the user.
    pub nproc: Option<u64>,
    /// `RLIMIT_NOFILE`: open file descriptors per process.
    pub nofile: Option<u64>,
    /// `RLIMIT_FSIZE`: bytes of any file written.
    pub fsize_bytes: Option<u64>,
    /// `RLIMIT_AS`: bytes of address space per process.
    pub address_space_bytes: Option<u64>,
    /// `RLIMIT_CPU`: seconds of processor time per process.
    pub cpu_seconds: Option<u64>,
}

impl Default for RunLimits {
    /// 30 seconds, 8 MiB of output, no resource limits: the defaults of a manifest.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            output_max_bytes: 8 << 20,
            nproc: None,
            nofile: None,
            fsize_bytes: None,
            address_space_bytes: None,
            cpu_seconds: None,
        }
    }
}
