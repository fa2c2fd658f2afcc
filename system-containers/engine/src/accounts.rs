//! Who a container's process is: names of users and groups, looked up in the image's own /etc/passwd and /etc/group.

use berth_config::{Account, AccountError, Group};

use crate::merged::{Merged, MergedError};

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No such name.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The files cannot be read.
    #[error(transparent)]
    Merged(#[from] MergedError),
}

/// Resolves `user` and `group`, each a name or a number; with them go the further groups that are given by name.
pub fn resolve(image: &Merged, user: &str, group: Option<&str>, more: &[Group]) -> Result<Account, ResolveError> {
    let users = image.read("etc/passwd", Account::FILE_BYTES)?.unwrap_or_default();
    let groups = image.read("etc/group", Account::FILE_BYTES)?.unwrap_or_default();
    let mut account = Account::find(&users, &groups, user, group)?;
    account.additional_gids.extend(Account::named_groups(&groups, more)?);
    Ok(account)
}
