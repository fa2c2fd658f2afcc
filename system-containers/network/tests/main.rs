//! The service as a program, in network namespaces, with PID 1's end of its channel in the tests' hands. One program of
//! tests, since each would be linked with all the same.

mod cables;
mod containers;
mod down_and_up;
mod drivers;
mod firewall;
mod flows;
mod host;
mod ipv6;
mod kea;
mod killed;
mod killed_links;
mod made;
mod many;
mod names;
mod networks;
mod overflow;
mod packets;
mod peers;
mod ports;
mod quiet;
mod ranges;
mod reconciliation;
mod resolver;
mod routes_given;
mod rules;
mod rules_out;
mod services;
mod support;
mod taken_back;
mod time;
mod troubles;
mod vrf;
mod why;
