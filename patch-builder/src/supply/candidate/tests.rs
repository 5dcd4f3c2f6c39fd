use super::*;
use crate::supply::changes::words;

type Functions<'a> = &'a [(&'a str, &'a [&'a str])];

/// Of the other files.
const THING: Functions = &[("thing_probe", &["err"])];

fn changes(list: &[(&str, Functions)]) -> BTreeMap<String, Changes> {
    let of = |functions: Functions| Changes {
        changed: functions
            .iter()
            .map(|(name, lines)| ((*name).to_owned(), words(&lines.join(" "))))
            .collect(),
        functions: functions.iter().map(|(name, _)| (*name).to_owned()).collect(),
        ..Changes::default()
    };
    list.iter().map(|(path, functions)| ((*path).to_owned(), of(functions))).collect()
}

/// Where `title` is, among `others`.
fn among(title: &str, others: &[&str]) -> Found {
    find(title, None, others)
}

/// The same of a change whose flaw's record names `files` and has some words.
fn recorded(title: &str, files: &[&str], text: &str, others: &[&str]) -> Found {
    let files = files.iter().map(|path| (*path).to_owned()).collect();
    find(title, Some(&Record { files, text: text.to_owned() }), others)
}

fn find(title: &str, record: Option<&Record>, others: &[&str]) -> Found {
    let named: &[(&str, Functions)] = &[
        ("net/unix/af_unix.c", &[("unix_ioctl", &["SIOCATMARK", "err"]), ("unix_bind", &["err", "addr"])]),
        ("block/blk-iocost.c", &[("ioc_pd_free", &["iocg"]), ("ioc_pd_init", &["iocg"])]),
        ("drivers/gpu/drm/panel/panel-edp.c", &[("panel_edp_probe", &["err", "adapter"])]),
        ("net/ipv4/ip_options.c", &[("ip_options_get", &["IPOPT_SSRR", "ns_capable"])]),
        ("net/ipv4/tcp.c", &[("tcp_close", &["sk"])]),
        ("include/net/tcp.h", &[("tcp_skb_cb", &["tcp_flags"])]),
    ];
    let mut list = named.to_vec();
    // What a release has besides.
    let rest: Vec<String> = (0..200).map(|n| format!("drivers/misc/thing{n}.c")).collect();
    list.extend(rest.iter().map(|path| (path.as_str(), THING)));
    let changes = changes(&list);
    let index = Index::sample(&[
        ("af_unix.c", &["unix_ioctl", "unix_bind"]),
        ("blk-iocost.c", &["ioc_pd_free", "ioc_pd_init"]),
        ("ip_options.c", &["ip_options_get"]),
        ("tcp.c", &["tcp_close"]),
    ]);
    let beside = (0..50).map(|n| format!("misc: thing{n}: fix leak")).collect::<Vec<_>>();
    let rest = beside.iter().map(String::as_str).chain(others.iter().copied());
    let all = rest.map(|title| Told { title, record: None }).chain([Told { title, record }]);
    let all: Vec<Told> = all.collect();
    let last = all.len() - 1;
    // This one is there, and does not differ.
    let is_own = |path: &str| path == "net/dccp/ip_options.c";
    Finder::new(&changes, all, &index, &is_own).find(last)
}

fn names(functions: &[String]) -> String {
    functions.join(" ")
}

/// The only place of a change.
fn place(found: Found) -> (Place, How) {
    match found {
        Found::Here(Candidate { mut places, how }) if places.len() == 1 => (places.remove(0), how),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_title_that_names_a_function_is_where_it_is() {
    let (place, how) = place(among("af_unix: fix leak in unix_bind()", &[]));
    assert_eq!((place.path.as_str(), how), ("net/unix/af_unix.c", How::ByName));
}

#[test]
fn all_that_differs_in_a_file_that_a_title_names_is_taken() {
    let (place, how) = place(among("block: blk-iocost: clear iocg delay state", &[]));
    assert_eq!((names(&place.functions).as_str(), how), ("ioc_pd_free ioc_pd_init", How::ByFile));
    assert!(place.of_others.is_empty());
}

#[test]
fn what_clearly_belongs_to_another_title_of_the_file_is_told_apart() {
    let (one, other) = ("af_unix: Reject SIOCATMARK on streams", "af_unix: fix leak in unix_bind()");
    let (first, _) = place(among(one, &[other]));
    assert_eq!(
        (names(&first.functions).as_str(), names(&first.of_others).as_str()),
        ("unix_bind unix_ioctl", "unix_bind")
    );
    assert_eq!(names(&first.surely), "unix_ioctl");
    let (second, _) = place(among(other, &[one]));
    assert_eq!(names(&second.of_others), "unix_ioctl");
}

#[test]
fn words_that_name_neither_file_nor_function_need_a_person() {
    let title = "net: look at ns_capable before IPOPT_SSRR";
    assert!(matches!(among(title, &[]), Found::Unclear(_)));
    // The record knows.
    let (place, how) = place(recorded(title, &["net/ipv4/ip_options.c"], "", &[]));
    assert_eq!((names(&place.functions).as_str(), how), ("ip_options_get", How::ByRecord));
}

#[test]
fn a_record_counts_for_more_than_the_title() {
    let files = ["block/blk-iocost.c", "net/ipv4/tcp.c", "drivers/gpu/drm/panel/panel-edp.c"];
    let Found::Here(found) = recorded("af_unix: fix leak in unix_bind()", &files, "", &[]) else { panic!() };
    let paths: Vec<_> = found.places.iter().map(|place| place.path.as_str()).collect();
    // What is not built is not affected.
    assert_eq!(paths, files[..2]);
}

#[test]
fn a_record_shares_a_file_with_another_title_by_its_words() {
    let others = ["af_unix: fix leak in unix_bind()"];
    let found = recorded("af_unix: be strict", &["net/unix/af_unix.c"], "SIOCATMARK on a stream", &others);
    let place = place(found).0;
    assert_eq!(
        (names(&place.of_others).as_str(), names(&place.surely).as_str()),
        ("unix_bind", "unix_ioctl")
    );
}

#[test]
fn a_record_is_right_where_all_that_differs_seems_to_be_of_others() {
    let others = ["ip_options: look before ip_options_get()"];
    let found = recorded("net: be careful", &["net/ipv4/ip_options.c"], "", &others);
    let place = place(found).0;
    assert_eq!((names(&place.functions).as_str(), names(&place.of_others).as_str()), ("ip_options_get", ""));
}

#[test]
fn files_of_other_machines_do_not_affect_and_a_file_that_moved_is_found() {
    let found = recorded("arm64: fix it", &["arch/arm64/kernel/entry.c", "tools/perf/x.c"], "", &[]);
    assert!(matches!(found, Found::NotBuilt(_)), "{found:?}");
    let (place, _) = place(recorded("what: is this", &["net/elsewhere/ip_options.c"], "", &[]));
    assert_eq!(place.path, "net/ipv4/ip_options.c");
    for nowhere in ["net/ipv4/nothing.c", "net/dccp/ip_options.c"] {
        let found = recorded("what: is this", &[nowhere], "", &[]);
        assert!(matches!(found, Found::Unclear(_)), "{found:?}");
    }
}

#[test]
fn a_fix_that_is_in_a_header_too_is_in_both_and_assembly_is_not_compared_at_all() {
    let files = ["net/ipv4/tcp.c", "include/net/tcp.h"];
    let Found::Here(found) = recorded("tcp: fix it", &files, "", &[]) else { panic!() };
    let paths: Vec<_> = found.places.iter().map(|place| place.path.as_str()).collect();
    assert_eq!(paths, files);
    assert_eq!(names(&found.places[1].functions), "tcp_skb_cb");
    let files = ["net/ipv4/tcp.c", "arch/x86/lib/copy_page_64.S"];
    let found = recorded("tcp: fix it", &files, "", &[]);
    assert_eq!(found, Found::NotCode(files[1].to_owned()));
}

#[test]
fn what_a_record_names_besides_code_needs_a_person_unless_nothing_of_it_is_built() {
    let found = recorded("tcp: fix it", &["net/ipv4/tcp.c", "net/ipv4/Kconfig"], "", &[]);
    assert!(matches!(found, Found::Unclear(_)), "{found:?}");
    let panel = ["drivers/gpu/drm/panel/panel-edp.c", "drivers/gpu/drm/panel/Kconfig", "include/net/tcp.h"];
    let found = recorded("panel: fix it", &panel, "", &[]);
    assert!(matches!(found, Found::NotBuilt(_)), "{found:?}");
}

#[test]
fn titles_that_fit_nothing_need_a_person() {
    for title in ["what: is this", "net: be nice", "misc: fix things"] {
        assert!(matches!(among(title, &[]), Found::Unclear(_)), "{title}: {:?}", among(title, &[]));
    }
}

#[test]
fn a_file_that_is_not_built_does_not_affect() {
    assert!(matches!(among("drm/panel-edp: fix i2c adapter leak", &[]), Found::NotBuilt(_)));
}

#[test]
fn that_a_change_is_in_a_header_alone_no_title_tells() {
    let found = among("tcp: look at tcp_flags of tcp_skb_cb()", &[]);
    assert_eq!(found, Found::Unclear("perhaps include/net/tcp.h, and not in it alone".to_owned()));
}

#[test]
fn a_record_whose_files_the_source_does_not_have_leaves_the_title() {
    let title = "ipv4: ip_options: restrict IPOPT_SSRR in ip_options_get";
    let found = recorded(title, &["net/options/core.c"], "", &[]);
    assert!(
        matches!(&found, Found::Here(Candidate { how: How::ByName, places })
            if places[0].path == "net/ipv4/ip_options.c"),
        "{found:?}"
    );
    // What it has there is where the fix is.
    let found = recorded(title, &["net/dccp/ip_options.c"], "", &[]);
    assert!(matches!(found, Found::Unclear(_)), "{found:?}");
}
