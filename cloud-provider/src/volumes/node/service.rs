//! CSI's Node service. Every call is idempotent: kubelet repeats what it has no answer to.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tonic::{Request, Response, Status};

use super::{
    NodeIdentity,
    disk::{self, Disk, DiskError, FileSystem},
    mounts,
};
use crate::volumes::{
    CONTEXT_SIZE, ZONE_KEY,
    proto::csi::{
        NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
        NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
        NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
        NodeServiceCapability, NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
        NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology,
        VolumeCapability, VolumeUsage, node_server,
        node_service_capability::{Rpc, Type, rpc},
        volume_capability::{AccessType, MountVolume},
        volume_usage::Unit,
    },
};

/// Mounts volumes for kubelet.
#[derive(Debug)]
pub(super) struct Node {
    identity: NodeIdentity,
    busy: Arc<Mutex<HashSet<String>>>,
}

/// Held while a volume is worked on.
struct Busy {
    volume: String,
    all: Arc<Mutex<HashSet<String>>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.volume);
    }
}

impl Node {
    pub(super) fn new(identity: NodeIdentity) -> Self {
        Self { identity, busy: Arc::default() }
    }

    /// One call per volume at a time. kubelet comes again after ABORTED.
    fn begin(&self, volume: &str) -> Result<Busy, Status> {
        if volume.is_empty() {
            return Err(missing("volume_id"));
        }
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.to_owned()) {
            return Err(Status::aborted(format!("another call for volume {volume} is under way")));
        }
        Ok(Busy { volume: volume.to_owned(), all: Arc::clone(&self.busy) })
    }
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is empty: expected a value"))
}

fn path(field: &str, value: &str) -> Result<PathBuf, Status> {
    if value.is_empty() {
        return Err(missing(field));
    }
    let path = PathBuf::from(value);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Status::invalid_argument(format!("{field} = {value:?}: expected an absolute path")))
    }
}

fn access(capability: Option<VolumeCapability>) -> Result<AccessType, Status> {
    capability.and_then(|capability| capability.access_type).ok_or_else(|| missing("volume_capability"))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Status {
    Status::internal(format!("{doing} {}: {error}", path.display()))
}

impl From<DiskError> for Status {
    fn from(error: DiskError) -> Self {
        let message = error.to_string();
        match error {
            DiskError::NotThere { .. } | DiskError::TooSmall { .. } => Self::unavailable(message),
            DiskError::UnknownFileSystem(_) => Self::invalid_argument(message),
            DiskError::HoldsOther { .. } => Self::failed_precondition(message),
            DiskError::Io { .. } | DiskError::Run(_) => Self::internal(message),
        }
    }
}

/// What of the requested mount is there already. `Err`: something else is in its place.
async fn mounted(target: &Path, disk: &Disk) -> Result<bool, Status> {
    match mounts::at(target).await.map_err(|e| failed("reading mounts for", target, &e))? {
        None => Ok(false),
        Some(mount) if mount.device == disk.number => Ok(true),
        Some(mount) => Err(Status::failed_precondition(format!(
            "{} shows device {}: expected nothing there, or {} ({})",
            target.display(),
            mount.device,
            disk.path.display(),
            disk.number
        ))),
    }
}

async fn stage(disk: &Disk, staging: &Path, mount: &MountVolume) -> Result<(), Status> {
    let kind = FileSystem::named(&mount.fs_type)?;
    tokio::fs::create_dir_all(staging).await.map_err(|e| failed("making", staging, &e))?;
    if mounted(staging, disk).await? {
        return Ok(());
    }
    disk::format(&disk.path, kind).await?;
    disk::mount(&disk.path, staging, kind, &mount.mount_flags).await?;
    Ok(())
}

async fn publish_folder(staging: &Path, target: &Path, read_only: bool) -> Result<(), Status> {
    let staged = mounts::at(staging).await.map_err(|e| failed("reading mounts for", staging, &e))?;
    let staged = staged.ok_or_else(|| {
        Status::failed_precondition(format!("{}: expected the volume to be staged there", staging.display()))
    })?;
    tokio::fs::create_dir_all(target).await.map_err(|e| failed("making", target, &e))?;
    let there = mounts::at(target).await.map_err(|e| failed("reading mounts for", target, &e))?;
    if there.is_some_and(|mount| mount.device == staged.device) {
        return Ok(());
    }
    let bound = mounts::bind(staging.to_owned(), target.to_owned(), read_only).await;
    bound.map_err(|e| failed("binding the volume to", target, &e))
}

async fn publish_disk(disk: &Disk, target: &Path, read_only: bool) -> Result<(), Status> {
    if let Some(parent) = target.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(|e| failed("making", parent, &e))?;
    }
    let opened = tokio::fs::OpenOptions::new().create(true).append(true).open(target).await;
    opened.map_err(|e| failed("making", target, &e))?;
    if mounts::at(target).await.map_err(|e| failed("reading mounts for", target, &e))?.is_some() {
        return Ok(());
    }
    let bound = mounts::bind(disk.path.clone(), target.to_owned(), read_only).await;
    bound.map_err(|e| failed("binding the disk to", target, &e))
}

/// Bytes and inodes of the file system at `path`.
fn usage(path: &Path) -> io::Result<Vec<VolumeUsage>> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (block, blocks) = (stat.fragment_size(), stat.blocks());
    Ok(vec![
        VolumeUsage {
            unit: Unit::Bytes.into(),
            total: number(blocks * block),
            available: number(stat.blocks_available() * block),
            used: number((blocks - stat.blocks_free()) * block),
        },
        VolumeUsage {
            unit: Unit::Inodes.into(),
            total: number(stat.files()),
            available: number(stat.files_free()),
            used: number(stat.files() - stat.files_free()),
        },
    ])
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let _busy = self.begin(&request.volume_id)?;
        let staging = path("staging_target_path", &request.staging_target_path)?;
        let access = access(request.volume_capability)?;
        let gib =
            request.publish_context.get(CONTEXT_SIZE).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        let disk = disk::find(&request.volume_id, gib << 30).await?;
        if let AccessType::Mount(mount) = access {
            stage(&disk, &staging, &mount).await?;
        }
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let _busy = self.begin(&request.volume_id)?;
        let staging = path("staging_target_path", &request.staging_target_path)?;
        mounts::unmount(&staging).await.map_err(|e| failed("unmounting", &staging, &e))?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let _busy = self.begin(&request.volume_id)?;
        let staging = path("staging_target_path", &request.staging_target_path)?;
        let target = path("target_path", &request.target_path)?;
        match access(request.volume_capability)? {
            AccessType::Mount(_) => publish_folder(&staging, &target, request.readonly).await?,
            AccessType::Block(_) => {
                let disk = disk::find(&request.volume_id, 0).await?;
                publish_disk(&disk, &target, request.readonly).await?;
            }
        }
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let _busy = self.begin(&request.volume_id)?;
        let target = path("target_path", &request.target_path)?;
        mounts::unmount(&target).await.map_err(|e| failed("unmounting", &target, &e))?;
        // Only an empty folder goes: what is in it now is not the volume's.
        let removed = match tokio::fs::symlink_metadata(&target).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(metadata) if metadata.is_dir() => tokio::fs::remove_dir(&target).await,
            Ok(_) => tokio::fs::remove_file(&target).await,
        };
        removed.map_err(|e| failed("removing", &target, &e))?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(missing("volume_id"));
        }
        let target = path("volume_path", &request.volume_path)?;
        let metadata = tokio::fs::metadata(&target)
            .await
            .map_err(|e| Status::not_found(format!("{}: {e}", target.display())))?;
        let usage = if metadata.is_dir() {
            if mounts::at(&target).await.map_err(|e| failed("reading mounts for", &target, &e))?.is_none() {
                return Err(Status::not_found(format!("{}: nothing is mounted there", target.display())));
            }
            let shown = target.clone();
            let read = tokio::task::spawn_blocking(move || usage(&target)).await.map_err(io::Error::other);
            read.flatten().map_err(|e| failed("reading", &shown, &e))?
        } else {
            let disk = disk::look(&target).await?;
            let total = i64::try_from(disk.size).unwrap_or(i64::MAX);
            vec![VolumeUsage { unit: Unit::Bytes.into(), total, available: 0, used: 0 }]
        };
        Ok(Response::new(NodeGetVolumeStatsResponse { usage, volume_condition: None }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let _busy = self.begin(&request.volume_id)?;
        let target = path("volume_path", &request.volume_path)?;
        tokio::fs::metadata(&target)
            .await
            .map_err(|e| Status::not_found(format!("{}: {e}", target.display())))?;
        let wanted =
            request.capacity_range.map_or(0, |range| u64::try_from(range.required_bytes).unwrap_or(0));
        let disk = disk::find(&request.volume_id, wanted).await?;
        let block = matches!(
            request.volume_capability.and_then(|capability| capability.access_type),
            Some(AccessType::Block(_))
        );
        if !block {
            let mount = mounts::at(&target).await.map_err(|e| failed("reading mounts for", &target, &e))?;
            let mount = mount.ok_or_else(|| {
                Status::not_found(format!("{}: nothing is mounted there", target.display()))
            })?;
            disk::grow(&disk.path, &target, &mount.kind).await?;
        }
        let capacity_bytes = i64::try_from(disk.size).unwrap_or(i64::MAX);
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let types = [rpc::Type::StageUnstageVolume, rpc::Type::GetVolumeStats, rpc::Type::ExpandVolume];
        let capabilities = types
            .into_iter()
            .map(|r#type| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: r#type.into() })) })
            .collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let segments = |zone: &String| [(ZONE_KEY.to_owned(), zone.clone())].into();
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.identity.server_id.clone(),
            max_volumes_per_node: self.identity.max_volumes.map_or(0, i64::from),
            accessible_topology: self
                .identity
                .zone
                .as_ref()
                .map(|zone| Topology { segments: segments(zone) }),
        }))
    }
}
