"""GPU kernels in Triton: the second implementation of the steps in `ops.py`, whose plain form is their test.

    table       which kernel takes a step, by how many tokens it has
    products    gemv (one row) and matmul (several) through matrices of every format; rows (norms, activations)
    heads       rope (qk-norm, rope, cache) and attention (paged, split, decodes and chunks together)
    steps       both ends of a step: embeddings, angles, places (inputs); the token drawn from a row (drawing)
    formats     a matrix as kernels take it, and how its weights become numbers
    tiles       tiles of a matrix and of the row that meets them; integers for q8 and q4
    activations the row that meets a matrix: norm, rounding; the MLP's functions
    splits      sums of columns that are cut among programs, in a fixed order
    operands    tensors and grids as kernels take them
    launch      what a launch depends on beside them

Imported by `placement.cuda_ops` alone, where Triton is installed. TRITON_INTERPRET=1
runs all of it on CPU tensors.
"""
