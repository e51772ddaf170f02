//! Tidegate's io.
