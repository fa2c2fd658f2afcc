//! The integrated OCI runtime
