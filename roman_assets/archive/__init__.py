"""Files: immutable blobs, public names, what is set aside."""
