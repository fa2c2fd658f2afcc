//! How much a container may send and receive: a token bucket on either end of its cable, each for what leaves there.

use berth_config::BitRate;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::packet_core::DefaultNla;

use crate::netlink::{Netlink, NetlinkError};

const KIND: &str = "tbf";
/// TCA_TBF_PARMS, TCA_TBF_BURST
const PARAMETERS: u16 = 1;
const BURST: u16 = 6;
/// TC_LINKLAYER_ETHERNET
const ETHERNET: u8 = 1;
/// What may leave at once after a pause, in bytes and in parts of a second: less than a page slows the kernel down, more
/// than the second lets more through than was asked for.
const LEAST_BURST: u64 = 16 << 10;
const BURSTS_A_SECOND: u64 = 100;
/// What waits beyond that before it is dropped: a tenth of a second, which TCP takes for a sign.
const WAITS_A_SECOND: u64 = 10;

/// Limits what leaves on a link.
pub async fn limit(netlink: &Netlink, link: u32, rate: BitRate) -> Result<(), NetlinkError> {
    let mut message = TcMessage::with_index(link.cast_signed());
    message.header.parent = TcHandle::ROOT;
    let burst = (rate.bytes() / BURSTS_A_SECOND).max(LEAST_BURST);
    let room = burst + (rate.bytes() / WAITS_A_SECOND).max(LEAST_BURST);
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
    // struct tc_tbf_qopt: two struct tc_ratespec (the second is that of peaks, none), limit, buffer, mtu.
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(number(rate.bytes()));
    parameters.extend([0; 12]);
    parameters.extend(number(room));
    parameters.extend([0; 8]);
    let options = [(PARAMETERS, parameters), (BURST, number(burst).to_vec())];
    let options = options.into_iter().map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value)));
    message.attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(options.collect())];
    netlink.replace_queue(message, link).await
}

/// The same for a link whose number is not known.
pub async fn limit_by_name(netlink: &Netlink, name: &str, rate: BitRate) -> Result<(), NetlinkError> {
    let link = netlink.link_by_name(name).await?.header.index;
    limit(netlink, link, rate).await
}
