//! What the benchmarks beside this folder share.

pub mod paths;
pub mod whole;

use std::time::Duration;

use criterion::Criterion;

/// Short measurements: what is compared differs by far more than they are wrong.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .nresamples(5000)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(250))
        .configure_from_args()
}
