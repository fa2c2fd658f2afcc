#!/bin/sh
# The servers of a network: names and DHCP by dnsmasq, DHCPv6 by kea.
set -e
PATH=/bin:/usr/bin
mkdir -p /tmp/kea
export KEA_PIDFILE_DIR=/tmp/kea KEA_LOCKFILE_DIR=/tmp/kea
kea-dhcp6 -c /kea.json &
exec dnsmasq --keep-in-foreground --conf-file=/dnsmasq.conf
