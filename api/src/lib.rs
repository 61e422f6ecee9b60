//! ake-api: the only holder of privileged credentials.
