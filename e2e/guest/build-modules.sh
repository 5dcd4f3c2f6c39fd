#!/bin/bash
# The modules of one kernel as a read-only image, without those for devices that a guest never has.
# usage: build-modules.sh PACKAGE-TREE RELEASE OUT
set -euo pipefail
package=$1 release=$2 out=$3
source=$package/lib/modules/$release
[ -d "$source" ] || source=$package/usr/lib/modules/$release
tree=$out/tree
mkdir -p "$tree/lib/modules"
cp -a "$source" "$tree/lib/modules/"
modules=$tree/lib/modules/$release
rm -rf "$modules/kernel/drivers/"{ata,gpu,hv,infiniband,media,nvme,scsi,xen}
# Inflating at boot is slow under emulation.
find "$modules" -name '*.ko.xz' -exec xz -d {} +
depmod -b "$tree" "$release"
size=$(($(du -sm "$tree/lib/modules" | cut -f1) * 115 / 100 + 16))
mke2fs -q -t ext4 -d "$tree/lib/modules" -O ^has_journal,^metadata_csum,^64bit -m 0 -L modules \
	"$out/modules.ext4" "${size}M"
# What the first program needs before it can mount anything, in the order in which it needs it.
mkdir "$out/early"
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
	virtio_blk failover net_failover virtio_net overlay; do
	file=$(find "$modules" -name "$module.ko")
	[ -n "$file" ] || continue
	cp "$file" "$out/early/"
	echo "$module" >> "$out/early/modules.order"
done
rm -rf "$tree"
