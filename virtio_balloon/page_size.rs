// SPDX-License-Identifier: GPL-2.0

//! What depends on the size of a kernel page: balloon pages have 4 KiB everywhere.
//!
//! Uses only `core`, so that it can be tested on a host, with any size.

/// Size of a balloon page, the unit of page numbers and counts on the wire: 4096 bytes.
const BALLOON_PAGE_SHIFT: usize = 12;

/// Size of the largest blocks that are worth while: 2 MiB.
const BLOCK_SHIFT: usize = 21;

/// Balloon pages in a kernel page of `1 << page_shift` bytes.
pub(crate) const fn per_page(page_shift: usize) -> usize {
    1 << (page_shift - BALLOON_PAGE_SHIFT)
}

/// Order of the largest blocks that inflation takes: 2 MiB, or as many pages as a request has room
/// for, which are `request_pages`.
pub(crate) const fn block_order(page_shift: usize, request_pages: usize) -> u32 {
    let order = (1_usize << (BLOCK_SHIFT - page_shift)).ilog2();
    let request = request_pages.ilog2();

    if order < request {
        order
    } else {
        request
    }
}

/// Number of the first balloon page in kernel page number `pfn`, if it has 32 bits: then all have.
pub(crate) fn first_number(pfn: usize, per_page: usize) -> Option<u32> {
    u32::try_from(pfn.checked_mul(per_page)?).ok()
}

/// Numbers of the balloon pages in a kernel page, by that of the first one.
pub(crate) fn numbers(first: u32, per_page: usize) -> impl Iterator<Item = u32> {
    // `first..` would look beyond the last number there is.
    (first..=u32::MAX).take(per_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of x86-64 and of arm64.
    const PAGE_SHIFTS: [usize; 3] = [12, 14, 16];

    /// Numbers in a request.
    const REQUEST_LEN: usize = 1024;

    #[test]
    fn pages_have_as_many_balloon_pages_as_fit() {
        assert_eq!(PAGE_SHIFTS.map(per_page), [1, 4, 16]);
    }

    #[test]
    fn blocks_fit_a_request() {
        let orders = PAGE_SHIFTS.map(|shift| block_order(shift, REQUEST_LEN / per_page(shift)));

        assert_eq!(orders, [9, 7, 5]);
        for (shift, order) in PAGE_SHIFTS.into_iter().zip(orders) {
            assert!(per_page(shift) << order <= REQUEST_LEN);
        }
        assert_eq!(block_order(12, 100), 6);
    }

    #[test]
    fn the_last_number_is_used_and_none_beyond_it() {
        for per_page in PAGE_SHIFTS.map(per_page) {
            let pages = (1 << 32) / per_page;
            let last = first_number(pages - 1, per_page).unwrap();

            assert_eq!(numbers(last, per_page).count(), per_page);
            assert_eq!(numbers(last, per_page).last(), Some(u32::MAX));
            assert_eq!(first_number(pages, per_page), None);
        }
        assert_eq!(first_number(usize::MAX, 16), None);
    }

    #[test]
    fn numbers_of_neighbours_are_adjacent() {
        for per_page in PAGE_SHIFTS.map(per_page) {
            let firsts = (5..8).map(|pfn| first_number(pfn, per_page).unwrap());
            let all = firsts.flat_map(|first| numbers(first, per_page));

            assert!(all.eq((5 * per_page as u32..).take(3 * per_page)));
        }
    }
}
