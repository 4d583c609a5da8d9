"""A texture reader of single cells: dense local descriptors, Fisher vectors over regions of the cell, kernel ridge.

`channels` turns the pixels of a cell into its channels, `descriptors` describes their texture at a grid of points,
`encoding` summarises the descriptors of a cell, `scalars` measures the whole cell, `ridge` learns the patterns, and
`reader` is all of it. Everything except the fit of the ridge runs compiled, in batches of cells.
"""
