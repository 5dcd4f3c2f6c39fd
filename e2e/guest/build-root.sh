#!/bin/bash
# Turns a Debian tree into the image that all nodes share and the template of a node's own disk.
# usage: build-root.sh TREE GUEST-FILES PROGRAMS OUT
set -euo pipefail
tree=$1 guest=$2 programs=$3 out=$4
root=$out/tree
cp -a "$tree" "$root"

install -m755 "$programs/kubelet" "$programs/kube-proxy" "$programs/busybox" "$root/usr/local/bin/"
install -m755 "$guest/node-identity.sh" "$guest/console.sh" "$root/usr/local/sbin/"
install -m644 "$guest"/*.service "$root/etc/systemd/system/"
install -m644 "$guest/kubelet.yaml" "$root/etc/kubelet.yaml"
install -D -m644 "$guest/containerd.toml" "$root/etc/containerd/config.toml"
install -D -m644 "$guest/hosts.toml" "$root/etc/containerd/certs.d/registry.lab/hosts.toml"

units=$root/etc/systemd/system
mkdir -p "$units/multi-user.target.wants" "$units/basic.target.wants"
for unit in node-identity kubelet kube-proxy; do
	ln -sf "../$unit.service" "$units/multi-user.target.wants/$unit.service"
done
ln -sf /lib/systemd/system/containerd.service "$units/multi-user.target.wants/containerd.service"
ln -sf ../console.service "$units/basic.target.wants/console.service"
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"

# A node without screen, people or updates starts in half the time without these.
# systemd-pstore would empty the kernel's last words before anyone has read them.
for unit in \
	apt-daily.timer apt-daily-upgrade.timer dev-hugepages.mount dev-mqueue.mount \
	dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target \
	getty@tty1.service kmod-static-nodes.service modprobe@.service motd-news.timer \
	nftables.service proc-sys-fs-binfmt_misc.automount serial-getty@ttyS0.service \
	sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
	sys-kernel-tracing.mount systemd-binfmt.service systemd-firstboot.service \
	systemd-hwdb-update.service systemd-journal-catalog-update.service \
	systemd-journal-flush.service systemd-logind.service systemd-machine-id-commit.service \
	systemd-modules-load.service systemd-pstore.service systemd-random-seed.service \
	systemd-sysusers.service systemd-tmpfiles-clean.timer systemd-udev-settle.service \
	systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
	systemd-udevd.service systemd-update-done.service systemd-update-utmp-runlevel.service \
	systemd-update-utmp.service; do
	ln -sf /dev/null "$units/$unit"
done
# Each generator is one more process in front of everything else.
mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/lib/systemd/system-generators/*; do
	ln -sf /dev/null "$root/etc/systemd/system-generators/$(basename "$generator")"
done
sed -i 's/^#\?Storage=.*/Storage=volatile/; s/^#\?ForwardToConsole=.*/ForwardToConsole=no/' \
	"$root/etc/systemd/journald.conf"
: > "$root/etc/fstab"
: > "$root/etc/machine-id"
rm -rf "$root/usr/share/"{doc,man,locale,info,gocode} "$root/usr/lib/python"* \
	"$root/var/cache/apt" "$root/var/lib/apt/lists"
mkdir -p "$root/lib/modules"

# The template of /var: 6 GiB, sparse. Each node has a copy-on-write file on top of it.
mke2fs -q -t ext4 -d "$root/var" -E lazy_itable_init=1,lazy_journal_init=1 -J size=16 -m 0 \
	-L var "$out/var.ext4" 6G
rm -rf "$root/var"
mkdir "$root/var"
# Not compressed: the host's page cache does the sharing, and inflating is slow under emulation.
size=$(($(du -sm "$root" | cut -f1) * 115 / 100 + 40))
mke2fs -q -t ext4 -d "$root" -O ^has_journal,^metadata_csum,^64bit -m 0 -L root \
	"$out/root.ext4" "${size}M"
rm -rf "$root"
