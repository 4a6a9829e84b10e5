//! How the names of controllers become addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::lookup_host;

use crate::helper::Helper;

/// Who looks names up.
#[derive(Clone, Debug, Default)]
pub enum Names {
    /// The system's libraries, in this process.
    #[default]
    System,
    /// The helper: this process is confined, and cannot read what they need.
    Helper(Arc<Helper>),
}

impl Names {
    /// The addresses of `host:port`; or why there are none, in words.
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, String> {
        match self {
            Self::System => match lookup_host(name).await {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(error.to_string()),
            },
            Self::Helper(helper) => helper
                .resolve(name)
                .await
                .map_err(|error| error.to_string()),
        }
    }
}
