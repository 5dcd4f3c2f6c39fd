//! How near a file is to what the beginning of a title names: `net/sched: act_ct: …`.

/// What the beginning of a title names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(Vec<String>);

/// Names that titles use for folders and files of another name.
const ALIASES: [(&str, &str); 21] = [
    ("afs", "afs"),
    ("bonding", "bond"),
    ("cfg80211", "net/wireless"),
    ("cifs", "fs/smb/client"),
    ("dm", "md"),
    ("ipvs", "ip_vs"),
    ("ksmbd", "fs/smb/server"),
    ("libceph", "net/ceph"),
    ("mac80211", "net/mac80211"),
    ("mlx5e", "mlx5/core"),
    ("nfsv4", "nfs"),
    ("nvme_rdma", "nvme/host"),
    ("nvme_tcp", "nvme/host"),
    ("nvmet", "nvme/target"),
    ("nvmet_rdma", "nvme/target"),
    ("nvmet_tcp", "nvme/target"),
    ("pm", "power"),
    ("pnfs", "nfs"),
    ("svcrdma", "xprtrdma"),
    ("tracing", "kernel/trace"),
    ("vsock", "vmw_vsock"),
];

impl Places {
    /// Of a title: all that ends with a colon, or one word before ` - `.
    pub fn of(title: &str) -> Self {
        let (mut prefix, mut rest) = title.rsplit_once(": ").unwrap_or(("", title));
        // A colon within the sentence names nothing.
        if prefix.split([':', '/', ',']).any(|place| place.trim().split(' ').count() > 2) {
            (prefix, rest) = title.split_once(": ").unwrap_or(("", title));
        }
        let more = rest.split_once(" - ").map(|(word, _)| word).filter(|word| !word.contains(' '));
        let words = prefix.split([':', '/', ',', ' ']).chain(more);
        let mut places: Vec<String> = Vec::new();
        for word in words.filter(|w| !w.is_empty()) {
            let word = plain(word);
            let alias = ALIASES.iter().find(|(name, _)| *name == word).map(|(_, other)| *other);
            places.extend(alias.into_iter().flat_map(|other| other.split('/')).map(str::to_owned));
            if !places.contains(&word) {
                places.push(word);
            }
        }
        Self(places)
    }

    /// How near a file is: what is named of it counts for it, and folders that are not named against it.
    pub fn near(&self, path: &Path) -> f64 {
        let mut near = 0.0;
        for place in &self.0 {
            if path.folders.contains(place) {
                near += 4.0;
            } else if *place == path.stem {
                near += 6.0;
            } else if place.len() > 1 && is_part(&path.stem, place) {
                near += 4.0;
            }
        }
        let unnamed = path.folders.iter().filter(|folder| !self.0.contains(folder));
        unnamed.fold(near, |near, _| near - 0.6)
    }

    /// Whether the file itself is named.
    pub fn names(&self, path: &Path) -> bool {
        self.0.last().is_some_and(|last| {
            !path.folders.contains(last)
                && (*last == path.stem || (last.len() > 2 && is_part(&path.stem, last)))
        })
    }
}

/// A file's path, as titles name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    folders: Vec<String>,
    stem: String,
}

impl Path {
    /// Of a C file or a header.
    pub fn of(path: &str) -> Self {
        let path = plain(path.trim_end_matches(".c").trim_end_matches(".h"));
        let (folders, stem) = path.rsplit_once('/').unwrap_or(("", &path));
        Self { folders: folders.split('/').map(str::to_owned).collect(), stem: stem.to_owned() }
    }
}

/// Whether whole words of `stem` are `name`.
fn is_part(stem: &str, name: &str) -> bool {
    stem.match_indices(name).any(|(at, _)| {
        let before = stem.get(..at).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
        let after = stem.get(at + name.len()..).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        before && after
    })
}

/// A name as titles and files have it in common.
fn plain(name: impl AsRef<str>) -> String {
    name.as_ref().to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest of some paths.
    fn nearest<'p>(title: &str, paths: &[&'p str]) -> &'p str {
        let places = Places::of(title);
        let near = |path: &str| places.near(&Path::of(path));
        paths.iter().max_by(|a, b| near(a).total_cmp(&near(b))).unwrap()
    }

    #[test]
    fn a_file_is_near_if_much_of_its_path_is_named_and_little_is_not() {
        for (title, wanted, other) in [
            ("net/sched: act_ct: fix x", "net/sched/act_ct.c", "net/sched/act_api.c"),
            ("netfilter: nf_tables: fix x", "net/netfilter/nf_tables_api.c", "net/netfilter/core.c"),
            ("KVM: x86: fix x", "arch/x86/kvm/mmu.c", "virt/kvm/kvm_main.c"),
            ("crypto: algif_aead - fix x", "crypto/algif_aead.c", "crypto/af_alg.c"),
            ("tracing: fix x", "kernel/trace/ring_buffer.c", "fs/nfsd/trace.c"),
            ("smb: client: fix x", "fs/smb/client/file.c", "net/9p/client.c"),
            ("net: bridge: fix x", "net/bridge/br.c", "drivers/net/ethernet/mellanox/mlx5/core/esw/bridge.c"),
            ("nvmet-tcp: fix x", "drivers/nvme/target/tcp.c", "drivers/nvme/host/tcp.c"),
            ("ext4: fix what is wrong: a lock", "fs/ext4/x.c", "fs/lock/x.c"),
        ] {
            assert_eq!(nearest(title, &[other, wanted]), wanted, "{title}");
        }
    }

    #[test]
    fn a_title_names_a_file_by_its_narrowest_place_alone() {
        assert!(Places::of("net/sched: act_ct: fix x").names(&Path::of("net/sched/act_ct.c")));
        assert!(Places::of("netfilter: nf_tables: fix x").names(&Path::of("net/netfilter/nf_tables_api.c")));
        assert!(!Places::of("tcp: metrics: fix x").names(&Path::of("net/ipv4/tcp.c")));
        assert!(!Places::of("fix x").names(&Path::of("kernel/fork.c")));
    }
}
