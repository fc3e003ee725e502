"""What nets are fed from: records, databases and files, what is done to images, and the loader that works ahead."""
