//! Making a repository on disk.
