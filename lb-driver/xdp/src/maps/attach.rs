//! Attaches the data plane, in place of what a former process left.

use std::path::Path;

use aya::{
    maps::{Array, Map, MapData},
    programs::{
        ProgramError, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpLinkId},
    },
};

use super::{CONTROL, DataPlane, MapsError, Pins, chain, of, program};
use crate::{config::Mode, layout, link::Interface};

impl DataPlane {
    /// Whether a data plane of a former process is at work.
    pub fn inherits(&self) -> Result<bool, MapsError> {
        Ok(match &self.pins {
            Some(pins) => !pins.attachments()?.is_empty(),
            None => false,
        })
    }

    /// Attaches it to an interface, in place of what a former process left there; answers in which mode.
    pub fn attach(&mut self, interface: &Interface, mode: Mode) -> Result<Mode, MapsError> {
        let Some(pins) = self.pins.take() else { return Ok(self.attach_anew(interface, mode)?.1) };
        let mode = self.take_over(&pins, interface, mode);
        if mode.is_ok() {
            pins.settle()?;
        }
        self.pins = Some(pins);
        mode
    }

    /// Has the data plane that a former process left answer no neighbours: another instance does. Answers whether there
    /// is one.
    pub fn stand_down(pins: &Pins) -> Result<bool, MapsError> {
        let path = pins.table(CONTROL);
        if !path.exists() {
            return Ok(false);
        }
        let stand_down = || {
            let mut control = Array::<_, layout::Control>::try_from(Map::Array(MapData::from_pin(&path)?))?;
            let [_, epoch] = control.get(&0, 0)?;
            control.set(0, [layout::CONTROL_STANDBY, epoch], 0)
        };
        stand_down().map_err(of(CONTROL))?;
        Ok(true)
    }

    fn take_over(&mut self, pins: &Pins, interface: &Interface, mode: Mode) -> Result<Mode, MapsError> {
        let mut held = pins.attachments()?;
        held.sort_by_key(|attachment| attachment.interface != interface.index);
        for attachment in &held {
            let fits =
                attachment.interface == interface.index && (mode == Mode::Auto || mode == attachment.mode);
            if fits && self.swap(&attachment.path)? {
                for other in held.iter().filter(|other| *other != attachment) {
                    pins.remove(&other.path)?;
                }
                return Ok(attachment.mode);
            }
            // One of another mode, or of an interface that went: it stands in the way of the next.
            if attachment.interface == interface.index {
                pins.remove(&attachment.path)?;
            }
        }
        let (link, mode) = self.attach_anew(interface, mode)?;
        let link = program(&mut self.object)?.take_link(link)?;
        FdLink::try_from(link)?.pin(pins.attachment(interface.index, mode))?;
        for other in held.iter().filter(|other| other.interface != interface.index) {
            pins.remove(&other.path)?;
        }
        Ok(mode)
    }

    /// Swaps the program behind an attachment for this one, at once. False where the interface is gone.
    fn swap(&mut self, path: &Path) -> Result<bool, MapsError> {
        let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(path)?))?;
        match program(&mut self.object)?.attach_to_link(link) {
            Ok(_) => Ok(true),
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(nix::errno::Errno::ENOLINK as i32) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn attach_anew(&mut self, interface: &Interface, mode: Mode) -> Result<(XdpLinkId, Mode), MapsError> {
        let program = program(&mut self.object)?;
        if mode == Mode::Native || (mode == Mode::Auto && interface.kind.as_deref() != Some("veth")) {
            match program.attach_to_if_index(interface.index, XdpMode::Driver) {
                Ok(link) => return Ok((link, Mode::Native)),
                Err(error) if mode == Mode::Auto => {
                    tracing::warn!(interface = %interface.name, error = chain(&error), "no native mode: generic");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((program.attach_to_if_index(interface.index, XdpMode::Skb)?, Mode::Generic))
    }
}
