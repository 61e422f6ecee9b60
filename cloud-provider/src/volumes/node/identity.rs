//! CSI's Identity service.

use tonic::{Request, Response, Status};

use crate::volumes::{
    DRIVER,
    proto::csi::{
        GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
        GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse, identity_server,
        plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion},
    },
};

/// Says who we are.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) has_zone: bool,
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: Default::default(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let expansion = VolumeExpansion { r#type: volume_expansion::Type::Online.into() };
        let mut types = vec![Type::VolumeExpansion(expansion)];
        if self.has_zone {
            types.push(Type::Service(Service {
                r#type: service::Type::VolumeAccessibilityConstraints.into(),
            }));
        }
        let capabilities =
            types.into_iter().map(|r#type| PluginCapability { r#type: Some(r#type) }).collect();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
