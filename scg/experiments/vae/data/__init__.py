"""Images: read from packages, from the files of data sets, and from a user's own."""
