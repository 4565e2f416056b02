//! What was uploaded, counted at the S3 server.

use crate::lab::Lab;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// Blocks of one backup that arrived at the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// Different blocks.
    pub blocks: usize,
    /// Uploads beyond the first of each.
    pub again: usize,
}

impl Blocks {
    /// Uploaded again ÷ blocks.
    pub fn ratio(self) -> f64 {
        let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
        if self.blocks == 0 { 0.0 } else { count(self.again) / count(self.blocks) }
    }
}

/// A place in the S3 server's log.
#[derive(Clone, Copy, Debug)]
pub struct Since(u64);

/// Everything from now on counts.
pub async fn from_now(lab: &Lab) -> Result<Since> {
    lab.s3_log_length().await.map(Since)
}

/// The block uploads of a volume since then.
pub async fn count(lab: &Lab, since: Since, volume: &str) -> Result<Blocks> {
    Ok(blocks(&lab.s3_log(since.0, &format!("/{volume}/blocks/")).await?))
}

/// Writes of objects whose path holds a text since then.
pub async fn puts(lab: &Lab, since: Since, path: &str) -> Result<usize> {
    Ok(lab.s3_log(since.0, path).await?.lines().filter(|line| line.contains("s3_PutObject")).count())
}

/// Every attempt counts, those that were cut too: they all went over the link. versitygw writes one line per request,
/// in the form of AWS's server access log: `… s3_PutObject - /bucket/key 200 …`.
fn blocks(log: &str) -> Blocks {
    let mut uploads = BTreeMap::<&str, usize>::new();
    for line in log.lines().filter(|line| line.contains("s3_PutObject")) {
        if let Some(key) = line.split(' ').find(|word| word.strip_suffix(".blk").is_some()) {
            *uploads.entry(key).or_default() += 1;
        }
    }
    Blocks { blocks: uploads.len(), again: uploads.values().map(|n| n - 1).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uploads_of_blocks_count() {
        let line = |action: &str, key: &str, status: u16| {
            format!(
                "labkey backups [23/November/2026:20:39:37 +0000] 10.244.1.3 labkey ID {action} - /backups/{key} {status} - 0\n"
            )
        };
        let log = [
            line("s3_PutObject", "backupstore/volumes/aa/bb/v/blocks/1/2/a.blk", 200),
            line("s3_PutObject", "backupstore/volumes/aa/bb/v/blocks/1/2/b.blk", 500),
            line("s3_HeadObject", "backupstore/volumes/aa/bb/v/blocks/1/2/b.blk", 404),
            line("s3_PutObject", "backupstore/volumes/aa/bb/v/blocks/1/2/b.blk", 200),
            line("s3_PutObject", "backupstore/volumes/aa/bb/v/volume.cfg", 200),
        ];
        let counted = blocks(&log.concat());
        assert_eq!(counted, Blocks { blocks: 2, again: 1 });
        assert!((counted.ratio() - 0.5).abs() < 1e-9);
    }
}
