//! Bridges that somebody else has removed: they are made anew, with those on them.

use rtnetlink::LinkUnspec;

use super::{AttachError, Containers, bridge};
use crate::link::LinkTable;
use crate::report;

impl Containers {
    /// A link of ours is gone; nothing is to be done if this program has removed it.
    pub async fn lose_bridge(&mut self, bridge: u32, table: &LinkTable) {
        let Some(name) = self.networks.lose(bridge) else { return };
        report::say(format_args!("network {name}: somebody has removed its bridge, which is made again"));
        // Its resolver's sockets are bound to the one that is gone.
        self.serve_names();
        if let Err(error) = self.lay_again(&name, table).await {
            report::failure(&error);
        }
    }

    /// The same for all that were missed.
    pub async fn lose_missed(&mut self, table: &LinkTable) {
        let bridges: Vec<u32> = self.networks.live().filter_map(|(_, network)| network.bridge).collect();
        for bridge in bridges.into_iter().filter(|bridge| table.find(*bridge).is_none()) {
            self.lose_bridge(bridge, table).await;
        }
    }

    /// Makes a network's bridge and plugs the cables into it that have lost theirs.
    async fn lay_again(&mut self, name: &str, table: &LinkTable) -> Result<(), AttachError> {
        let attached = self.attachments.iter().flat_map(|attachment| &attachment.cables);
        let cables: Vec<_> = attached.filter(|cable| cable.bridged && cable.network == name).cloned().collect();
        // Else it is made when it is needed.
        if cables.is_empty() {
            return Ok(());
        }
        self.networks.up(name, table).await?;
        self.refill().map_err(AttachError::Filter)?;
        self.serve_names();
        let Some((index, isolated)) =
            self.networks.get(name).and_then(|network| Some((network.bridge?, network.settings.isolated)))
        else {
            return Ok(());
        };
        for cable in &cables {
            let link = cable.link_name();
            let Some(end) = table.by_name(&link) else { continue };
            let message = LinkUnspec::new_with_index(end.index).controller(index).build();
            self.netlink.change_link(message, &link).await?;
            if isolated {
                self.netlink.isolate_port(&link).await?;
            }
            bridge::add_service(&self.netlink, index, cable).await?;
        }
        Ok(())
    }
}
