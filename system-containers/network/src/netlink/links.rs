//! Requests that change links and rules, and what others have made.

use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use rtnetlink::{IpVersion, LinkUnspec};

use super::{Netlink, NetlinkError, about};

impl Netlink {
    /// Changes what the message says of a link that is there.
    pub async fn change_link(&self, message: LinkMessage, name: &str) -> Result<(), NetlinkError> {
        self.handle.link().change(message).execute().await.map_err(about("change link", name))
    }

    /// Sets a link down.
    pub async fn set_down(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.change_link(LinkUnspec::new_with_index(index).down().build(), name).await
    }

    /// Gives a link another name; it is down for a moment where the kernel wants that, which Linux before 6.2 does.
    pub async fn rename_link(&self, index: u32, name: &str, new: &str) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).name(new).build();
        match self.change_link(message.clone(), name).await {
            Err(error) if error.number() == libc::EBUSY => {
                self.set_down(index, name).await?;
                let done = self.change_link(message, name).await;
                self.set_up(index, name).await?;
                done
            }
            done => done,
        }
    }

    /// Gives a link another hardware address; it is down for a moment where its driver wants that.
    pub async fn set_mac(&self, index: u32, name: &str, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).address(mac.to_vec()).build();
        match self.change_link(message.clone(), name).await {
            Err(error) if error.number() == libc::EBUSY => {
                self.set_down(index, name).await?;
                self.change_link(message, name).await?;
                self.set_up(index, name).await
            }
            done => done,
        }
    }

    /// Removes a route that others have made.
    pub async fn remove_route_as_it_is(&self, route: RouteMessage) -> Result<(), NetlinkError> {
        let text = format!("{:?}", route.header);
        self.handle.route().del(route).execute().await.map_err(about("remove route", text))
    }

    /// Every policy rule.
    pub async fn rules(&self) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [IpVersion::V4, IpVersion::V6] {
            let some: Vec<_> =
                self.handle.rule().get(family).execute().try_collect().await.map_err(about("list", "rules"))?;
            rules.extend(some);
        }
        Ok(rules)
    }

    /// Makes a policy rule.
    pub async fn add_rule(&self, rule: RuleMessage, text: &str) -> Result<(), NetlinkError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule;
        request.execute().await.map_err(about("add rule", text))
    }

    /// Removes a policy rule.
    pub async fn remove_rule(&self, rule: RuleMessage, text: &str) -> Result<(), NetlinkError> {
        self.handle.rule().del(rule).execute().await.map_err(about("remove rule", text))
    }
}
