//! What runs tools here, and which tools ask for more than there is.

use std::path::PathBuf;
use std::sync::Arc;

use countersign_core::plan::PlanKind;
use countersign_exec::{Dispatch, ProcessConfig, ProcessExecutor, SupervisorCommand};
use countersign_manifest::{BackendKind, Manifest, OutputFormat};

/// Where processes run and what they find there.
pub(crate) struct Surroundings {
    pub(crate) root: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) path: Vec<PathBuf>,
}

/// An executor for each kind of plan that [`missing`] lets through.
pub(crate) fn build(around: Surroundings) -> Dispatch {
    let process = ProcessExecutor::new(ProcessConfig {
        root: around.root,
        env: around.env,
        path: around.path,
        supervisor: SupervisorCommand::this_binary(),
    });
    Dispatch::default().with(PlanKind::Command, Arc::new(process))
}

/// What a tool asks for that nothing here does: it is not served, rather than without it.
pub(crate) fn missing(manifest: &Manifest) -> Option<String> {
    let format = manifest.output().format();
    if manifest.backend() != BackendKind::Command {
        Some(format!("running {} tools is not there yet", manifest.backend().as_str()))
    } else if manifest.filesystem().is_some() {
        Some("confinement by [filesystem] is not there yet".to_owned())
    } else if manifest.evidence().is_some() {
        Some("[tool.evidence] is not there yet".to_owned())
    } else if !matches!(format, OutputFormat::Text | OutputFormat::Json) {
        Some(format!("reading {} output is not there yet", format.as_str()))
    } else {
        None
    }
}
