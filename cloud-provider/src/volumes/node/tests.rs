//! Both services over a socket, as kubelet calls them; what needs disks is shown in the lab.

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{NodeIdentity, Sockets, serve};
use crate::volumes::proto::{
    csi::{
        GetPluginInfoRequest, NodeGetInfoRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest,
        NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
        identity_client::IdentityClient,
        node_client::NodeClient,
        volume_capability::{AccessType, MountVolume},
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

#[tokio::test]
async fn kubelet_learns_of_the_driver_and_calls_it() {
    let folder = std::env::temp_dir().join(format!("ake-csi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
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
    std::fs::remove_dir_all(&folder).unwrap();
}
