//! How the arrays grow that have an entry for each subscription: by an eighth, so that what is reserved and not used is never more
//! than that. A `Vec` doubles, which right behind a doubling is as much again as what is there.

use slab::Slab;

/// Entries more, of so many.
fn step(len: usize) -> usize {
    (len / 8).max(2)
}

/// Appends, as `Vec::push` does.
pub(crate) fn push<T>(to: &mut Vec<T>, item: T) {
    if to.len() == to.capacity() {
        to.reserve_exact(step(to.len()));
    }
    to.push(item);
}

/// Takes a place, as `Slab::insert` does.
pub(crate) fn insert<T>(to: &mut Slab<T>, item: T) -> usize {
    // With as many entries as there is room for, none of them is vacant.
    if to.len() == to.capacity() {
        to.reserve_exact(step(to.len()));
    }
    to.insert(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_an_eighth_at_most() {
        let (mut list, mut slab) = (Vec::new(), Slab::new());
        let mut moves = 0;
        for count in 1..100_000 {
            let before = list.capacity();
            push(&mut list, 0_u64);
            insert(&mut slab, 0_u64);
            moves += usize::from(list.capacity() > before);
            let most = count + count / 8 + 2;
            assert!(list.capacity() <= most && slab.capacity() <= most, "{count}: {}", slab.capacity());
        }
        // By a factor: what is added costs a few moves on average, however many there are.
        assert!(moves < 120, "{moves}");
        // A place that was left is taken first.
        slab.remove(7);
        let capacity = slab.capacity();
        assert_eq!((insert(&mut slab, 0), slab.capacity()), (7, capacity));
    }
}
