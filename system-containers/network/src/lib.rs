//! Links, addresses, routes, names
