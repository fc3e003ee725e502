"""The data pipeline: records, databases and files, image transformations, and a loader that prefetches batches."""
