//! Both services over a socket, as kubelet calls them; what needs disks is shown in the lab.

use std::{
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{NodeIdentity, Sockets, serve};
use crate::volumes::proto::{
    csi::{
        CapacityRange, GetPluginInfoRequest, NodeExpandVolumeRequest, NodeGetInfoRequest,
        NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
        NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
        identity_client::IdentityClient,
        node_client::NodeClient,
        volume_capability::{AccessType, BlockVolume, MountVolume},
    },
    registration::{InfoRequest, registration_client::RegistrationClient},
};

async fn channel(path: std::path::PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// In the process that may mount what it likes: a folder to do it in.
const INSIDE: &str = "AKE_CSI_TEST_INSIDE";

/// A loop device that goes with the test, under the link that virtio would give it.
struct LoopDevice {
    device: String,
    file: PathBuf,
}

impl LoopDevice {
    fn new(folder: &Path, volume: &str, megabytes: u64) -> Self {
        let file = folder.join(volume);
        std::fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
        let device = output("losetup", &["--find", "--show", file.to_str().unwrap()]);
        std::fs::create_dir_all("/dev/disk/by-id").unwrap();
        let link = format!("/dev/disk/by-id/virtio-{}", &volume[..20]);
        std::os::unix::fs::symlink(&device, link).unwrap();
        Self { device, file }
    }

    fn grow(&self, megabytes: u64) {
        std::fs::OpenOptions::new().write(true).open(&self.file).unwrap().set_len(megabytes << 20).unwrap();
        output("losetup", &["--set-capacity", &self.device]);
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Disks, formatted and mounted for real: runs itself again in a mount namespace of its own.
#[test]
fn disks_are_formatted_mounted_grown_and_keep_their_data() {
    if let Some(folder) = std::env::var_os(INSIDE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(disks(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "volumes::node::tests::disks_are_formatted_mounted_grown_and_keep_their_data";
    let status = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "see above; this test needs root and loop devices");
}

fn capability(kind: &str) -> Option<VolumeCapability> {
    let access_type = match kind {
        "block" => AccessType::Block(BlockVolume {}),
        fs_type => AccessType::Mount(MountVolume { fs_type: fs_type.into(), ..MountVolume::default() }),
    };
    Some(VolumeCapability { access_type: Some(access_type), access_mode: None })
}

async fn disks(folder: &Path) {
    output("mount", &["-t", "tmpfs", "tmpfs", folder.to_str().unwrap()]);
    std::fs::create_dir_all("/dev/disk").unwrap();
    output("mount", &["-t", "tmpfs", "tmpfs", "/dev/disk"]);
    let (mut client, stop) = served(folder).await;
    for kind in ["ext4", "xfs"] {
        let volume = format!("{:0<8}-1111-2222-3333-444444444444", kind.replace('x', "e").replace('s', "f"));
        // 300 MB is the least that mkfs.xfs takes.
        let disk = LoopDevice::new(folder, &volume, 320);
        let at = |name: &str| folder.join(kind).join(name).display().to_string();
        let (staging, target) = (at("staging"), at("target"));
        let stage = NodeStageVolumeRequest {
            volume_id: volume.clone(),
            staging_target_path: staging.clone(),
            volume_capability: capability(kind),
            ..Default::default()
        };
        let publish = NodePublishVolumeRequest {
            volume_id: volume.clone(),
            staging_target_path: staging.clone(),
            target_path: target.clone(),
            volume_capability: capability(kind),
            ..Default::default()
        };
        let unpublish = NodeUnpublishVolumeRequest { volume_id: volume.clone(), target_path: target.clone() };
        let unstage =
            NodeUnstageVolumeRequest { volume_id: volume.clone(), staging_target_path: staging.clone() };
        for round in 0..2 {
            // Each call twice: kubelet repeats what it has no answer to.
            for _ in 0..2 {
                client.node_stage_volume(stage.clone()).await.unwrap();
            }
            for _ in 0..2 {
                client.node_publish_volume(publish.clone()).await.unwrap();
            }
            let file = Path::new(&target).join("file");
            if round == 0 {
                std::fs::write(&file, "kept").unwrap();
            }
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept", "{kind}, round {round}");
            let stats = NodeGetVolumeStatsRequest {
                volume_id: volume.clone(),
                volume_path: target.clone(),
                ..Default::default()
            };
            let usage = client.node_get_volume_stats(stats).await.unwrap().into_inner().usage;
            assert!(usage[0].total > 200 << 20 && usage[0].used > 0 && usage[1].total > 0, "{usage:?}");
            if kind == "xfs" && round == 0 {
                disk.grow(640);
                let expand = NodeExpandVolumeRequest {
                    volume_id: volume.clone(),
                    volume_path: target.clone(),
                    capacity_range: Some(CapacityRange { required_bytes: 640 << 20, limit_bytes: 0 }),
                    ..Default::default()
                };
                let grown = client.node_expand_volume(expand).await.unwrap().into_inner();
                assert_eq!(grown.capacity_bytes, 640 << 20);
                assert!(nix::sys::statvfs::statvfs(Path::new(&target)).unwrap().blocks() * 4096 > 500 << 20);
            }
            for _ in 0..2 {
                client.node_unpublish_volume(unpublish.clone()).await.unwrap();
            }
            assert!(!Path::new(&target).exists());
            for _ in 0..2 {
                client.node_unstage_volume(unstage.clone()).await.unwrap();
            }
        }
        let other = if kind == "xfs" { "ext4" } else { "xfs" };
        let error = client
            .node_stage_volume(NodeStageVolumeRequest {
                volume_capability: capability(other),
                ..stage.clone()
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::FailedPrecondition);
        assert!(error.message().contains(&format!("holds {kind}: expected nothing")), "{error}");

        let raw = NodePublishVolumeRequest {
            volume_capability: capability("block"),
            readonly: true,
            ..publish.clone()
        };
        client.node_publish_volume(raw).await.unwrap();
        assert!(std::fs::metadata(&target).unwrap().file_type().is_block_device());
        client.node_unpublish_volume(unpublish).await.unwrap();
        assert!(!Path::new(&target).exists());
    }
    stop.cancel();
}

/// The node service on a socket in `folder`, and a client of it.
async fn served(folder: &Path) -> (NodeClient<Channel>, CancellationToken) {
    let (csi, registration) = (folder.join("csi.sock"), folder.join("reg.sock"));
    let sockets = Sockets {
        csi: UnixListener::bind(&csi).unwrap(),
        registration: UnixListener::bind(&registration).unwrap(),
    };
    let node = NodeIdentity { server_id: "s-1".into(), zone: Some("nova".into()), max_volumes: None };
    let stop = CancellationToken::new();
    tokio::spawn(serve(sockets, node, stop.clone()));
    (NodeClient::new(channel(csi).await), stop)
}

#[tokio::test]
async fn kubelet_learns_of_the_driver_and_calls_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (csi, registration) = (folder.join("csi.sock"), folder.join("reg.sock"));
    let sockets = Sockets {
        csi: UnixListener::bind(&csi).unwrap(),
        registration: UnixListener::bind(&registration).unwrap(),
    };
    let node = NodeIdentity { server_id: "s-1".into(), zone: Some("nova".into()), max_volumes: None };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(sockets, node, stop.clone()));

    let info = RegistrationClient::new(channel(registration).await)
        .get_info(InfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "cinder.csi.openstack.org"));
    assert_eq!(info.endpoint, super::SOCKET);

    let channel = channel(csi).await;
    let plugin = IdentityClient::new(channel.clone()).get_plugin_info(GetPluginInfoRequest {}).await.unwrap();
    assert_eq!(plugin.into_inner().name, "cinder.csi.openstack.org");

    let mut client = NodeClient::new(channel);
    let info = client.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("s-1", 0));
    let segments = info.accessible_topology.unwrap().segments;
    assert_eq!(segments["topology.cinder.csi.openstack.org/zone"], "nova");

    let error = client.node_stage_volume(NodeStageVolumeRequest::default()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (tonic::Code::InvalidArgument, "volume_id is empty: expected a value")
    );
    let error = client
        .node_publish_volume(NodePublishVolumeRequest {
            volume_id: "v".into(),
            staging_target_path: folder.join("staged").display().to_string(),
            target_path: folder.join("target").display().to_string(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume::default())),
                access_mode: None,
            }),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error}");

    let gone = folder.join("gone").display().to_string();
    let unstage = NodeUnstageVolumeRequest { volume_id: "v".into(), staging_target_path: gone.clone() };
    client.node_unstage_volume(unstage).await.unwrap();
    let unpublish = NodeUnpublishVolumeRequest { volume_id: "v".into(), target_path: gone.clone() };
    client.node_unpublish_volume(unpublish).await.unwrap();
    let stats = NodeGetVolumeStatsRequest { volume_id: "v".into(), volume_path: gone, ..Default::default() };
    assert_eq!(client.node_get_volume_stats(stats).await.unwrap_err().code(), tonic::Code::NotFound);

    stop.cancel();
    served.await.unwrap().unwrap();
}
