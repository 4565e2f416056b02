//! `handoff crd`.

use anyhow::Context;
use handoff_coordinator::api::VolumeHandoff;
use kube::CustomResourceExt;

/// Prints the CustomResourceDefinition as YAML.
pub fn print() -> anyhow::Result<()> {
    print!("{}", yaml()?);
    Ok(())
}

fn yaml() -> anyhow::Result<String> {
    serde_saphyr::to_string(&VolumeHandoff::crd()).context("cannot write the CustomResourceDefinition")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployed_definition_is_this_one() {
        let deployed = include_str!("../../deploy/kustomize/crd.yaml");
        let parse = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(deployed), parse(&yaml().unwrap()), "run `make crd`");
    }
}
