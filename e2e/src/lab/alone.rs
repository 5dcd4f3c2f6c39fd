//! A lab without nodes, beside the usual one: a control plane in a network of its own.

use super::{Error, Lab, stop_all};
use crate::cache::Cache;
use crate::network;
use crate::state::State;

impl Lab {
    /// Another lab beside the usual one, for a control plane alone: what nodes boot from is not
    /// built. Its state is kept under this name.
    ///
    /// # Errors
    /// When something cannot be had or built.
    pub fn without_nodes(name: &str) -> Result<Self, Error> {
        Self::of(Cache::open()?, |cache| State::named(cache, name))
    }

    /// A new cluster of etcd and an API server alone, in a network namespace of its own, which the
    /// calling thread is in afterwards. Nobody looks after nodes and pods there.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start_api_server(&self, network: &str) -> Result<(), Error> {
        self.forget()?;
        network::enter_new(network)?;
        Ok(self.control_plane().api_server_up()?)
    }

    /// Ends what [`Lab::start_api_server`] and others started in this lab.
    ///
    /// # Errors
    /// When a process does not end.
    pub fn end_without_nodes(&self, network: &str) -> Result<(), Error> {
        stop_all(&self.state)?;
        Ok(network::remove(network)?)
    }
}
