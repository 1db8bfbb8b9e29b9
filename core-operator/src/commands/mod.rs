//! Subcommands of the core's program.

pub mod admission;
pub mod crd;
pub mod rbac;

/// One YAML document.
fn yaml(object: &impl serde::Serialize) -> Result<String, serde_saphyr::ser::Error> {
    let text = serde_saphyr::to_string(object)?;
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Ok(format!("---\n{text}{end}"))
}
