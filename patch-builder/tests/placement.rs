//! How often titles alone say rightly which file a fix is in, told by the flaws' own records.
//!
//! `INVIVO_RECORDS` names a folder with records: run by `make bench-supply` where there are any.

use std::path::Path;

use invivo_patch_builder::index;
use invivo_patch_builder::shop::Shop;
use invivo_patch_builder::supply::candidate::{Finder, Found, Told};
use invivo_patch_builder::supply::records::Records;
use invivo_patch_builder::supply::steps;
use invivo_patch_builder::{Cache, KernelLock, Step};

/// What the titles said.
#[derive(Debug, Default)]
struct Tally {
    /// One of the record's files.
    right: usize,
    /// Of these, fixes that are in other built files too.
    partly: usize,
    /// A file that the record does not name.
    wrong: usize,
    /// Nothing that is built, where the record's files are.
    overlooked: usize,
    /// Nothing that is built, and so it is.
    not_built: usize,
    /// Nothing: a person must say.
    unclear: usize,
}

#[test]
#[ignore = "needs records"]
fn where_titles_alone_place_a_fix_they_are_rarely_wrong() {
    let records = std::env::var("INVIVO_RECORDS").expect("INVIVO_RECORDS names a folder");
    let records = Records::of(Path::new(&records)).unwrap();
    let mut tell = |step: Step, words: &str| eprintln!("{step:8} {words}");
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/kernels/6.1.0-47-cloud-amd64.yaml");
    let (cache, lock) = (Cache::from_env().unwrap(), KernelLock::read(&lock).unwrap());
    let shop = Shop::open(&cache, &lock, &mut tell).unwrap();
    let way = [lock.package_version.as_str(), "6.1.187-1"];
    let name = &lock.packages.source.name;
    let steps = steps::steps(&cache, shop.source(), name, way, &["6.1.176-1".to_owned()], &mut tell).unwrap();
    let index = index::Index::of(shop.debug(), shop.vmlinux()).unwrap();
    let mut tally = Tally::default();
    for step in &steps {
        let told: Vec<_> = step.brought.iter().map(|change| records.find(&change.cves).unwrap()).collect();
        let all = || step.brought.iter().zip(&told);
        let by_title = all().map(|(change, _)| Told { title: &change.title, record: None });
        let by_record = all().map(|(change, record)| Told { title: &change.title, record: record.as_ref() });
        let is_own = |path: &str| shop.source().join(path).is_file();
        let (by_title, by_record) = (
            Finder::new(&step.changes, by_title, &index, &is_own),
            Finder::new(&step.changes, by_record, &index, &is_own),
        );
        for (number, (change, record)) in all().enumerate() {
            let Some(record) = record.as_ref().filter(|_| change.is_for_us()) else { continue };
            let built = by_record.built(record);
            match by_title.find(number) {
                Found::Here(found) => {
                    let path = found.places[0].path.as_str();
                    let is_it = built.contains(&path);
                    tally.right += usize::from(is_it);
                    tally.partly += usize::from(is_it && built.len() > 1);
                    if !is_it {
                        tally.wrong += 1;
                        eprintln!("{}: {path}, not {:?}", change.title, record.files);
                    }
                }
                Found::NotCode(path) if built.contains(&path.as_str()) => tally.right += 1,
                Found::NotCode(_) => tally.wrong += 1,
                Found::NotBuilt(_) if built.is_empty() => tally.not_built += 1,
                Found::NotBuilt(_) => tally.overlooked += 1,
                Found::Unclear(_) => tally.unclear += 1,
            }
        }
    }
    println!("{tally:?}");
    let said = tally.right + tally.wrong;
    assert!(said > 100, "hardly anything was placed: {tally:?}");
    assert!(tally.wrong * 10 <= said, "more than a tenth is wrong: {tally:?}");
}
