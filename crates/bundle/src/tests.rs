use proptest::prelude::*;

use super::*;

fn name(digit: char) -> ModuleName {
    format!("invivo_l1_{}", digit.to_string().repeat(16)).parse().unwrap()
}

fn sample() -> Vec<u8> {
    pack(b"{}", &[(&name('a'), b"first"), (&name('b'), b"second")]).unwrap()
}

fn tar() -> Vec<u8> {
    zstd::stream::decode_all(sample().as_slice()).unwrap()
}

#[track_caller]
fn assert_refused(bundle: &[u8], refusal: Refusal) {
    let rejection = unpack(bundle).unwrap_err();
    assert_eq!(rejection.refusal, refusal, "{rejection}");
}

#[test]
fn a_bundle_comes_back_as_it_was_packed() {
    let bundle = unpack(&sample()).unwrap();
    assert_eq!(bundle.manifest, b"{}");
    let modules: Vec<_> =
        bundle.modules.iter().map(|module| (&module.name, module.bytes.as_slice())).collect();
    assert_eq!(modules, [(&name('a'), &b"first"[..]), (&name('b'), &b"second"[..])]);
    assert_eq!(pack(&bundle.manifest, &modules).unwrap(), sample());
}

#[test]
fn the_order_in_which_modules_are_given_does_not_matter() {
    assert_eq!(pack(b"{}", &[(&name('b'), b"second"), (&name('a'), b"first")]).unwrap(), sample());
}

#[test]
fn other_programs_can_read_it() {
    let tar = tar();
    let mut archive = tar::Archive::new(tar.as_slice());
    let paths: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(paths.len(), 3);
    assert_eq!(paths[0].to_str(), Some("manifest.json"));
    assert_eq!(paths[1].to_str(), Some("modules/invivo_l1_aaaaaaaaaaaaaaaa.ko"));
}

#[test]
fn whoever_unpacks_a_large_module_needs_no_window_as_large() {
    // Nothing that repeats: a generator of numbers, and no source of chance.
    let mut state = 1u32;
    let module: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    let bundle = pack(b"{}", &[(&name('a'), &module)]).unwrap();
    let reads = |window_log| {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(bundle.as_slice()).unwrap();
        decoder.window_log_max(window_log).unwrap();
        decoder.read_to_end(&mut Vec::new()).is_ok()
    };
    assert!(reads(WINDOW_LOG) && !reads(WINDOW_LOG - 1), "the window is another");
    assert_eq!(unpack(&bundle).unwrap().modules[0].bytes, module);
}

#[test]
fn parts_over_their_caps_are_not_packed() {
    let over = |limit: u64| vec![0u8; usize::try_from(limit).unwrap() + 1];
    let refused =
        |manifest: &[u8], modules: &[(&ModuleName, &[u8])]| pack(manifest, modules).unwrap_err().refusal;
    assert_eq!(refused(&over(cap::MANIFEST), &[(&name('a'), b"")]), Refusal::EndlessData);
    assert_eq!(refused(b"{}", &[(&name('a'), &over(cap::MODULE))]), Refusal::EndlessData);
    assert_eq!(refused(b"{}", &[]), Refusal::Malformed);
    assert_eq!(refused(b"{}", &[(&name('a'), b""), (&name('a'), b"")]), Refusal::Malformed);
}

#[test]
fn endless_data_a_small_file_that_unpacks_to_very_much() {
    // A manifest that says it is as long as a module may be, and a module that says more.
    for (path, length) in
        [(MANIFEST, cap::MANIFEST + 1), ("modules/invivo_l1_aaaaaaaaaaaaaaaa.ko", cap::MODULE + 1)]
    {
        let mut tar = Vec::new();
        if path != MANIFEST {
            append(&mut tar, MANIFEST, b"{}", cap::MANIFEST).unwrap();
        }
        tar.extend_from_slice(header(path, length).unwrap().as_bytes());
        tar.resize(usize::try_from(length).unwrap(), 0);
        assert_refused(&compress(&tar).unwrap(), Refusal::EndlessData);
    }
    // Modules that are each short enough.
    let mut tar = Vec::new();
    append(&mut tar, MANIFEST, b"{}", cap::MANIFEST).unwrap();
    for digit in ['a', 'b', 'c'] {
        append(&mut tar, &path(&name(digit)), &vec![0; usize::try_from(cap::MODULE).unwrap()], cap::MODULE)
            .unwrap();
    }
    let bomb = zstd::stream::encode_all(tar.as_slice(), 1).unwrap();
    assert!(bomb.len() < 100_000);
    assert_refused(&bomb, Refusal::EndlessData);
    assert_refused(&vec![0; usize::try_from(cap::BUNDLE).unwrap() + 1], Refusal::EndlessData);
}

#[test]
fn malformed_anything_that_packing_does_not_write() {
    let again = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut tar = tar();
        change(&mut tar);
        compress(&tar).unwrap()
    };
    assert_refused(b"", Refusal::Malformed);
    assert_refused(b"not zstd at all", Refusal::Malformed);
    assert_refused(&again(&|tar| tar.truncate(700)), Refusal::Malformed);
    assert_refused(&again(&|tar| tar.truncate(tar.len() - BLOCK)), Refusal::Malformed);
    assert_refused(&again(&|tar| tar.push(0)), Refusal::Malformed);
    assert_refused(&again(&|tar| tar.extend_from_slice(&[0; 512])), Refusal::Malformed);
    assert_refused(&again(&|tar| tar.extend_from_slice(b"more")), Refusal::Malformed);
    assert_refused(&again(&|tar| tar[BLOCK + 100] = 1), Refusal::Malformed);
    assert_refused(&again(&|tar| drop(tar.drain(..2 * BLOCK))), Refusal::Malformed);
    assert_refused(&again(&|tar| drop(tar.drain(2 * BLOCK..6 * BLOCK))), Refusal::Malformed);
}

#[test]
fn malformed_links_other_paths_owners_modes_and_times() {
    let entry = |path: &str, change: &dyn Fn(&mut Header)| {
        let mut tar = Vec::new();
        append(&mut tar, MANIFEST, b"{}", cap::MANIFEST).unwrap();
        let mut header = header("x", 0).unwrap();
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        change(&mut header);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.resize(tar.len() + 2 * BLOCK, 0);
        compress(&tar).unwrap()
    };
    let good = path(&name('a'));
    unpack(&entry(&good, &|_| {})).unwrap();
    for bad in [
        "modules/../../etc/passwd",
        "/modules/invivo_l1_aaaaaaaaaaaaaaaa.ko",
        "modules/other.ko",
        "manifest.json",
        "",
    ] {
        assert_refused(&entry(bad, &|_| {}), Refusal::Malformed);
    }
    let changes: [&dyn Fn(&mut Header); 7] = [
        &|header| header.set_entry_type(EntryType::Symlink),
        &|header| header.set_entry_type(EntryType::XHeader),
        &|header| header.set_entry_type(EntryType::GNULongName),
        &|header| header.set_mode(0o4755),
        &|header| header.set_uid(1),
        &|header| header.set_mtime(1),
        &|header| header.as_mut_bytes()[510] = 1,
    ];
    for change in changes {
        assert_refused(&entry(&good, change), Refusal::Malformed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_byte_is_refused_or_changes_nothing(at: prop::sample::Index, flip in 1..=255u8) {
        let good = sample();
        let mut bytes = good.clone();
        let place = at.index(bytes.len());
        bytes[place] ^= flip;
        // A frame header has bits that say nothing of what it holds.
        if let Ok(bundle) = unpack(&bytes) {
            prop_assert_eq!(bundle, unpack(&good).unwrap());
        }
    }

    #[test]
    fn noise_is_refused_and_never_a_panic(noise: Vec<u8>) {
        prop_assert!(unpack(&noise).is_err());
        let _ = unpack(&compress(&noise).unwrap());
    }
}
