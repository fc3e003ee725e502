"""What nets are fed from: Datum, LMDB, image lists, HDF5, windows, mean files, the transformer and the prefetching loader."""
