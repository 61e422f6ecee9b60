//! kubelet's plugin registration.

use tonic::{Request, Response, Status};

use super::SOCKET;
use crate::volumes::{
    DRIVER,
    proto::registration::{
        InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
    },
};

/// Tells kubelet where the driver is.
#[derive(Debug)]
pub(super) struct Registration;

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: SOCKET.to_owned(),
            // What node-driver-registrar says of every driver of CSI 1.
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("kubelet has registered the driver");
        } else {
            // kubelet tries again by itself, with growing pauses.
            tracing::error!(reason = status.error, "kubelet does not register the driver");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
