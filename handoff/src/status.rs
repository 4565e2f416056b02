//! `handoff status`: one line per handoff.

use crate::args::StatusArgs;
use anyhow::Context;
use comfy_table::{Table, presets};
use handoff_coordinator::api::{VolumeHandoff, VolumeHandoffStatus};
use kube::{Api, Client, ResourceExt, api::ListParams};

/// Lists all handoffs, the unfinished ones first.
pub async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no cluster: is KUBECONFIG set?")?;
    let api: Api<VolumeHandoff> = match &args.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let list = api.list(&ListParams::default()).await;
    let mut handoffs = list.context("cannot list VolumeHandoffs: is Handoff installed?")?.items;
    handoffs.sort_by_key(|h| (h.is_finished(), std::cmp::Reverse(h.spec.triggered_at)));
    if handoffs.is_empty() {
        println!("No handoffs: no volume has moved with a backup in flight in the last hour.");
        return Ok(());
    }
    println!("{}", table(&handoffs));
    Ok(())
}

fn table(handoffs: &[VolumeHandoff]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAMESPACE", "CLAIM", "POD", "FROM", "TO", "PHASE", "BACKUPS", "MOVE", "NOW"]);
    for handoff in handoffs {
        let VolumeHandoffStatus { to, phase, backups_safe, duration, message, .. } = handoff.journal();
        table.add_row([
            handoff.namespace().unwrap_or_default(),
            handoff.spec.volume.claim.clone(),
            handoff.spec.pod.name.clone(),
            handoff.spec.from.clone(),
            to.unwrap_or_else(|| "-".to_owned()),
            phase.map_or_else(|| "-".to_owned(), |p| format!("{p:?}")),
            backups_safe,
            duration,
            message,
        ]);
    }
    table
}
