//! The operator's writes on a real API server, with the rights that the chart gives it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    dead_code
)]

mod finalizer;
mod gates;
mod labels;
#[path = "../../../crds/tests/cluster/server.rs"]
mod server;

use kube::Client;
use server::{ApiServer, render};

/// The chart installed.
async fn installed() -> ApiServer {
    let server = ApiServer::with_kinds().await;
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: invivo-system}}").await;
    server.apply(&render("invivo")).await;
    server
}

/// The operator's own account.
fn operator(server: &ApiServer) -> Client {
    let account = "system:serviceaccount:invivo-system:invivo-operator";
    let groups = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:invivo-system"];
    let mut headers = vec![("Impersonate-User".to_owned(), account.to_owned())];
    headers.extend(groups.map(|group| ("Impersonate-Group".to_owned(), group.to_owned())));
    server.client(&headers)
}
