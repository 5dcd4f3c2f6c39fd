//! The first process of every pod on the lab's nodes: it holds the pod's namespaces and waits.
//! The container runtime ends it with SIGKILL.

fn main() {
    loop {
        std::thread::park();
    }
}
