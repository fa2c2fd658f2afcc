//! Images, snapshots and volumes
