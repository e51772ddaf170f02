//! Tidegate's simd.
