#!/bin/bash
# Makes this guest the node that its identity disk says it is. The disk is a tar archive, not a
# file system: node.env (NODE_NAME, NODE_INDEX, NODE_IP, NODE_LIMIT), certificates, kubeconfigs.
set -eu
mkdir -p /etc/kubernetes
tar -C /etc/kubernetes -xf /dev/vdc
. /etc/kubernetes/node.env

hostname "$NODE_NAME"
printf '127.0.0.1 localhost %s\n10.77.0.1 registry.lab\n' "$NODE_NAME" > /etc/hosts
: > /etc/resolv.conf

device=$(ls /sys/class/net | grep -v '^lo$' | head -n 1)
{
	echo "link set lo up"
	echo "address replace $NODE_IP/24 dev $device"
	echo "link set $device up"
	echo "route replace default via 10.77.0.1"
	for index in $(seq "$NODE_LIMIT"); do
		[ "$index" = "$NODE_INDEX" ] || echo "route replace 10.78.$index.0/24 via 10.77.0.$((10 + index))"
	done
} | ip -batch -
sysctl -qw net.ipv4.ip_forward=1 vm.dirty_writeback_centisecs=100 vm.dirty_expire_centisecs=100

mkdir -p /etc/cni/net.d
cat > /etc/cni/net.d/10-lab.conflist <<CONF
{
  "cniVersion": "1.0.0",
  "name": "lab",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": 1500,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": "10.78.$NODE_INDEX.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CONF
echo "invivo-lab: identity $(cut -d' ' -f1 /proc/uptime)" > /dev/ttyS0
