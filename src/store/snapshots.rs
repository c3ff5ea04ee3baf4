//! Snapshots on record. They come and go with the events of jobs; only deleting one is a thing of its own.

use super::Store;
use super::db::{Row, Tx};
use crate::model::drive::{Snapshot, SnapshotId};

impl Store {
    pub async fn snapshots_all(&self) -> anyhow::Result<Vec<Snapshot>> {
        self.db.rows("SELECT * FROM snapshots ORDER BY game, version", []).await?.iter().map(snapshot_of).collect()
    }

    pub async fn forget_snapshot(&self, id: &SnapshotId) -> anyhow::Result<()> {
        self.db.run("DELETE FROM snapshots WHERE id = $1", [(&id.0).into()]).await?;
        Ok(())
    }
}

fn snapshot_of(row: &Row) -> anyhow::Result<Snapshot> {
    Ok(Snapshot {
        id: SnapshotId(row.text("id")?),
        game: row.text("game")?,
        version: row.int("version")?,
        image: row.text("image")?,
        install_key: row.text("install_key")?,
        files: row.maybe_int("files")?,
        bytes: row.maybe_int("bytes")?,
        created_at: row.int("created_at")?,
        sealed_at: row.maybe_int("sealed_at")?,
    })
}

pub(super) async fn write_snapshot(tx: &mut Tx, snapshot: &Snapshot) -> anyhow::Result<()> {
    let sql = "INSERT INTO snapshots (id, game, version, image, install_key, files, bytes, created_at, sealed_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
               ON CONFLICT (id) DO UPDATE SET game = excluded.game, version = excluded.version,
                   image = excluded.image, install_key = excluded.install_key, files = excluded.files,
                   bytes = excluded.bytes, created_at = excluded.created_at, sealed_at = excluded.sealed_at";
    let args = [
        (&snapshot.id.0).into(),
        (&snapshot.game).into(),
        snapshot.version.into(),
        (&snapshot.image).into(),
        (&snapshot.install_key).into(),
        snapshot.files.into(),
        snapshot.bytes.into(),
        snapshot.created_at.into(),
        snapshot.sealed_at.into(),
    ];
    tx.run(sql, args).await?;
    Ok(())
}

pub(super) async fn remove_snapshot(tx: &mut Tx, id: &str) -> anyhow::Result<()> {
    tx.run("DELETE FROM snapshots WHERE id = $1", [id.into()]).await?;
    Ok(())
}
