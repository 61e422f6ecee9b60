//! Volumes get attached to nodes and detached, as external-attacher does it.

mod apply;
mod plan;

use super::{Context, Error};
use crate::cluster::{Key, Next};
use plan::Seen;

/// Works one VolumeAttachment off.
pub(super) async fn work(context: &Context, key: &Key) -> Result<Next, Error> {
    let Some(attachment) = context.attachments.get(key) else { return Ok(Next::Done) };
    let driver = context.drivers.get(&Key::whole(attachment.node.as_str()));
    let volume = context.volumes.get(&Key::whole(attachment.volume.as_str()));
    let seen = Seen { attachment: &attachment, volume: volume.as_deref(), driver: driver.as_deref() };
    let steps = match plan::plan(&seen) {
        Ok(steps) => steps,
        Err(reason) => {
            apply::save_error(context, key, &attachment, &reason).await?;
            return Err(Error::Refused(reason));
        }
    };
    for step in steps {
        tracing::info!(attachment = %key, %step, "attaching");
        if let Err(error) = apply::apply(context, key, &attachment, &step).await {
            if let Error::Cloud(error) = &error {
                apply::save_error(context, key, &attachment, &error.to_string()).await?;
            }
            return Err(error);
        }
    }
    Ok(Next::Done)
}
