use super::*;

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
    let all = beside.iter().map(String::as_str).chain(others.iter().copied()).chain([title]);
    Finder::new(&changes, all, &index).find(title)
}

fn here(title: &str, others: &[&str]) -> (String, How) {
    match among(title, others) {
        Found::Here(candidate) => (candidate.functions.join(" "), candidate.how),
        other => panic!("{title}: {other:?}"),
    }
}

#[test]
fn a_title_that_names_a_function_is_where_it_is() {
    let others = ["af_unix: Reject SIOCATMARK on non-stream sockets"];
    assert_eq!(here("af_unix: fix leak in unix_bind()", &others), ("unix_bind".to_owned(), How::ByName));
}

#[test]
fn all_that_differs_in_a_file_that_only_one_title_names_belongs_to_it() {
    let found = here("block: blk-iocost: clear iocg delay state", &[]);
    assert_eq!(found, ("ioc_pd_free ioc_pd_init".to_owned(), How::ByFile));
}

#[test]
fn of_titles_that_name_one_file_each_has_the_functions_that_fit_it_best() {
    let (one, other) = ("af_unix: Reject SIOCATMARK on streams", "af_unix: fix leak in unix_bind()");
    assert_eq!(here(one, &[other]), ("unix_ioctl".to_owned(), How::ByFile));
    assert_eq!(here(other, &[one]), ("unix_bind".to_owned(), How::ByName));
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
fn a_header_has_no_function_to_take() {
    let found = among("tcp: look at tcp_flags of tcp_skb_cb()", &[]);
    assert_eq!(found, Found::Header("include/net/tcp.h".to_owned()));
}
