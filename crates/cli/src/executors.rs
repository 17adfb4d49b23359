//! What runs tools here, and which tools ask for more than there is.

use std::sync::Arc;

use countersign_core::plan::PlanKind;
use countersign_exec::{Dispatch, ProcessConfig, ProcessExecutor, SupervisorCommand};
use countersign_manifest::{BackendKind, Manifest, OutputFormat};

use crate::config::{Config, Loaded};
use crate::hooks::Setting;
use crate::output::Failure;
use crate::secrets;

/// An executor for each kind of plan that [`missing`] lets through. `env` is what processes find.
pub(crate) fn build(
    loaded: &Loaded,
    setting: &Setting,
    env: Vec<(String, String)>,
) -> Result<Dispatch, Failure> {
    let process = ProcessExecutor::new(ProcessConfig {
        root: setting.tool_root.clone(),
        env,
        path: setting.path.clone(),
        supervisor: SupervisorCommand::this_binary(),
    });
    let secrets = secrets::build(loaded, setting)?;
    let redactor = secrets.redactor().clone();
    let http = secrets::executor(loaded, setting, secrets)?;
    Ok(Dispatch::default()
        .with(PlanKind::Command, Arc::new(process))
        .with(PlanKind::Http, Arc::new(http))
        .redacting(redactor))
}

/// What a tool asks for that is not there: it is not served, rather than without it.
pub(crate) fn missing(manifest: &Manifest, config: &Config) -> Option<String> {
    let format = manifest.output().format();
    if !matches!(manifest.backend(), BackendKind::Command | BackendKind::Http) {
        Some(format!("running {} tools is not there yet", manifest.backend().as_str()))
    } else if manifest.filesystem().is_some() {
        Some("confinement by [filesystem] is not there yet".to_owned())
    } else if manifest.evidence().is_some() {
        Some("[tool.evidence] is not there yet".to_owned())
    } else if !matches!(format, OutputFormat::Text | OutputFormat::Json) {
        Some(format!("reading {} output is not there yet", format.as_str()))
    } else {
        let secrets = manifest.secrets();
        let unknown = secrets.iter().find(|name| !config.secrets.contains_key(**name))?;
        Some(format!("it sends the secret `{unknown}`, which [secrets] does not name"))
    }
}
