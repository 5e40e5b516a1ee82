"""Moves: what operations of torch do with elements, as far as their names tell."""

from __future__ import annotations

from typing import Final

MOVES: Final = frozenset(
    """cat stack clone copy repeat flip roll constant_pad_nd slice_scatter select_scatter diagonal_scatter
    as_strided_scatter tril triu rot90 channel_shuffle pixel_shuffle pixel_unshuffle lift_fresh_copy
    unsafe_split unsafe_split_with_sizes diag_embed block_diag _unsafe_view unfold_copy expand_copy
    permute_copy select_copy slice_copy view_copy transpose_copy detach_copy squeeze_copy unsqueeze_copy
    t_copy unbind_copy split_copy split_with_sizes_copy diagonal_copy as_strided_copy alias_copy""".split()
)
"""They only move elements: done to numbers of owners they give the owners of the result."""

PLACEWISE: Final = frozenset("_to_copy copy_ contiguous floor_divide floor_divide_".split())
"""They work place by place, besides those that torch marks so."""

RESHAPES: Final = frozenset(
    "squeeze_ unsqueeze_ t_ transpose_ as_strided_ swapaxes_ swapdims_ detach_ resize_".split()
)
"""They change how a tensor looks at its elements, and none of these."""

OVERWRITES: Final = frozenset(
    "zero_ fill_ uniform_ normal_ exponential_ random_ geometric_ cauchy_ log_normal_".split()
)
"""They write what depends on nothing."""

FILLS: Final = OVERWRITES | frozenset(
    """zeros ones full empty new_zeros new_ones new_full new_empty new_empty_strided empty_strided zeros_like
    ones_like full_like empty_like rand randn rand_like randn_like randint randint_like scalar_tensor
    bernoulli_ native_dropout""".split()
)
"""Their results are alike at all of their places, or are random there."""

INDEXING: Final = frozenset(
    """nonzero index index_put index_put_ _unsafe_index _index_put_impl_ gather scatter scatter_ index_select
    index_copy index_copy_ index_add index_add_ scatter_add scatter_add_ scatter_reduce scatter_reduce_
    masked_select masked_scatter embedding take put put_ index_fill index_fill_""".split()
)
"""They read or write at places that tensors tell."""

ROWS: Final = frozenset("""index_add index_copy index_fill index_put _index_put_impl index_reduce""".split())
"""They write whole rows to places that a tensor tells."""

PRODUCTS: Final = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""They multiply matrices, of which the first has this place among their arguments."""

SIZED: Final = frozenset(
    """view _unsafe_view reshape expand zeros ones full empty new_zeros new_ones new_full new_empty rand randn
    split_with_sizes unsafe_split_with_sizes repeat as_strided empty_strided new_empty_strided""".split()
)
"""They are told sizes."""

AROUND_PRODUCTS: Final = frozenset("unsqueeze squeeze transpose expand permute t".split())
"""They come with products of matrices, and differ between those of two dimensions and of three."""
